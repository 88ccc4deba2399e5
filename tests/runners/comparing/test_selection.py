"""Which runs the words of a command line mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recipes.errors import UsageError
from runners.comparing.selection import Selection, Selector
from runners.ledger import Known, Ledger
from tests.runners.comparing.making import result


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def kept(
    home: Path, results: Iterable[dict[str, Any]], text: str = "name: x\n", **settings: Any
) -> list[dict[str, Any]]:
    """The results in the ledger, each with its folder."""
    rows = list(results)
    Ledger(home).insert_all(rows, origin="test")
    for row in rows:
        folder = home / "runs" / row["run_id"]
        folder.mkdir(parents=True)
        (folder / "recipe.yaml").write_text(text)
        tree: dict[str, Any] = {"name": row["recipe"], "workload": {"inputs": ["a.txt"], **settings}}
        for path, value in row["variant"].items():
            tree["workload"][path.rpartition(".")[2]] = value
        (folder / "resolved.json").write_text(json.dumps(tree))
    return rows


def selected(home: Path, *words: str, **options: Any) -> Selection:
    return Selector(Ledger(home), home, **options).select(words)


def variants(*values: int, **settings: Any) -> list[dict[str, Any]]:
    return [
        result(recipe=f"mx.concurrency-{value}", variant={"workload.concurrency": value}, **settings)
        for value in values
    ]


def test_a_run_stands_for_all_repetitions_of_its_recipe_by_its_id_or_its_beginning(home: Path) -> None:
    rows = kept(home, [result(), result(), result(recipe="other")])
    (group,) = selected(home, rows[0]["run_id"]).groups
    assert set(group.run_ids) == {rows[0]["run_id"], rows[1]["run_id"]}
    assert group.resolved == {"name": "base", "workload": {"inputs": ["a.txt"]}}
    (same,) = selected(home, rows[0]["run_id"][:-2]).groups
    assert same.run_ids == group.run_ids
    (alone,) = selected(home, rows[0]["run_id"], alone=True).groups
    assert alone.run_ids == (rows[0]["run_id"],)


def test_a_beginning_that_several_runs_have_is_refused_with_the_newest(home: Path) -> None:
    begun = [f"2026-11-01T00:00:0{i}.000+00:00" for i in (1, 2)]
    results = [result(run_id=f"base-20261101-00000{i}-000{i}", started_at=begun[i - 1]) for i in (1, 2)]
    rows = kept(home, results)
    with pytest.raises(UsageError) as refused:
        selected(home, "base-20261101")
    assert "2 runs begin so" in refused.value.message
    assert rows[1]["run_id"] in refused.value.advice


def test_repetitions_that_are_named_each_are_compared_run_by_run(home: Path) -> None:
    rows = kept(home, [result(100), result(200), result(300)])
    found = selected(home, rows[0]["run_id"], rows[2]["run_id"])
    assert [group.run_ids for group in found.groups] == [(rows[0]["run_id"],), (rows[2]["run_id"],)]
    assert "run by run" in found.notes[0]


def test_a_recipes_name_alone_means_it_as_it_is_now_and_as_it_was_before(home: Path) -> None:
    first = kept(home, [result(digest="1" * 16)])
    before = kept(home, [result(digest="2" * 16), result(digest="2" * 16)])
    now = kept(home, [result(digest="3" * 16)])
    found = selected(home, "base")
    assert [set(group.run_ids) for group in found.groups] == [{r["run_id"] for r in before}, {now[0]["run_id"]}]
    assert any("1 older version" in note for note in found.notes)
    (newest,) = selected(home, "base", first[0]["run_id"]).groups[:1]
    assert newest.run_ids == (now[0]["run_id"],)
    assert [g.digest for g in selected(home, "base.yaml").groups] == ["2" * 16, "3" * 16]


def test_a_recipe_that_ran_on_two_kinds_of_machine_is_compared_between_them(home: Path) -> None:
    kept(home, [result(), result(offer={"id": "H100", "accelerator": "H100"})])
    assert [group.machine for group in selected(home, "base").groups] == [
        "2 × A100 80GB PCIe (runpod)",
        "2 × H100 (runpod)",
    ]


def test_a_matrix_is_its_newest_one_without_what_another_text_or_setting_had(home: Path) -> None:
    kept(home, variants(1, 2, 99, digest=""), text="old")
    newest = kept(home, variants(1, 2, 4, 4), text="new", max_tokens=7)
    kept(home, variants(8, status="failed"), text="new", max_tokens=7)
    found = selected(home, "mx")
    assert [group.variant["workload.concurrency"] for group in found.groups] == [1, 2, 4]
    assert len(found.groups[2].results) == 2
    assert {r["run_id"] for r in newest} >= set(found.groups[2].run_ids)
    assert found.notes == ("mx.concurrency-8 has no completed run (failed)",)


def test_runs_of_a_matrix_with_something_else_set_are_another_matrix(home: Path) -> None:
    kept(home, variants(1, digest="1" * 16))
    kept(home, variants(2, digest="2" * 16), max_tokens=9)
    assert [group.variant["workload.concurrency"] for group in selected(home, "mx").groups] == [2]


def test_a_tag_means_everything_that_has_it(home: Path) -> None:
    kept(home, [result(tags=["nightly"]), result(recipe="b", tags=["nightly"]), result(recipe="c")])
    assert [group.recipe for group in selected(home, "@nightly").groups] == ["base", "b"]
    with pytest.raises(UsageError) as refused:
        selected(home, "@nightli")
    assert "nightly" in refused.value.advice


def test_the_newest_repetitions_are_taken_and_since_when_can_be_said(home: Path) -> None:
    rows = kept(home, [result() for _ in range(6)])
    assert selected(home, "base", last=2).groups[0].run_ids == (rows[5]["run_id"], rows[4]["run_id"])
    since = datetime.fromisoformat(rows[3]["started_at"])
    assert len(selected(home, "base", since=since).groups[0].results) == 3
    with pytest.raises(UsageError, match="no run has begun since"):
        selected(home, "base", since=datetime.now(UTC) + timedelta(days=9999))


def test_a_failed_run_is_left_out_and_said_and_alone_it_is_nothing_to_compare(home: Path) -> None:
    rows = kept(home, [result(), result(status="failed")])
    found = selected(home, rows[1]["run_id"])
    assert found.groups[0].run_ids == (rows[0]["run_id"],)
    assert rows[1]["run_id"] in found.notes[0]
    kept(home, [result(recipe="never", status="failed")])
    with pytest.raises(UsageError) as refused:
        selected(home, "never")
    assert "failed in drive" in refused.value.message
    assert refused.value.advice.startswith("recipe report never-")


def test_a_word_that_means_nothing_is_refused_with_what_was_meant(home: Path) -> None:
    with pytest.raises(UsageError) as refused:
        selected(home, "base")
    assert "nothing has run yet" in refused.value.advice
    kept(home, [result()])
    with pytest.raises(UsageError) as refused:
        selected(home, "bse")
    assert "base" in refused.value.advice


def test_only_what_is_compared_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Ledger(home).insert_all((result(digest=f"{i % 5:016x}") for i in range(400)), origin="test")
    read: list[str] = []
    whole = Ledger.results

    def counted(self: Ledger, run_ids: Iterable[str]) -> Any:
        chosen = list(run_ids)
        read.extend(chosen)
        return whole(self, chosen)

    monkeypatch.setattr(Ledger, "results", counted)
    groups = selected(home, "base", last=10).groups
    assert [len(group.results) for group in groups] == [10, 10]
    assert len(read) == 20


def begun(home: Path, name: str, run_id: str, **known: Any) -> None:
    """A run that is going on, minded by this process."""
    Ledger(home).begin(run_id, name, "d" * 16, datetime.now(UTC).isoformat(), os.getpid(), Known(**known))


def test_what_is_still_going_on_is_said_to_be(home: Path) -> None:
    now = f"slow-{datetime.now(UTC):%Y%m%d}-120000-0001"
    begun(home, "slow", now, tags=["nightly"])
    for word in ("slow", "slow.yaml", now, "@nightly", "d" * 16):
        with pytest.raises(UsageError) as refused:
            selected(home, word)
        assert f"{now} is still going on" in refused.value.message, word
        assert refused.value.advice == f"recipe watch {now}"
    kept(home, [result(recipe="slow")])
    assert selected(home, "slow").notes == (f"{now} is still going on, and is not counted",)


def test_a_matrix_that_is_still_going_on_is_said_to_be(home: Path) -> None:
    now = f"mx.concurrency-2-{datetime.now(UTC):%Y%m%d}-120000-0001"
    begun(home, "mx.concurrency-2", now, variant={"workload.concurrency": 2})
    with pytest.raises(UsageError, match="still going on"):
        selected(home, "mx")


def test_why_nothing_counts_is_told_also_of_completed_runs(home: Path) -> None:
    rows = kept(home, [result(recipe="resumed", requests={"resumed": 4})])
    for word in ("resumed", rows[0]["run_id"]):
        with pytest.raises(UsageError) as refused:
            selected(home, word)
        assert "went on from the answers of an earlier run" in refused.value.message
        assert "completed: nothing" not in refused.value.message


def test_a_recipe_that_has_not_run_since_then_is_not_said_to_be_misspelt(home: Path) -> None:
    rows = kept(home, [result()])
    with pytest.raises(UsageError) as refused:
        selected(home, "base", since=datetime(2027, 1, 1, tzinfo=UTC))
    assert "no run has begun since 2027-01-01" in refused.value.message
    assert refused.value.advice == f"the newest is {rows[0]['run_id']}"
