"""Runs of other machines: each once, whole, and nothing that a stranger wrote is believed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.importing.merging import Merge, Merged
from runners.ledger import Ledger
from tests.runners.exporting.made import keep, lines, result_of, run_id

ONE = run_id(1)


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Another machine's home, with two runs."""
    home = tmp_path / "laptop" / ".recipe"
    for number in (1, 2):
        keep(
            home,
            with_artifacts(result_of(run_id(number), tags=["nightly"])),
            events_jsonl=EVENTS,
            recipe_yaml="name: made\n",
        )
    return home


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "here"


EVENTS = lines({"at": "2026-01-02T03:04:05+00:00", "event": "run-started"})


def with_artifacts(result: dict[str, Any]) -> dict[str, Any]:
    files = {"events.jsonl": EVENTS, "recipe.yaml": "name: made\n"}
    rows = [{"path": n, "sha256": hashlib.sha256(t.encode()).hexdigest(), "bytes": len(t)} for n, t in files.items()]
    return {**result, "artifacts": rows}


def take(here: Path, *paths: Path, origin: str | None = None, dry_run: bool = False) -> list[Merged]:
    return list(Merge(here, Ledger(here), origin=origin, dry_run=dry_run).take(paths))


def states(merged: list[Merged]) -> dict[str, str]:
    return {one.run_id: one.state for one in merged}


def refusal(here: Path, path: Path) -> str:
    """Why the only run was refused; nothing of it may be here."""
    (merged,) = take(here, path)
    assert merged.state == "refused"
    assert Ledger(here).rows() == []
    assert [p.name for p in (here / "runs").glob("*")] == []
    assert [p.name for p in (here / "importing").glob("*")] == ["lock"]
    return merged.note


