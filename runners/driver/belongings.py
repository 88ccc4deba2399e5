"""What a driver works on: the client's files that the recipe names, and the answers that there are already."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from recipes import catalogue
from recipes.inputs import expand_all
from recipes.spec import Recipe
from runners.run_folder import RunFolder

_ASKED = ("answers.jsonl", "documents.jsonl", "takes-over.json")


def files_of(recipe: Recipe, tokenizer: Path) -> Iterator[Path]:
    """The files that the workload reads."""
    settings = recipe.workload
    yield tokenizer
    yield from expand_all(settings.inputs)
    if (prompt := _prompt_file(recipe)) is not None:
        yield prompt
    if settings.traffic is not None and settings.traffic.prompts:
        yield Path(settings.traffic.prompts)


def relocated(recipe: Recipe, root: str) -> dict[str, Any]:
    """The recipe as plain data, with each file below a root on the machine."""
    data = recipe.resolved()
    workload: dict[str, Any] = data["workload"]
    if recipe.workload.inputs:
        workload["inputs"] = [f"{glob.escape(root)}{pattern}" for pattern in recipe.workload.inputs]
    if (prompt := _prompt_file(recipe)) is not None and root:
        workload["prompt"] = f"{root}{prompt}"
    if (traffic := recipe.workload.traffic) is not None and traffic.prompts:
        workload["traffic"]["prompts"] = f"{root}{traffic.prompts}"
    return data


def stage(files: Iterable[Path], folder: Path) -> Path:
    """A folder in which each file stands below its own absolute path, as a link: what is sent follows it."""
    for path in files:
        link_to(path.absolute(), folder / str(path.absolute()).lstrip("/"))
    return folder


def stage_earlier(run: RunFolder, folder: Path) -> Path | None:
    """The same of what this run and those that it goes on from have asked; None if that is nothing."""
    others: list[str] = run.read_json("takes-over.json") or []
    found: Mapping[str, Path] = {
        f"{one.name}/{path.name}": path
        for one in (run.path, *(run.path.parent / name for name in others))
        for path in (*(one / name for name in _ASKED), one / "outputs")
        if (path.is_dir() and any(path.iterdir())) or (path.is_file() and path.stat().st_size)
    }
    if not any(name.endswith(".jsonl") for name in found):
        return None
    for name, path in found.items():
        link_to(path, folder / name)
    return folder


def link_to(path: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(path)


def _prompt_file(recipe: Recipe) -> Path | None:
    """The file of the prompt's template; None if the recipe holds the template itself."""
    prompt = recipe.workload.prompt
    if "{{" in prompt or "\n" in prompt:
        return None
    if prompt.startswith("builtin:"):
        return catalogue.builtin_prompt(prompt.removeprefix("builtin:"))
    return Path(prompt)
