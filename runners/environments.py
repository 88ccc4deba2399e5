"""The name of an engine's environment on a machine: the same as long as the same would be installed into it."""

from __future__ import annotations

from pathlib import Path

from recipes.spec import digest_of
from runners.engine import Installation, Step

ONHOST = Path(__file__).parent / "onhost"


def environment_name(engine: str, version: str | None, installation: Installation) -> str:
    """A folder's name; `{python_tag}` in it is replaced on the machine."""
    steps = [[list(step.argv), dict(step.env), _content(step)] for step in installation.steps]
    content = digest_of([steps, list(installation.check)])
    return f"{engine}-{version}-{content[:8]}-{{python_tag}}"


def named_files(step: Step) -> list[str]:
    """The files of onhost/ that a step reads."""
    return [part.removeprefix("{onhost}/") for part in step.argv if part.startswith("{onhost}/")]


def _content(step: Step) -> list[str]:
    return [(ONHOST / name).read_text(encoding="utf-8") for name in named_files(step)]