def rewrite(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "result.json"
    result = json.loads(path.read_text())
    change(result)
    path.write_text(json.dumps(result))


def zipped(path: Path, folder: Path, *, within: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{within}{file.relative_to(folder)}")
    return path


def tarred(path: Path, folder: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, arcname=".")
    return path


def test_runs_are_copied_and_listed_with_where_they_come_from(there: Path, here: Path) -> None:
    assert states(take(here, there)) == {run_id(1): "taken", run_id(2): "taken"}
    rows = Ledger(here).rows(sort="started")
    assert [(row.run_id, row.origin, row.status, row.tags) for row in rows] == [
        (run_id(n), str(there), "completed", ("nightly",)) for n in (1, 2)
    ]
    for number in (1, 2):
        theirs, ours = there / "runs" / run_id(number), here / "runs" / run_id(number)
        for name in ("events.jsonl", "recipe.yaml"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes()
        assert json.loads((ours / "result.json").read_text()) == json.loads((theirs / "result.json").read_text())
        assert (ours / "outputs").is_dir()
    (result,) = Ledger(here).results([ONE])
    assert result == json.loads((there / "runs" / ONE / "result.json").read_text())


def test_a_second_import_finds_them_here_already(there: Path, here: Path) -> None:
    take(here, there)
    before = {p: p.stat().st_mtime_ns for p in (here / "runs").rglob("*")}
    assert set(states(take(here, there)).values()) == {"there"}
    assert {p: p.stat().st_mtime_ns for p in (here / "runs").rglob("*")} == before
    assert len(Ledger(here).rows()) == 2


def test_a_home_imported_into_itself_stays_as_it_is(there: Path) -> None:
    assert set(states(take(there, there)).values()) == {"there"}
    assert len(Ledger(there).rows()) == 2


def test_a_ledger_that_is_made_again_knows_its_own_runs_from_others(there: Path, here: Path) -> None:
    keep(here, with_artifacts(result_of(run_id(3))), events_jsonl=EVENTS, recipe_yaml="name: made\n")
    take(here, there, origin="the laptop")
    for path in here.glob("ledger.db*"):
        path.unlink()
    assert set(states(take(here, here / "runs")).values()) == {"taken"}
    origins = {row.run_id: row.origin for row in Ledger(here).rows()}
    assert origins == {run_id(1): "the laptop", run_id(2): "the laptop", run_id(3): None}


@pytest.mark.parametrize("shape", ["home", "runs", "run", "zip of home", "zip of run", "tar of runs", "renamed"])
def test_every_shape_in_which_runs_are_kept(shape: str, there: Path, here: Path, tmp_path: Path) -> None:
    run = there / "runs" / ONE
    renamed = tmp_path / "artifact"
    match shape:
        case "home":
            path = there
        case "runs":
            path = there / "runs"
        case "run":
            path = run
        case "zip of home":
            path = zipped(tmp_path / "home.zip", there, within="build/.recipe/")
        case "zip of run":
            path = zipped(tmp_path / "run.ZIP", run)
        case "tar of runs":
            path = tarred(tmp_path / "runs.tar.gz", there / "runs")
        case _:
            run.rename(renamed)
            path = renamed
    assert take(here, path)[0].state == "taken"
    assert Ledger(here).rows(sort="started")[0].run_id == ONE
    assert (here / "runs" / ONE / "events.jsonl").is_file()
    assert [p.name for p in (here / "importing").iterdir()] == ["lock"]


def test_the_same_run_from_two_places_is_taken_once(there: Path, here: Path, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "runs.zip", there)
    for dry_run in (True, False):
        assert [one.state for one in take(here, there, archive, dry_run=dry_run)] == ["taken"] * 2 + ["there"] * 2


def test_another_run_of_the_same_id_is_refused_and_changes_nothing(there: Path, here: Path) -> None:
    take(here, there)
    rewrite(there / "runs" / ONE, lambda result: result["cost"].update(total_usd=9.0))
    merged = take(here, there)
    assert states(merged) == {run_id(1): "refused", run_id(2): "there"}
    assert "differs" in merged[0].note
    assert next(Ledger(here).results([ONE]))["cost"]["total_usd"] == 0.06
    assert json.loads((here / "runs" / ONE / "result.json").read_text())["cost"]["total_usd"] == 0.06


def test_a_run_of_this_machine_that_has_not_ended_is_not_ended_by_another(there: Path, here: Path) -> None:
    Ledger(here).begin(ONE, "made", "abc", "2026-01-02T03:04:05+00:00", os.getpid())
    merged = take(here, there / "runs" / ONE)
    assert merged[0].state == "refused"
    assert "this machine" in merged[0].note


def test_a_dry_run_changes_nothing(there: Path, here: Path) -> None:
    assert set(states(take(here, there, dry_run=True)).values()) == {"taken"}
    assert Ledger(here).rows() == []
    assert not (here / "runs").exists()


def test_an_import_that_was_killed_between_folder_and_ledger_is_completed(there: Path, here: Path) -> None:
    take(here, there)
    half = there.parent / "half"
    Ledger(half)
    (half / "importing" / "tmpabc" / ONE).mkdir(parents=True)
    (half / "runs").mkdir()
    (here / "runs" / ONE).rename(half / "runs" / ONE)
    assert set(states(take(half, there)).values()) == {"taken"}
    assert len(Ledger(half).rows()) == 2
    assert [p.name for p in (half / "importing").iterdir()] == ["lock"]


def test_a_run_whose_folder_is_gone_gets_it_again(there: Path, here: Path, tmp_path: Path) -> None:
    take(here, there)
    (here / "runs" / ONE).rename(tmp_path / "gone")
    assert states(take(here, there)) == {run_id(1): "taken", run_id(2): "there"}
    assert (here / "runs" / ONE / "result.json").is_file()
    assert len(Ledger(here).rows()) == 2


def test_a_run_that_left_no_result_is_not_taken(there: Path, here: Path) -> None:
    (there / "runs" / ONE / "result.json").unlink()
    assert "no result" in refusal(here, there / "runs" / ONE)


def test_what_is_missing_of_a_run_is_said(there: Path, here: Path) -> None:
    (there / "runs" / ONE / "recipe.yaml").unlink()
    (merged,) = take(here, there / "runs" / ONE)
    assert (merged.state, merged.note) == ("taken", "without 1 of its files: recipe.yaml")


def test_what_is_never_copied_is_not_missed(there: Path, here: Path) -> None:
    """A run that was ended by recipe down counts its stop among its files."""
    rewrite(there / "runs" / ONE, lambda r: r["artifacts"].append({"path": "stop", "sha256": "0" * 64, "bytes": 4}))
    (there / "runs" / ONE / "stop").write_text("down")
    (merged,) = take(here, there / "runs" / ONE)
    assert (merged.state, merged.note) == ("taken", "")


def test_neither_a_page_nor_what_only_lives_with_a_run_is_copied(there: Path, here: Path) -> None:
    folder = there / "runs" / ONE
    for name in ("report.html", "live.json", "stop", "half.part"):
        (folder / name).write_text("<script>")
    take(here, folder)
    assert {p.name for p in (here / "runs" / ONE).iterdir()} == {
        "result.json",
        "events.jsonl",
        "recipe.yaml",
        "outputs",
        "origin.txt",
    }


def test_what_a_terminal_would_obey_is_written_out(there: Path, here: Path) -> None:
    rewrite(
        there / "runs" / ONE, lambda result: result["model"].update(identifier="\x1b]0;x\x07\u202eb", source="a\nb")
    )
    take(here, there / "runs" / ONE)
    assert Ledger(here).rows()[0].model == "\\x1b]0;x\\x07\\u202eb"
    ours = json.loads((here / "runs" / ONE / "result.json").read_text())
    assert ours["model"] == {"identifier": "\\x1b]0;x\\x07\\u202eb", "source": "a\nb", "commit": "abc"}
    assert states(take(here, there / "runs" / ONE)) == {ONE: "there"}


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "newer": (lambda r: r.update(schema_version=2), "newer recipe"),
    "another id": (lambda r: r.update(run_id=run_id(9)), "its folder is"),
    "id is a path": (lambda r: r.update(run_id="../../x-20260102-030405-0001"), "run_id"),
    "no status": (lambda r: r["outcome"].update(status="running"), "outcome.status"),
    "a text for a number": (lambda r: r["cost"].update(total_usd="1"), "cost.total_usd"),
    "infinite": (lambda r: r["cost"].update(total_usd=float("inf")), "Infinity"),
    "too large": (lambda r: r["throughput"].update(output_tokens=2**70), "output_tokens"),
    "no instant": (lambda r: r.update(started_at="yesterday"), "started_at"),
    "no phases": (lambda r: r.pop("phases"), "phases"),
    "a sum that is infinite": (lambda r: [p.update(seconds=1e308) for p in r["phases"]], "phases.0.seconds"),
    "a sum beyond the run": (lambda r: r["phases"][1].update(seconds=9e9), "phases take 9,000,000,043 s"),
    "phases that are not the run": (lambda r: r.update(ended_at="2026-01-03T03:04:57+00:00"), "phases take 52 s"),
    "a phase of another time": (lambda r: r["phases"][1].update(started_at="2026-01-09T00:00:00Z"), "phases.1.started"),
    "negative dollars": (lambda r: r["cost"].update(total_usd=-5), "cost.total_usd"),
    "dollars beyond reason": (lambda r: r["cost"].update(total_usd=1e15), "no run costs so much"),
    "more idle than all": (lambda r: r["cost"].update(idle_usd={"boot": 0.05, "load": 0.05}), "idle_usd is more"),
    "a negative price of storage": (lambda r: r["cost"].update(storage_usd_per_h=-1), "cost.storage_usd_per_h is -1"),
    "negative seconds": (lambda r: r["phases"][0].update(seconds=-5), "phases.0.seconds"),
    "a negative count": (lambda r: r["requests"].update(ok=-1), "requests.ok"),
    "energy below zero": (lambda r: r["cost"].update(energy={"total_wh": -1.0}), "cost.energy.total_wh"),
    "energy beyond all": (lambda r: r["cost"].update(energy={"gpu_wh": 1e300}), "cost.energy.gpu_wh"),
    "a share above one": (lambda r: r["cost"].update(useful_fraction=1.5), "cost.useful_fraction"),
    "a figure far below": (lambda r: r["telemetry"]["cpu"].update(max=-1e9), "telemetry.cpu.max"),
    "a figure that is no float": (lambda r: r["telemetry"]["gpus"][0].update(energy_wh=10**400), "gpus.0.energy_wh"),
    "the end of time": (lambda r: r.update(ended_at="9999-12-31T23:59:59+00:00"), "ended_at is 9999"),
    "before its beginning": (lambda r: r.update(ended_at="2026-01-02T03:04:04+00:00"), "ended before it began"),
    "the age of the pyramids": (lambda r: r.update(started_at="0001-01-01T12:00:00+00:00"), "started_at is 0001"),
    "a peak tomorrow": (
        lambda r: r["throughput"]["peak_at"][0].update(at="2099-01-01T00:00:00Z"),
        "peak_at.0.at is 2099",
    ),
    "an artifact elsewhere": (lambda r: r["artifacts"][0].update(path="../../../etc/passwd"), "leads out"),
    "an absolute artifact": (lambda r: r["artifacts"][0].update(path="/etc/passwd"), "leads out"),
    "a changed file": (lambda r: r["artifacts"][0].update(sha256="0" * 64), "checksum"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_result_that_is_none_is_refused(change: str, there: Path, here: Path) -> None:
    how, why = CHANGES[change]
    rewrite(there / "runs" / ONE, how)
    assert why in refusal(here, there / "runs" / ONE)


def test_what_may_be_below_zero_or_large_is_taken(there: Path, here: Path) -> None:
    """A provider's bill that is smaller, a clock that is behind, a seed, a signal, a deadline that is yet to come."""

    def odd(result: dict[str, Any]) -> None:
        result["cost"].update(difference_usd=-0.01, difference_share=-0.2, provider_usd=0.05)
        result["throughput"].update(clock_offset_s=-3.2)
        result["variant"] = {"engine.args.seed": -(2**63)}
        result["engine"]["args"] = {"seed": 2**63, "ctx_size": -1}
        result["lease"].update(deadline="2026-01-02T09:00:00+00:00")
        result["ended_at"] = "2026-01-02T03:05:30+00:00"
        result["exit_code"] = -15

    rewrite(there / "runs" / ONE, odd)
    assert states(take(here, there / "runs" / ONE)) == {ONE: "taken"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"schema_version": 1}', "\udcff"])
def test_a_file_that_is_no_result_is_refused(text: str, there: Path, here: Path) -> None:
    (there / "runs" / ONE / "result.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "result.json" in refusal(here, there / "runs" / ONE)


@pytest.mark.parametrize("name", ["outputs/secret", "result.json", "link"])
def test_a_link_is_refused_wherever_it_leads(name: str, there: Path, here: Path) -> None:
    path = there / "runs" / ONE / name
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/passwd")
    assert "link" in refusal(here, there / "runs" / ONE)


def test_a_pipe_is_refused_and_not_waited_for(there: Path, here: Path) -> None:
    os.mkfifo(there / "runs" / ONE / "engine.log")
    assert "no file" in refusal(here, there / "runs" / ONE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("documents.jsonl", lines({"document": "a", "output": "../../../../etc/passwd"})),
        ("documents.jsonl", lines({"document": "a", "output": 5})),
        ("takes-over.json", '["../../elsewhere-20260102-030405-0001"]'),
        ("takes-over.json", "{"),
    ],
)
def test_names_that_would_be_read_as_paths_stay_within_the_run(name: str, text: str, there: Path, here: Path) -> None:
    (there / "runs" / ONE / name).write_text(text)
    assert name in refusal(here, there / "runs" / ONE)


def test_one_bad_run_keeps_no_other_out(there: Path, here: Path) -> None:
    rewrite(there / "runs" / ONE, lambda result: result.update(schema_version=99))
    assert states(take(here, there)) == {run_id(1): "refused", run_id(2): "taken"}


def hostile_zip(path: Path, name: str, mode: int = stat.S_IFREG | 0o644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "/etc/passwd")
    return path


def hostile_tar(path: Path, name: str, kind: bytes) -> Path:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info, io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-import", "a/../../evil", "..\\evil", "a/..\\..\\evil"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_leads_out_of_its_folder_is_refused(kind: str, name: str, here: Path, tmp_path: Path) -> None:
    path = tmp_path / f"evil.{kind}"
    hostile_zip(path, name) if kind == "zip" else hostile_tar(path, name, tarfile.REGTYPE)
    with pytest.raises(UsageError, match="leads out"):
        take(here, path)
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/tmp/evil-import").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_an_archive_of_links_or_devices_is_refused(kind: bytes, here: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        take(here, hostile_tar(tmp_path / "a.tar", "link", kind))
    with pytest.raises(UsageError, match="no file"):
        take(here, hostile_zip(tmp_path / "a.zip", "link", stat.S_IFLNK | 0o777))


def test_an_archive_that_is_none_is_refused(here: Path, tmp_path: Path) -> None:
    for name in ("a.zip", "a.tar.gz"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 none")
        with pytest.raises(UsageError, match="no whole archive"):
            take(here, tmp_path / name)


def test_names_that_cannot_all_be_files_are_refused(here: Path, tmp_path: Path) -> None:
    for number, names in enumerate([("a", "a"), ("a", "a/b"), ("a" * 300,)]):
        path = tmp_path / f"{number}.tar"
        with tarfile.open(path, "w") as archive:
            for name in names:
                archive.addfile(tarfile.TarInfo(name), io.BytesIO())
        with pytest.raises(UsageError, match=r"twice|cannot be unpacked"):
            take(here, path)


def test_an_archive_larger_than_the_disk_is_not_unpacked(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "zeros").write_bytes(bytes(100_000))
    archive = zipped(tmp_path / "big.zip", tmp_path / "big")
    usage = type("Usage", (), {"free": 99_999})
    monkeypatch.setattr("runners.importing.archives.shutil.disk_usage", lambda _: usage)
    with pytest.raises(UsageError, match="100,000 bytes"):
        take(here, archive)


def test_what_is_no_run_is_told(here: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    for path, why in (("empty", "holds no run"), ("file.txt", "no folder"), ("nothing", "no such")):
        with pytest.raises(UsageError, match=why):
            take(here, tmp_path / path)


def test_two_imports_at_once_do_not_meet(there: Path, here: Path) -> None:
    going = Merge(here, Ledger(here)).take([there])
    assert next(going).state == "taken"
    with pytest.raises(UsageError, match="another recipe import"):
        take(here, there)
    assert [one.state for one in going] == ["taken"]
    assert set(states(take(here, there)).values()) == {"there"}


def test_an_imported_run_is_neither_gone_on_from_nor_a_measure_of_this_cpu(there: Path, here: Path) -> None:
    for number, cpu in ((1, None), (2, "A40-48GB")):
        rewrite(there / "runs" / run_id(number), lambda result, cpu=cpu: result["offer"].update(accelerator=cpu))
    failed = with_artifacts(result_of(run_id(3), outcome={"status": "failed", "phase": "drive", "error": "x"}))
    keep(there, failed, events_jsonl=EVENTS, recipe_yaml="name: made\n")
    assert set(states(take(here, there)).values()) == {"taken"}
    ledger = Ledger(here)
    assert ledger.unfinished("made") == []
    assert [result["run_id"] for result in ledger.completed(model="org/model", engine="vllm")] == [run_id(2)]


def test_what_is_no_archive_is_told_in_one_line(here: Path, tmp_path: Path) -> None:
    for name in ("torn.tar.gz", "torn.zip"):
        (tmp_path / name).write_bytes(b"\x1f\x8bnothing of the kind")
        with pytest.raises(UsageError, match="is no whole archive") as refused:
            take(here, tmp_path / name)
        assert "\n" not in refused.value.message
