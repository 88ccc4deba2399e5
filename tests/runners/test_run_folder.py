"""A run's folder: its name, finding it again, and files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.site import recipe_cache, recipe_home
from recipes.errors import UsageError
from runners import run_folder
from runners.answers import rows_of
from runners.records import RequestRecord
from runners.run_folder import RUN_ID, RecordFile, Rows, RunFolder, run_ids


def runs(home: Path, *names: str) -> None:
    for name in names:
        (home / "runs" / name).mkdir(parents=True)


OLD, NEW = "demo-20260101-000000-ffff", "demo-20260102-000000-0000"
OTHER = "demo-70b-20250101-000000-abcd"


def test_an_id_says_recipe_and_time(tmp_path: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    folder = RunFolder.create(tmp_path, "2xA100-airoboros-70b")
    match = RUN_ID.fullmatch(folder.run_id)
    assert match is not None
    assert match["recipe"] == "2xA100-airoboros-70b"
    stamp = datetime.strptime(folder.run_id[-20:-5], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    assert before <= stamp <= datetime.now(UTC)
    assert folder.path == tmp_path / "runs" / folder.run_id
    assert folder.outputs.is_dir()


def test_an_id_that_is_taken_is_not_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["aaaa", "aaaa", "bbbb"])
    monkeypatch.setattr("runners.run_folder.secrets.token_hex", lambda _: next(drawn))
    monkeypatch.setattr(run_folder, "datetime", Frozen)
    first, second = RunFolder.create(tmp_path, "demo"), RunFolder.create(tmp_path, "demo")
    assert (first.run_id, second.run_id) == ("demo-20260102-030405-aaaa", "demo-20260102-030405-bbbb")


class Frozen(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: object = None) -> Frozen:
        return cls(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        (OLD, OLD),
        ("demo", NEW),
        ("demo-70b", OTHER),
        ("demo-20260101", OLD),
        ("demo-20260102-000000-0", NEW),
        ("demo-7", OTHER),
    ],
)
def test_a_run_is_found_by_id_by_recipe_and_by_its_beginning(tmp_path: Path, reference: str, found: str) -> None:
    runs(tmp_path, OLD, NEW, OTHER)
    assert RunFolder.find(tmp_path, reference).run_id == found


def test_the_newest_of_a_recipe_is_by_time_and_not_by_chance(tmp_path: Path) -> None:
    runs(tmp_path, "demo-20260101-000001-0000", "demo-20260101-000000-ffff")
    assert RunFolder.find(tmp_path, "demo").run_id == "demo-20260101-000001-0000"


def test_a_beginning_of_several_names_the_newest_of_them(tmp_path: Path) -> None:
    runs(tmp_path, OLD, NEW, OTHER)
    with pytest.raises(UsageError) as caught:
        RunFolder.find(tmp_path, "dem")
    assert caught.value.message == "dem: 3 runs begin so"
    assert caught.value.advice == f"the newest is {NEW}"


def test_a_misspelt_run_gets_a_suggestion(tmp_path: Path) -> None:
    runs(tmp_path, OLD, NEW)
    with pytest.raises(UsageError) as caught:
        RunFolder.find(tmp_path, "dmeo-20260102-000000-0000")
    assert caught.value.advice == f"did you mean {NEW}?"


def test_before_the_first_run_it_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        RunFolder.find(tmp_path, "demo")
    assert "no such run" in caught.value.message
    assert "recipe up" in caught.value.advice


@pytest.mark.parametrize("reference", ["../secrets", "/etc", ".", ".."])
def test_a_reference_leads_nowhere_else(tmp_path: Path, reference: str) -> None:
    runs(tmp_path, OLD, NEW)
    (tmp_path / "secrets").mkdir()
    with pytest.raises(UsageError):
        RunFolder.find(tmp_path, reference)


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    folder.write_json("result.json", {"n": 1})
    with pytest.raises(UnicodeEncodeError):
        folder.write_text("result.json", "x" * 100_000 + "\ud800")
    assert folder.read_result() == {"n": 1}


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, seen = RunFolder.create(tmp_path, "demo"), []

    def fsync(_: int) -> None:
        (part,) = folder.path.glob(".*.part")
        seen.append((part.read_text(), (folder.path / "plan.json").exists()))

    monkeypatch.setattr("provisioners.files.os.fsync", fsync)
    path = folder.write_json("plan.json", {"name": "ü"})
    assert seen == [('{\n  "name": "ü"\n}\n', False)]
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "ü"}
    assert [file.name for file in folder.path.iterdir() if file.is_file()] == ["plan.json"]


def test_a_run_without_a_result_says_where_to_look(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    with pytest.raises(UsageError) as caught:
        folder.read_result()
    assert folder.run_id in caught.value.message
    assert f"recipe logs {folder.run_id} --events" in caught.value.advice


def test_artifacts_are_every_file_but_the_result(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    folder.write_json("result.json", {})
    folder.write_text("engine.log", "log\n")
    (folder.outputs / "a.json").write_bytes(b"{}")
    assert folder.artifacts() == [
        {"path": "engine.log", "sha256": hashlib.sha256(b"log\n").hexdigest(), "bytes": 4},
        {"path": "outputs/a.json", "sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2},
    ]


def record(number: int, status: str = "ok") -> RequestRecord:
    return RequestRecord(
        id=f"a/1/{number}",
        document="a",
        level=1,
        index=number,
        status=status,  # type: ignore[arg-type]
        tries=1,
        started_at=datetime(2026, 1, 2, tzinfo=UTC),
    )


def test_each_request_is_on_disk_when_it_is_written(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "demo")
    file = RecordFile(folder)
    file.write(record(0), "an answer\nof two lines, ü", "k")
    file.write(record(1, "failed"), None, "k")
    requests = [json.loads(line) for line in (folder.path / "requests.jsonl").read_text().splitlines()]
    answers = [json.loads(line) for line in (folder.path / "answers.jsonl").read_text().splitlines()]
    assert [(row["id"], row["status"], row["started_at"]) for row in requests] == [
        ("a/1/0", "ok", "2026-01-02T00:00:00+00:00"),
        ("a/1/1", "failed", "2026-01-02T00:00:00+00:00"),
    ]
    assert {"document", "level", "index", "tries", "prompt_tokens", "output_tokens", "ttft_s", "tpot_s", "e2e_s"} < set(
        requests[0]
    )
    assert answers == [{"id": "a/1/0", "document": "a", "level": 1, "key": "k", "text": "an answer\nof two lines, ü"}]
    file.close()


def test_where_things_are_kept(tmp_path: Path) -> None:
    assert recipe_home({"RECIPE_HOME": str(tmp_path / "x" / "..")}) == tmp_path.resolve()
    assert recipe_home({"RECIPE_HOME": ""}) == recipe_home({}) == (Path.home() / ".recipe").resolve()
    assert recipe_cache({"XDG_CACHE_HOME": str(tmp_path)}) == tmp_path.resolve() / "recipe"
    assert re.search(r"\.cache/recipe$", str(recipe_cache({})))


def test_what_was_written_is_on_the_disk_after_a_sync_and_not_synced_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr("runners.run_folder.os.fsync", synced.append)
    rows = Rows(tmp_path / "rows.jsonl")
    rows.sync()
    assert synced == []
    rows.append({"n": 1})
    rows.sync()
    rows.sync()
    assert len(synced) == 1
    rows.append({"n": 2})
    rows.close()
    assert len(synced) == 2


def test_rows_that_the_disk_has_lost_are_not_passed_over_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    rows = Rows(tmp_path / "rows.jsonl")
    rows.append({"n": 1})
    monkeypatch.setattr("runners.run_folder.os.fsync", broken)
    rows.sync()
    with pytest.raises(OSError, match="Input/output error"):
        rows.append({"n": 2})


def test_a_row_that_a_full_disk_cut_off_spoils_none_that_follows(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    rows.append({"n": 1})
    rows._file = Full(rows._file)  # type: ignore[assignment]
    with pytest.raises(OSError, match="No space"):
        rows.append({"n": 2})
    rows._file = rows._file.file  # type: ignore[attr-defined]
    rows.append({"n": 3})
    rows.close()
    assert [row["n"] for row in rows_of(tmp_path / "rows.jsonl", "n")] == [1, 3]


class Full:
    """A file on a disk that takes three more bytes."""

    def __init__(self, file: Any) -> None:
        self.file, self.left = file, 3

    def write(self, data: bytes) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.file.write(data[: self.left])
        self.left -= written
        return int(written)


def test_a_name_that_is_no_text_can_be_written_and_read(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    rows.append({"document": "caf\udce9.txt"})
    rows.close()
    assert [row["document"] for row in rows_of(tmp_path / "rows.jsonl")] == ["caf\udce9.txt"]


def test_among_many_runs_a_misspelt_recipe_or_a_new_run_is_still_suggested(tmp_path: Path) -> None:
    """Only recipes and the newest runs are compared: a look at a hundred thousand would take minutes."""
    for day in range(1, 29):
        for number in range(12):
            (tmp_path / "runs" / f"books-202601{day:02d}-000000-{number:04x}").mkdir(parents=True)
    (tmp_path / "runs" / "films-20250101-000000-0001").mkdir()
    for wrong, advice in (
        ("boks", "did you mean books?"),
        ("flims", "did you mean films?"),
        ("books-20260128-00000-0003", "did you mean books-20260128-000000-0003?"),
    ):
        with pytest.raises(UsageError) as caught:
            RunFolder.find(tmp_path, wrong)
        assert caught.value.advice == advice
    with pytest.raises(UsageError, match="336 runs begin so"):
        RunFolder.find(tmp_path, "books-2026")


def test_what_is_no_folder_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "books-20260101-000000-0001").mkdir(parents=True)
    (tmp_path / "runs" / "books-20260102-000000-0002").write_text("no folder")
    assert RunFolder.find(tmp_path, "books").run_id == "books-20260101-000000-0001"


def test_ids_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    assert run_ids("b") == []
    for name in ("books-20260101-000000-0001", "books-20260102-000000-0002", "films-20260101-000000-0003"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    assert run_ids("b") == ["books-20260102-000000-0002", "books-20260101-000000-0001"]
