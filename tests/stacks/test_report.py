"""What resource providers tell beside Pulumi."""

from __future__ import annotations

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import recipes.errors
from recipes.errors import ExitCode, MayStillBillError, NoCapacity, RecipeError
from stacks import report
from stacks.report import Report, error_of
from stacks.values import StackFailed

ERRORS = [
    kind
    for kind in vars(recipes.errors).values()
    if isinstance(kind, type) and issubclass(kind, RecipeError) and kind is not recipes.errors.InvalidRecipe
]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    (tmp_path / "report").touch()
    monkeypatch.setenv(report.VARIABLE, str(tmp_path / "report"))
    return Report(tmp_path / "report")


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_comes_out_as_what_it_is(told: Report, kind: type[RecipeError]) -> None:
    report.tell_failed(kind("the reason", advice="the way out"))
    told.hear()
    error = told.error
    assert type(error) is kind
    assert error is not None
    assert (error.message, error.advice, error.exit_code) == ("the reason", "the way out", kind.exit_code)


def test_a_strangers_error_is_a_failed_stack(told: Report) -> None:
    report.tell_failed(ValueError("x < 1"))
    told.hear()
    assert isinstance(told.error, StackFailed)
    assert told.error.message == "ValueError: x < 1"
    assert type(error_of({"error": "Exception"})) is StackFailed
    assert type(error_of({"error": "annotations"})) is StackFailed


def test_the_gravest_error_is_told(told: Report) -> None:
    report.tell_failed(NoCapacity("none left"))
    report.tell_failed(MayStillBillError("pod x may still bill"))
    told.hear()
    assert told.error is not None
    assert told.error.exit_code == ExitCode.STILL_BILLING


def test_what_is_told_by_several_at_once_is_heard_line_by_line(told: Report) -> None:
    threads = [threading.Thread(target=lambda n=n: [report.say(f"{n} {'x' * 3000}") for _ in range(50)]) for n in "abc"]
    heard: list[str] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        told.hear(heard.append)
    told.hear(heard.append)
    assert sorted(line[0] for line in heard) == sorted("abc" * 50)
    assert {len(line) for line in heard} == {3002}


def test_a_secret_that_looks_like_json_spoils_no_line(told: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in {"A_TOKEN": "true", "B_KEY": "name", "C_KEY": "3.61", "D_KEY": 'a"bc\\'}.items():
        monkeypatch.setenv(name, secret)
    report.tell_created("pod", {"name": "n1", "reached": True, "price": 3.61, "details": [{"said": 'at a"bc\\'}]})
    told.hear()
    assert told.created == [{"name": "n1", "reached": True, "price": 3.61, "details": [{"said": "at ***"}]}]


def test_whom_nobody_hears_leaves_no_file(told: Report) -> None:
    assert told.path is not None
    told.path.unlink()  # as by a client that has ended
    report.say("anybody?")
    assert not told.path.exists()


def test_what_clients_that_died_left_is_swept(tmp_path: Path) -> None:
    for name, age in (("old", timedelta(days=2)), ("new", timedelta(hours=1))):
        (tmp_path / name).touch()
        at = (datetime.now(UTC) - age).timestamp()
        os.utime(tmp_path / name, (at, at))
    report.sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    report.sweep(tmp_path / "nowhere")


@pytest.mark.parametrize("said", [None, "", "[1]", "word", '{"a": 1}', '["x", 1]'])
def test_a_client_that_is_told_in_no_words_of_ours_is_none(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(report.CLIENT, raising=False)
    if said is not None:
        monkeypatch.setenv(report.CLIENT, said)
    assert report.client() is None


def test_a_torn_line_waits_and_a_foreign_one_is_passed_over(tmp_path: Path) -> None:
    path, heard = tmp_path / "report", list[str]()
    told = Report(path)
    told.hear(heard.append)
    path.write_text('not JSON\n[1]\n{"kind": "says", "text": "a"}\n{"kind": "says",')
    told.hear(heard.append)
    with path.open("a") as file:
        file.write(' "text": "b"}\n')
    told.hear(heard.append)
    assert heard == ["a", "b"]


def test_no_secret_is_told(told: Report, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = 'quoted "and" \\slashed'
    monkeypatch.setenv("RUNPOD_API_KEY", secret)
    monkeypatch.setenv("SOME_TOKEN", "tok-tok-tok")
    report.tell_failed(ValueError(f"401 for {secret}"))
    report.tell_created("pod", {"name": "pod", "env": {"A": "tok-tok-tok"}})
    written = (tmp_path / "report").read_text()
    assert "slashed" not in written
    assert "tok-tok" not in written
    told.hear()
    assert told.created == [{"name": "pod", "env": {"A": "***"}}]


def test_without_a_listener_nothing_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(report.VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    report.say("hello")
    assert list(tmp_path.iterdir()) == []
