"""Which runs a filter means, and in which order they come."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.events import PhaseStarted
from runners.ledger import Filter, Known, Ledger, Row
from runners.ledger.filters import SORTS
from tests.emulators.many_runs import synthetic

NOBODY = 2**22 - 1
COUNT = 120


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    """Runs that have ended; two that are going on, one of them nobody's."""
    ledger = Ledger(tmp_path_factory.mktemp("home"))
    ledger.insert_all(synthetic(COUNT), origin="elsewhere")
    known = Known(model="Qwen/Qwen3-8B", engine="vllm", gpu="A40 48GB", gpu_count=1, provider="ssh", tags=["now"])
    now = datetime.now(UTC).isoformat()
    ledger.begin("going-1", "going", "d", now, os.getpid(), known)
    ledger.begin("lost-1", "going", "d", "2026-12-31T23:00:00+01:00", NOBODY, known)
    for phase in ("provision", "drive"):
        ledger.record("going-1", PhaseStarted(phase))
    ledger.record("lost-1", PhaseStarted("prepare"))
    return ledger


def meant(ledger: Ledger, **fields: Any) -> list[Row]:
    return ledger.rows(Filter(**fields))


def plainly(**equal: Any) -> list[str]:
    """What a look at each result finds, the newest first."""
    rows = told()
    return [row["run_id"] for row in rows if all(row[name] == value for name, value in equal.items())]


def told() -> list[dict[str, Any]]:
    return [
        {
            "run_id": r["run_id"],
            "recipe": r["recipe"],
            "model": r["model"]["identifier"],
            "engine": r["engine"]["name"],
            "gpu": r["offer"]["accelerator"],
            "provider": r["offer"]["provider"],
            "status": r["outcome"]["status"],
            "digest": r["recipe_digest"],
        }
        for r in reversed(list(synthetic(COUNT)))
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("recipe", "vllm-lead"),
        ("model", "lead"),
        ("engine", "llamacpp"),
        ("gpu", "H100 SXM 80GB"),
        ("provider", "local"),
        ("digest", f"{7:016x}"),
    ],
)
def test_a_field_is_compared_with_what_the_results_say(ledger: Ledger, field: str, value: str) -> None:
    found = [row.run_id for row in meant(ledger, **{field: value})]
    assert found == plainly(**{field: value})
    assert 0 < len(found) < COUNT


def test_several_fields_must_all_hold(ledger: Ledger) -> None:
    found = meant(ledger, engine="vllm", gpu="a100", status=("failed", "interrupted"))
    assert found
    for row in found:
        assert (row.engine, row.gpu, row.exit_code) == ("vllm", "A100 80GB PCIe", row.exit_code)
        assert row.status in ("failed", "interrupted")


@pytest.mark.parametrize(
    ("text", "engines"),
    [
        ("vllm", {"vllm"}),
        ("VLLM", {"vllm"}),
        ("llama", {"llamacpp"}),
        ("*former*", {"transformers"}),
        ("[vt]*", {"vllm", "transformers"}),
        ("l%", set()),
        ("'; DROP TABLE experiments; --", set()),
    ],
)
def test_a_text_is_a_name_a_part_or_a_glob(ledger: Ledger, text: str, engines: set[str]) -> None:
    assert {row.engine for row in meant(ledger, engine=text)} == engines


