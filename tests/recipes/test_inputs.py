"""The texts that a workload's patterns stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipes.inputs import expand, expand_all
from tests.recipes.conftest import MINIMAL, Folder


def with_inputs(*patterns: str) -> str:
    return MINIMAL.replace("[a.txt]", str(list(patterns)))


def files_of(here: Folder, *patterns: str) -> list[str]:
    inputs = here.run(with_inputs(*patterns)).recipe.workload.inputs
    return [str(path.relative_to(here.path)) for path in expand_all(inputs)]


@pytest.fixture
def library(here: Folder) -> Folder:
    for name in ("b.txt", "sub/c.txt", "sub/deep/d.txt", "sub/e.md", "odd[1].txt", "ünï.txt"):
        here.write("text", name)
    return here


@pytest.mark.parametrize(
    ("patterns", "files"),
    [
        (["*.txt"], ["a.txt", "b.txt", "odd[1].txt", "ünï.txt"]),
        (["sub/**/*.txt"], ["sub/c.txt", "sub/deep/d.txt"]),
        (["sub/*.txt", "b.txt"], ["sub/c.txt", "b.txt"]),
        (["[ab].txt"], ["a.txt", "b.txt"]),
        (["odd[1].txt"], ["odd[1].txt"]),
        (["b.txt", "*.txt"], ["b.txt", "a.txt", "odd[1].txt", "ünï.txt"]),
    ],
)
def test_patterns_stand_for_files_each_once_in_order(library: Folder, patterns: list[str], files: list[str]) -> None:
    assert files_of(library, *patterns) == files


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("gone.txt", "gone.txt: no such file; write a path or a glob, relative to where it is written"),
        ("*.doc", "*.doc: matches no file; write a path or a glob"),
        ("sub", "sub is a folder; write "),
        ("empty.txt", "empty.txt is empty; remove it or give it text"),
        ("empt*.txt", "empty.txt is empty"),
        ("x" * 5000, "File name too long"),
        ("~nobody-of-this-name/x.txt", "Could not determine home directory"),
    ],
)
def test_a_pattern_without_a_text_is_refused_where_it_is_written(library: Folder, pattern: str, problem: str) -> None:
    library.write("", "empty.txt")
    (found,) = library.problems(with_inputs("a.txt", pattern))
    assert found.startswith("mine.yaml:3:30 workload.inputs[1]: ")
    assert problem in found


def test_every_pattern_is_checked(here: Folder) -> None:
    assert len(here.problems(with_inputs("x.txt", "a.txt", "y.txt"))) == 2


def test_only_what_is_written_is_a_pattern_not_the_folder_it_starts_in(here: Folder) -> None:
    here.write("text", "my [books]/one.txt")
    here.write(with_inputs("*.txt", "one.txt"), "my [books]/mine.yaml")
    (loaded,) = here.load("my [books]/mine.yaml")
    assert expand_all(loaded.recipe.workload.inputs) == (here.path / "my [books]/one.txt",)


def test_an_absolute_path_stays_as_it_is(here: Folder, tmp_path_factory: pytest.TempPathFactory) -> None:
    text = tmp_path_factory.mktemp("else") / "t.txt"
    text.write_text("text")
    assert here.run(with_inputs(str(text))).recipe.workload.inputs == (str(text),)


def test_home_is_where_the_user_lives(here: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here.path))
    assert [Path(p).name for p in here.run(with_inputs("~/a.txt")).recipe.workload.inputs] == ["a.txt"]


def test_folders_that_a_glob_meets_are_no_texts(library: Folder) -> None:
    assert expand(str(library.path / "sub/*")) == [library.path / "sub/c.txt", library.path / "sub/e.md"]
