"""What a month has cost: runs that ended, runs that go on, and machines that nobody minds."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from provisioners import journal
from provisioners.contract import Gone, Lease, MayStillBill
from provisioners.journal import Journal
from runners.ledger import Ledger
from runners.spending import Spent, nothing_spent, spent_in_month
from tests.emulators.many_runs import synthetic

NOBODY = 2**22 - 1


class Calendar(datetime):
    """The middle of a month, so that none ends while a test looks; it is moved on.

    It lies ahead: a client is one's own process only if that had begun before the run.
    """

    moment = datetime(2100, 6, 15, 12, tzinfo=UTC)

    @classmethod
    def now(cls, tz: object = None) -> Any:
        return cls.moment


class Books:
    """A ledger whose clock can be moved on."""

    def __init__(self, home: Path) -> None:
        self.home, self.ledger = home, Ledger(home)
        self.journal = Journal(self.ledger.path)

    def begin(self, run_id: str, *, pid: int, price: float, storage: float = 0.0) -> Lease:
        self.ledger.begin(run_id, "r", "d", Calendar.moment.isoformat(), pid)
        lease = Lease(
            provider="runpod",
            name=f"recipe-{run_id}",
            run_id=run_id,
            price_usd_per_h=price,
            storage_usd_per_h=storage,
        )
        self.journal.intend(lease)
        return lease

    def end(self, run_id: str, usd: float, *, at: datetime) -> None:
        self.ledger.end(
            {
                "run_id": run_id,
                "ended_at": at.isoformat(),
                "outcome": {"status": "completed", "phase": None},
                "cost": {"total_usd": usd},
            }
        )

    def forecast(self, run_id: str, likely: float, **limits: float) -> None:
        folder = self.home / "runs" / run_id
        folder.mkdir(parents=True)
        plan = {"forecast": {"total_usd": {"low": 0, "likely": likely, "high": 99}}, "limits": limits}
        (folder / "plan.json").write_text(json.dumps(plan))

    def spent(self, *, later: timedelta = timedelta(0)) -> Spent:
        return spent_in_month(self.ledger, Calendar.moment + later)


def two_in_the_morning_of_next_month() -> datetime:
    after = Calendar.moment.replace(day=1) + timedelta(days=40)
    return after.replace(day=1, hour=2, minute=0, second=0, microsecond=0)


@pytest.fixture
def books(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Books:
    monkeypatch.setattr(journal, "datetime", Calendar)
    return Books(tmp_path)


def test_a_run_counts_in_the_month_in_which_it_began(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    results: list[dict[str, Any]] = list(synthetic(400))
    ledger.insert_all(results, origin="elsewhere")
    spent = spent_in_month(ledger, datetime(2025, 3, 31, 23, 59, tzinfo=UTC))
    assert (spent.month, spent.next_month) == ("2025-03", "2025-04-01")
    of_it = [r["cost"]["total_usd"] for r in results if "2025-03-01" <= r["started_at"] < "2025-04-01"]
    assert spent.ended_usd == pytest.approx(sum(of_it))


def test_a_run_that_goes_on_counts_with_what_it_is_likely_to_cost(books: Books) -> None:
    books.begin("going", pid=os.getpid(), price=2.0, storage=0.5)
    books.forecast("going", 7.0)
    spent = books.spent()
    assert (spent.going, spent.unminded, spent.going_usd) == (1, 0, 7.0)


def test_and_with_what_it_has_cost_if_that_is_more(books: Books) -> None:
    """Disks included."""
    books.begin("going", pid=os.getpid(), price=2.0, storage=0.5)
    books.forecast("going", 0.01)
    assert spent_in_month(books.ledger, two_in_the_morning_of_next_month()).going_usd == pytest.approx(2 * 2.5)


def test_a_run_that_goes_on_costs_at_most_its_limit(books: Books) -> None:
    books.begin("going", pid=os.getpid(), price=2.0)
    books.forecast("going", 7.0, max_cost=3.0)
    assert books.spent().going_usd == 3.0


def test_a_lost_run_costs_until_its_machine_was_let_go(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = books.begin("lost", pid=NOBODY, price=3600.0)
    bills_on = books.spent()
    assert (bills_on.going, bills_on.unminded) == (0, 1)
    monkeypatch.setattr(Calendar, "moment", Calendar.moment + timedelta(seconds=30))
    books.journal.released(lease, Gone("deleted", None))
    gone, later = books.spent(), books.spent(later=timedelta(minutes=1))
    assert gone.unminded == 0
    assert gone.unminded_usd == later.unminded_usd == pytest.approx(30)


def test_a_machine_that_was_not_proven_gone_costs_on_after_its_run(books: Books) -> None:
    lease = books.begin("ended", pid=os.getpid(), price=3600.0)
    books.journal.released(lease, MayStillBill("still listed", "recipe reap"))
    now = two_in_the_morning_of_next_month()
    books.end("ended", 5.0, at=now - timedelta(seconds=10))
    spent = spent_in_month(books.ledger, now)
    assert (spent.ended_usd, spent.unminded) == (0.0, 1), "the run began last month"
    assert spent.unminded_usd == pytest.approx(10.0)


def test_what_bills_on_from_last_month_counts_from_the_first_on(books: Books) -> None:
    books.begin("lost", pid=NOBODY, price=1.0)
    assert spent_in_month(books.ledger, two_in_the_morning_of_next_month()).unminded_usd == pytest.approx(2.0)


def test_nothing_has_been_spent_where_nothing_ran(books: Books) -> None:
    now = datetime(2026, 12, 5, tzinfo=UTC)
    assert spent_in_month(books.ledger, now) == nothing_spent(now)
    assert (nothing_spent(now).usd, nothing_spent(now).next_month) == (0.0, "2027-01-01")
