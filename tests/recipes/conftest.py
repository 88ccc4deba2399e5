"""A folder with a text in it, where recipes are written and loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from recipes.errors import InvalidRecipe, Problem
from recipes.load import LoadedRecipe, load
from recipes.references import Plugins

PLUGINS = Plugins(
    ("local", "ssh", "runpod"),
    ("llamacpp", "vllm", "openai"),
    ("load", "summarize"),
    is_endpoint=lambda name: name == "openai",
)
MINIMAL = "name: mine\nmodel: {builtin: lead}\nworkload: {inputs: [a.txt]}\n"


@dataclass(frozen=True)
class Folder:
    path: Path

    def write(self, text: str | bytes, name: str = "mine.yaml") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def runs(self, text: str | bytes, *overrides: str, any_size: bool = False) -> tuple[LoadedRecipe, ...]:
        self.write(text)
        return self.load("mine.yaml", *overrides, any_size=any_size)

    def load(self, reference: str, *overrides: str, any_size: bool = False) -> tuple[LoadedRecipe, ...]:
        return load(reference, overrides=overrides, plugins=PLUGINS, cwd=self.path, any_size=any_size)

    def run(self, text: str | bytes, *overrides: str) -> LoadedRecipe:
        (loaded,) = self.runs(text, *overrides)
        return loaded

    def refusal(self, text: str | bytes, *overrides: str) -> tuple[Problem, ...]:
        """Every problem of a recipe that must not be accepted."""
        with pytest.raises(InvalidRecipe) as caught:
            self.runs(text, *overrides)
        assert caught.value.exit_code == 2
        return caught.value.problems

    def problems(self, text: str | bytes, *overrides: str) -> list[str]:
        """The same, as people read it."""
        return [str(problem) for problem in self.refusal(text, *overrides)]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("Once upon a time.")
    return Folder(tmp_path)
