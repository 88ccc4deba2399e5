"""What ships with recipe: the recipes by name, their prompts, and a small real model."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent


def names() -> list[str]:
    """The catalogue's recipes, without `.yaml`."""
    return sorted(path.stem for path in ROOT.glob("*.yaml"))


def recipe_path(name: str) -> Path | None:
    """The catalogue's file of this name, with or without `.yaml`."""
    if Path(name).name != name:
        return None
    path = ROOT / f"{name.removesuffix('.yaml')}.yaml"
    return path if path.is_file() else None


def builtin_models() -> list[str]:
    return sorted(path.name for path in (ROOT / "models").iterdir() if (path / "config.json").is_file())


def builtin_model(name: str) -> Path:
    """The folder of a model that ships with recipe. Raises ValueError."""
    if name not in builtin_models():
        raise ValueError(f"{name}: no such built-in model; one of {', '.join(builtin_models())}")
    return ROOT / "models" / name


def builtin_prompt(name: str) -> Path:
    """The file of a prompt that ships with recipe. Raises ValueError."""
    path = ROOT / "prompts" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ValueError(f"builtin:{name}: no such prompt; one of {known}")
    return path
