"""Recipes as command lines name them: by their name, or by their file."""

from __future__ import annotations

from pathlib import Path


def recipe_name(word: str) -> str:
    """The name of the recipe in a file, which its runs have; any other word as it is."""
    path = Path(word)
    if not (path.suffix in (".yaml", ".yml") or (len(path.parts) > 1 and _is_file(path))):
        return word
    from recipes.document import read_tree  # these bring pydantic, which no other word needs
    from recipes.errors import InvalidRecipe
    from recipes.spec import name_from

    try:
        name = read_tree(path.expanduser(), []).data().get("name")
    except (InvalidRecipe, RuntimeError):  # not there any more, or the home of nobody
        name = None
    return name if isinstance(name, str) and name else name_from(path.stem)


def _is_file(path: Path) -> bool:
    try:
        return path.expanduser().is_file()
    except (OSError, RuntimeError):  # a name that is too long, the home of nobody
        return False