def test_a_name_that_is_there_whole_means_no_other_that_it_is_a_part_of(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for recipe in ("smoke", "local-smoke", "smoke-2"):
        ledger.begin(f"{recipe}-1", recipe, "d", "2026-01-01T00:00:00+00:00", NOBODY)
    assert [row.recipe for row in meant(ledger, recipe="Smoke")] == ["smoke"]
    assert {row.recipe for row in meant(ledger, recipe="moke")} == {"smoke", "local-smoke", "smoke-2"}
    assert {row.recipe for row in meant(ledger, recipe="smoke*")} == {"smoke", "smoke-2"}


def test_of_several_tags_a_run_must_have_each(ledger: Ledger) -> None:
    tagged = {r["run_id"]: set(r["tags"]) for r in synthetic(COUNT)}
    assert {row.run_id for row in meant(ledger, tag="paper")} == {i for i, tags in tagged.items() if "paper" in tags}
    both = {i for i, tags in tagged.items() if {"paper", "nightly"} <= tags}
    assert both
    assert {row.run_id for row in meant(ledger, tag=("paper", "nightly"))} == both
    assert {row.run_id for row in meant(ledger, tag="team:*")} == {i for i, t in tagged.items() if "team:search" in t}


def test_runs_that_have_not_ended_are_told_apart_by_their_processes(ledger: Ledger) -> None:
    (going,) = meant(ledger, status=("running",))
    assert (going.run_id, going.status, going.phase, going.model) == ("going-1", "running", "drive", "Qwen/Qwen3-8B")
    (lost,) = meant(ledger, status=("lost",))
    assert (lost.run_id, lost.status, lost.phase, lost.tags) == ("lost-1", "lost", "prepare", ("now",))
    assert {row.run_id for row in meant(ledger, status=("lost", "running"))} == {"going-1", "lost-1"}
    assert len(meant(ledger, status=("lost", "completed"))) == 1 + len(plainly(status="completed"))


def test_times_are_those_of_utc_and_the_end_is_left_out(ledger: Ledger) -> None:
    (lost,) = meant(ledger, since=datetime(2026, 12, 31, 22, tzinfo=UTC), recipe="going", status=("lost",))
    assert lost.started_at == "2026-12-31T22:00:00+00:00"
    assert not meant(ledger, until=datetime(2026, 12, 31, 22, tzinfo=UTC), status=("lost",))
    first, second = list(synthetic(COUNT))[:2]
    began = datetime.fromisoformat(second["started_at"])
    assert [row.run_id for row in meant(ledger, until=began)] == [first["run_id"]]
    assert second["run_id"] in {row.run_id for row in meant(ledger, since=began)}
    assert second["run_id"] not in {row.run_id for row in meant(ledger, since=began + timedelta(milliseconds=1))}


def test_costs_are_within_both_bounds(ledger: Ledger) -> None:
    found = meant(ledger, min_cost=1.0, max_cost=2.0)
    dollars = sorted(r["cost"]["total_usd"] for r in synthetic(COUNT))
    assert sorted(row.total_usd or 0 for row in found) == [usd for usd in dollars if 1.0 <= usd <= 2.0]


@pytest.mark.parametrize("sort", [*SORTS, *(f"-{name}" for name in SORTS)])
def test_what_is_unknown_comes_last_either_way(ledger: Ledger, sort: str) -> None:
    column = SORTS[sort.removeprefix("-")]
    values = [getattr(row, column) for row in ledger.rows(sort=sort)]
    if column == "status":  # "lost" is not in the file
        values = ["running" if value == "lost" else value for value in values]
    known = [value for value in values if value is not None]
    assert values[len(known) :] == [None] * (COUNT + 2 - len(known))
    assert known == sorted(known, reverse=sort.startswith("-"))


def test_the_limit_is_the_first_of_them(ledger: Ledger) -> None:
    dearest = ledger.rows(sort="-cost", limit=3)
    assert [row.total_usd for row in dearest] == sorted(
        (r["cost"]["total_usd"] for r in synthetic(COUNT)), reverse=True
    )[:3]


def test_a_column_that_is_none_is_refused_with_what_was_meant(ledger: Ledger) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.rows(sort="-csot")
    assert caught.value.advice == "did you mean cost?"


def test_a_run_of_another_machine_is_taken_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    (result,) = synthetic(1)
    assert ledger.insert(result, origin="big-box")
    assert not ledger.insert({**result, "tags": ["other"]}, origin="again")
    (row,) = ledger.rows()
    assert (row.origin, list(row.tags)) == ("big-box", result["tags"])


def test_a_list_does_not_read_results(tmp_path: Path) -> None:
    """It takes as long whatever they hold."""
    ledger = Ledger(tmp_path)
    ledger.insert_all(synthetic(20), origin="elsewhere")
    before = ledger.rows(Filter(tag="paper"), sort="-cost")
    with closing(sqlite3.connect(ledger.path)) as db:
        db.execute("DROP TABLE results")
    assert before
    assert ledger.rows(Filter(tag="paper"), sort="-cost") == before
