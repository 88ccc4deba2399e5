"""Totals against a plain look at each result."""

from __future__ import annotations

import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Lease
from provisioners.journal import Journal
from recipes.errors import UsageError
from runners.ledger import Filter, Known, Ledger
from tests.emulators.many_runs import synthetic

COUNT = 300
KEYS = {
    "day": lambda r: [r["started_at"][:10]],
    "week": lambda r: [f"{datetime.fromisoformat(r['started_at']):%G-W%V}"],
    "month": lambda r: [r["started_at"][:7]],
    "recipe": lambda r: [r["recipe"]],
    "tag": lambda r: r["tags"] or [None],
    "model": lambda r: [r["model"]["identifier"]],
    "gpu": lambda r: [r["offer"]["accelerator"]],
    "engine": lambda r: [r["engine"]["name"]],
    "provider": lambda r: [r["offer"]["provider"]],
}


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("home"))
    ledger.insert_all(synthetic(COUNT), origin="elsewhere")
    return ledger


@pytest.mark.parametrize("by", list(KEYS))
def test_a_total_is_the_sum_of_its_runs(ledger: Ledger, by: str) -> None:
    expected: dict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for result in synthetic(COUNT):
        for key in KEYS[by](result):
            expected[key].append(result)
    found, together = ledger.totals(by)
    assert {total.key for total in found} == set(expected)
    for total in [*found, together]:
        runs = list(synthetic(COUNT)) if total is together else expected[total.key]
        usd, documents = sum(r["cost"]["total_usd"] for r in runs), sum(r["documents"]["done"] for r in runs)
        assert (total.runs, total.documents) == (len(runs), documents)
        assert total.failed == sum(r["outcome"]["status"] == "failed" for r in runs)
        assert total.usd == pytest.approx(usd)
        assert total.idle_usd == pytest.approx(sum(sum(r["cost"]["idle_usd"].values()) for r in runs))
        assert total.usd_per_document == (pytest.approx(usd / documents) if documents else None)
        hours = sum(phase["seconds"] for r in runs for phase in r["phases"]) / 3600
        assert total.hours == pytest.approx(hours, abs=1e-4)
        assert total.output_tokens == sum(r["throughput"]["output_tokens"] for r in runs)


def test_a_run_with_two_tags_counts_under_each_and_once_in_all(ledger: Ledger) -> None:
    found, together = ledger.totals("tag")
    assert together.runs == COUNT
    assert sum(total.runs for total in found) > COUNT


def test_a_filter_chooses_what_is_summed(ledger: Ledger) -> None:
    meant = Filter(engine="vllm", tag="paper", min_cost=1.0)
    rows = ledger.rows(meant)
    found, together = ledger.totals("model", meant)
    assert together.runs == len(rows) == sum(total.runs for total in found) > 0
    assert together.usd == pytest.approx(sum(row.total_usd or 0 for row in rows))


def test_times_come_in_their_order_and_names_by_their_dollars(ledger: Ledger) -> None:
    days, _ = ledger.totals("day")
    assert [total.key for total in days] == sorted(total.key or "" for total in days)
    recipes, _ = ledger.totals("recipe")
    assert [total.usd for total in recipes] == sorted((total.usd or 0 for total in recipes), reverse=True)


def test_points_of_a_load_are_no_documents_and_what_is_unknown_is_no_zero(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first, second, third = synthetic(3)
    first["documents"] = {"done": 4, "total": 4, "unit": "document"}
    second["documents"] = {"done": 9, "total": 9, "unit": "point"}
    third["documents"] = {"done": 5, "total": 5, "unit": "document"}
    third["cost"] = {"total_usd": None}
    ledger.insert_all([first, second, third], origin="elsewhere")
    _, together = ledger.totals("recipe")
    assert together.documents == 9
    assert together.usd_per_document == pytest.approx(first["cost"]["total_usd"] / 4)
    assert together.usd == pytest.approx(first["cost"]["total_usd"] + second["cost"]["total_usd"])
    assert together.energy_wh is None
    (other,) = ledger.totals("recipe", Filter(recipe=third["recipe"], min_cost=None))[0]
    assert other.key == third["recipe"]


def test_runs_that_go_on_or_were_lost_count_with_their_dollars_so_far(tmp_path: Path) -> None:
    ledger, journal = Ledger(tmp_path), Journal(Ledger(tmp_path).path)
    now, leased = datetime.now(UTC), list[datetime]()
    for run_id, pid in (("going-1", os.getpid()), ("lost-1", 2**22 - 1)):
        ledger.begin(run_id, run_id[:-2], "d", now.isoformat(), pid, Known(provider="runpod"))
        journal.intend(Lease(provider="runpod", name=f"recipe-{run_id}", run_id=run_id, price_usd_per_h=3600.0))
        leased.append(datetime.now(UTC))
    before = datetime.now(UTC)
    found, together = ledger.totals("recipe")
    assert {total.key: (total.running, total.lost) for total in found} == {"going": (1, 0), "lost": (0, 1)}
    assert together.usd is not None
    assert 0 <= together.usd <= 2 * (datetime.now(UTC) - now).total_seconds()
    assert together.usd >= sum((before - at - timedelta(seconds=1)).total_seconds() for at in leased)


def test_a_word_that_is_none_is_refused_with_what_was_meant(ledger: Ledger) -> None:
    with pytest.raises(UsageError) as caught:
        ledger.totals("modle")
    assert caught.value.advice == "did you mean model?"


def test_nothing_comes_to_nothing(tmp_path: Path) -> None:
    found, together = Ledger(tmp_path).totals("day")
    assert (found, together.runs, together.usd, together.usd_per_document) == ([], 0, None, None)
