"""The lease journal: written before and after, readable whatever happened between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from provisioners.contract import Gone, Lease, MayStillBill
from provisioners.journal import Journal

LEASE = Lease(provider="local", name="recipe-a", run_id="a")


def test_a_lease_is_on_disk_from_the_intention_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "ledger.db")
    assert journal.state("recipe-a") is None
    journal.intend(LEASE)
    assert Journal(tmp_path / "ledger.db").state("recipe-a") == "intended"
    journal.created(LEASE)
    assert Journal(tmp_path / "ledger.db").state("recipe-a") == "created"
    journal.released(LEASE, MayStillBill("no answer", "reap"))
    assert journal.state("recipe-a") == "may-still-bill"
    journal.released(LEASE, Gone("absent twice"))
    assert journal.state("recipe-a") == "gone"


def test_an_intention_survives_a_client_that_is_killed_right_after(tmp_path: Path) -> None:
    program = (
        "import os, signal; from pathlib import Path; from provisioners.contract import Lease\n"
        "from provisioners.journal import Journal\n"
        f"Journal(Path({str(tmp_path / 'ledger.db')!r})).intend(Lease(provider='p', name='n', run_id='r'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9
    assert Journal(tmp_path / "ledger.db").state("n") == "intended"
