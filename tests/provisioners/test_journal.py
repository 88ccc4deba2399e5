"""The lease journal: written before and after, readable whatever happened between."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from provisioners.contract import Gone, Lease, MayStillBill
from provisioners.journal import Journal

DEADLINE = datetime(2026, 11, 21, 8, tzinfo=UTC)
LEASE = Lease(provider="p", name="recipe-a", run_id="a", price_usd_per_h=1.5, deadline=DEADLINE)
BEFORE = """
CREATE TABLE leases (name TEXT PRIMARY KEY, run_id TEXT NOT NULL, provider TEXT NOT NULL, id TEXT,
    state TEXT NOT NULL CHECK (state IN ('intended', 'created', 'gone', 'may-still-bill')), price_usd_per_h REAL,
    deadline TEXT, details TEXT NOT NULL, changed_at TEXT NOT NULL, proof TEXT);
INSERT INTO leases VALUES ('old', 'r', 'p', 'i', 'created', 2.0, NULL, '{"a": 1}', '2026-01-02T03:04:05+00:00', NULL);
"""


def test_every_step_of_a_lease_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    journal = Journal(path)
    created = replace(LEASE, id="k3j9", details={"place": "US"})
    steps = [
        (lambda: journal.intend(LEASE), "intended"),
        (lambda: journal.created(created), "created"),
        (lambda: journal.reached(created), "reached"),
        (lambda: journal.releasing(created), "releasing"),
        (lambda: journal.released(created, MayStillBill("no answer", "reap")), "may-still-bill"),
        (lambda: journal.released(created, Gone("absent twice")), "gone"),
    ]
    assert journal.state("recipe-a") is None
    for step, state in steps:
        step()
        (entry,) = Journal(path)._read("WHERE name = ?", ("recipe-a",))
        assert (Journal(path).state("recipe-a"), entry.state, entry.open) == (state, state, state != "gone")


def test_what_may_be_billing_is_listed_with_everything_that_ends_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.db")
    created = replace(LEASE, id="k3j9", details={"place": "US"})
    journal.intend(LEASE)
    (intended,) = journal.open_leases()
    assert (intended.lease, intended.created_at) == (LEASE, None)
    journal.created(created)
    journal.intend(replace(LEASE, name="recipe-b", run_id="b"))
    journal.released(replace(LEASE, name="recipe-b", run_id="b"), Gone("never was"))
    (entry,) = journal.open_leases()
    assert entry.lease == created
    assert entry.intended_at == intended.intended_at
    assert entry.created_at is not None
    assert journal.of_run("a") == entry
    assert journal.of_run("c") is None


def test_of_several_leases_of_a_run_the_open_one_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.db")
    for name in ("first", "second", "third"):
        journal.intend(replace(LEASE, name=name))
    journal.released(replace(LEASE, name="first"), Gone("no capacity"))
    journal.released(replace(LEASE, name="third"), Gone("no capacity"))
    entry = journal.of_run("a")
    assert entry is not None
    assert entry.lease.name == "second"


def test_a_journal_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as db:
        db.executescript(BEFORE)
    journal = Journal(path)
    (entry,) = journal.open_leases()
    assert (entry.lease.name, entry.lease.id, entry.lease.details) == ("old", "i", {"a": 1})
    journal.reached(entry.lease)
    assert Journal(path).state("old") == "reached"


def test_an_intention_survives_a_client_that_is_killed_right_after(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from provisioners.contract import Lease\n"
        "from provisioners.journal import Journal\n"
        f"Journal(Path({str(tmp_path / 'ledger.db')!r})).intend(Lease(provider='p', name='n', run_id='r'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert Journal(tmp_path / "ledger.db").state("n") == "intended"


def test_a_journal_without_the_price_of_disks_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    Journal(path).created(replace(LEASE, id="k3j9"))
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE leases DROP COLUMN storage_usd_per_h")
    dearer = replace(LEASE, name="recipe-b", run_id="b", storage_usd_per_h=0.25)
    journal = Journal(path)
    journal.intend(dearer)
    assert [entry.lease.storage_usd_per_h for entry in journal.open_leases()] == [0.0, 0.25]
    assert dearer.usd_per_h == 1.75


def test_what_went_earlier_than_it_was_proven_is_closed_at_that_moment(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.db")
    lease = Lease(provider="local", name="x", run_id="r", id="1")
    journal.intend(lease)
    at = datetime(2026, 1, 2, tzinfo=UTC)
    journal.released(lease, Gone("no process is left", at))
    (entry,) = journal.of_runs(["r"])
    assert (entry.open, entry.changed_at) == (False, at)
