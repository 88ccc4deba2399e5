"""The commands for what is leased: ps, reap, down, attach, ssh and logs -f, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from provisioners.contract import Gone, Lease, MayStillBill
from provisioners.journal import Journal
from runners.cli import parser_for
from runners.ledger import Ledger
from runners.run_folder import RunFolder
from tests.conftest import Command, eventually, send

NOBODY = 2**22
"""A process that there never was: Linux gives out smaller numbers alone."""
RUN = "demo-20260102-030405-abcd"
OF_RUNS = ("attach", "down", "ssh", "logs")


def document(ended: subprocess.CompletedProcess[str]) -> Any:
    """Standard output, which is one JSON document and nothing else."""
    return json.loads(ended.stdout)


class Books:
    """A home in which somebody has run something: its folders, its ledger, its journal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ledger = Ledger(home)
        self.journal = Journal(self.ledger.path)

    def run(self, pid: int = NOBODY, run_id: str = RUN) -> RunFolder:
        folder = RunFolder(self.home / "runs" / run_id)
        folder.outputs.mkdir(parents=True)
        self.ledger.begin(run_id, "demo", "d", datetime.now(UTC).isoformat(), pid)
        return folder

    def lease(self, provider: str = "runpod", run_id: str = RUN, **fields: Any) -> Lease:
        details = {"work_dir": str(self.home / "work" / "x")} if provider == "local" else {}
        given = {"id": "k3j9x", "price_usd_per_h": 3.58, "details": details, **fields}
        lease = Lease(provider=provider, name=f"recipe-me-{run_id}-60m", run_id=run_id, **given)
        self.journal.created(lease)
        return lease


@pytest.fixture
def books(recipe: Command) -> Books:
    return Books(recipe.home)


@contextmanager
def another_process(code: str) -> Iterator[subprocess.Popen[str]]:
    """One that says when it is ready, and ends with the test at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"import signal, sys, time\n{code}\nprint('ready', flush=True)\ntime.sleep(600)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()


def test_with_nothing_leased_everything_says_so(recipe: Command) -> None:
    for arguments in (["ps"], ["ps", "--all"]):
        ended = recipe(*arguments)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "nothing is leased\n", "")
    for arguments in (["reap"], ["reap", "--yes"]):
        ended = recipe(*arguments, env={"RECIPE_OWNER": "ana"})
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("nothing of ana's is billing without a living run; ")
    for arguments in (["ps"], ["ps", "--all"]):
        assert document(recipe(*arguments, "--json")) == {"machines": [], "silent": []}
    for arguments in (["reap"], ["reap", "--yes"]):
        nothing = {"machines": [], "held": [], "silent": [], "volumes": None, "volumes_unknown": None}
        assert document(recipe(*arguments, "--json")) == nothing


@pytest.mark.parametrize("command", OF_RUNS)
def test_before_the_first_run_it_says_how_to_begin(recipe: Command, command: str) -> None:
    ended = recipe(command, "local-smoke")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "recipe up local-smoke" in ended.stderr


@pytest.mark.parametrize("command", OF_RUNS)
def test_a_run_that_there_is_not_gets_a_hint(recipe: Command, books: Books, command: str) -> None:
    books.run()
    ended = recipe(command, RUN.replace("demo", "dmeo"))
    assert ended.returncode == 2
    assert f"did you mean {RUN}?" in ended.stderr


@pytest.mark.parametrize("command", ["attach", "down"])
def test_a_refusal_is_a_json_document_too(recipe: Command, books: Books, command: str) -> None:
    books.run()
    for reference in (RUN, "nothing"):
        ended = recipe(command, reference, "--json")
        assert ended.returncode == 2
        assert document(ended)["error"]["exit_code"] == 2


def test_a_machine_is_shown_with_its_price_and_its_end(recipe: Command, books: Books) -> None:
    books.run()
    lease = books.lease(deadline=datetime(2031, 2, 3, 4, 5, tzinfo=UTC))
    ended = recipe("ps")
    assert ended.returncode == 0
    for word in (lease.name, "runpod", "k3j9x", "created", "CLIENT GONE", "$3.58/h", "02-03 04:05"):
        assert word in ended.stdout
    (row,) = document(recipe("ps", "--json"))["machines"]
    assert (row["name"], row["client"], row["price_usd_per_h"]) == (lease.name, "gone", 3.58)
    assert row["usd"] >= 0


def test_of_a_lease_whose_answer_was_lost_no_id_is_made_up(recipe: Command, books: Books) -> None:
    books.run(os.getpid())
    books.journal.intend(Lease(provider="runpod", name=f"recipe-me-{RUN}-60m", run_id=RUN))
    shown = recipe("ps").stdout
    assert "intended" in shown
    assert "its client runs" in shown
    (row,) = document(recipe("ps", "--json"))["machines"]
    assert (row["id"], row["price_usd_per_h"], row["usd"], row["deadline"]) == (None, None, None, None)


def test_what_is_gone_is_not_shown(recipe: Command, books: Books) -> None:
    books.run()
    books.journal.released(books.lease(), Gone("deleted, absent twice"))
    assert recipe("ps").stdout == "nothing is leased\n"
    ended = recipe("down", RUN)
    assert ended.returncode == 2
    assert "deleted, absent twice" in ended.stderr


def test_a_provider_that_holds_something_and_cannot_be_asked_is_said_and_is_no_success(
    recipe: Command, books: Books
) -> None:
    books.run()
    lease = books.lease()
    for arguments in (["ps", "--all"], ["reap"]):
        ended = recipe(*arguments)
        assert ended.returncode == 4
        assert "RUNPOD_API_KEY" in ended.stdout
        assert lease.name in ended.stdout
        silent = document(recipe(*arguments, "--json"))["silent"]
        assert [one["provider"] for one in silent] == ["runpod"]
        assert "RUNPOD_API_KEY" in silent[0]["message"] + silent[0]["advice"]


@pytest.mark.parametrize("arguments", [["reap", "--yes"], ["down", RUN]])
def test_what_cannot_be_proven_gone_is_exit_9_with_the_way_out(
    recipe: Command, books: Books, arguments: list[str]
) -> None:
    """Without the key nothing can be proven."""
    books.run()
    lease = books.lease()
    ended = recipe(*arguments)
    assert ended.returncode == 9, ended.stderr
    assert f"NOT PROVEN GONE   {lease.name}" in ended.stdout
    assert "$3.58/h" in ended.stdout
    assert "now:" in ended.stdout
    assert books.journal.state(lease.name) == "may-still-bill"
    (row,) = document(recipe(*arguments, "--json"))["machines"]
    assert row["release"]["state"] == "may-still-bill"
    assert row["release"]["command"]
    assert "may-still-bill" in recipe("ps").stdout


def test_the_next_run_begins_with_a_reminder_of_what_may_still_bill(recipe: Command, books: Books) -> None:
    books.run()
    lease = books.lease()
    refused = recipe("up", "local-smoke", "--set", "workload.max_tokens=5000")
    assert refused.returncode == 3
    assert f"may be billing ({lease.name})" in refused.stderr
    assert f"recipe attach {RUN}" in refused.stderr


def test_a_dry_run_of_reap_changes_nothing(recipe: Command, books: Books) -> None:
    books.run()
    lease = books.lease("local", id=str(NOBODY))
    ended = recipe("reap")
    assert lease.name in ended.stdout
    assert "recipe reap --yes ends them" in ended.stdout
    assert books.journal.state(lease.name) == "created"


def test_reap_leaves_a_run_with_a_living_client_alone(recipe: Command, books: Books) -> None:
    books.run(os.getpid())
    lease = books.lease("local", id=str(NOBODY))
    assert recipe("reap", "--yes").returncode == 0
    assert books.journal.state(lease.name) == "created"


def test_a_run_whose_client_dies_of_the_question_is_ended_all_the_same(recipe: Command, books: Books) -> None:
    with another_process("signal.signal(signal.SIGUSR1, signal.SIG_DFL)") as client:
        books.run(client.pid)
        lease = books.lease("local", id=str(NOBODY))
        ended = recipe("down", RUN)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert books.journal.state(lease.name) == "gone"


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_a_run_that_ends_before_it_has_leased_anything(recipe: Command, books: Books, arguments: list[str]) -> None:
    with another_process("signal.signal(signal.SIGUSR1, lambda *_: sys.exit(0))") as client:
        books.run(client.pid)
        ended = recipe("down", RUN, *arguments)
    assert ended.returncode == 0, ended.stderr
    if arguments:
        assert document(ended) == {"machines": []}
    else:
        assert "leased nothing" in ended.stdout


def test_to_stop_waiting_for_an_end_says_that_it_goes_on(recipe: Command, books: Books) -> None:
    with another_process("signal.signal(signal.SIGUSR1, signal.SIG_IGN)") as client:
        folder = books.run(client.pid)
        books.lease("local", id=str(NOBODY))
        process = recipe.start("down", RUN)
        eventually(folder.wishes_to_stop, what="the wish")
        status, _, err = send(process, signal.SIGINT)
    assert status != 0
    assert "still being ended" in err
    assert "nothing runs on" not in err


def test_attach_of_a_run_with_a_living_client_is_refused(recipe: Command, books: Books) -> None:
    books.run(os.getpid())
    books.lease("local")
    ended = recipe("attach", RUN)
    assert ended.returncode == 2
    assert f"process {os.getpid()}" in ended.stderr
    assert "recipe logs -f" in ended.stderr


def test_attach_of_a_run_that_has_nothing_any_more_says_how_to_begin_anew(recipe: Command, books: Books) -> None:
    books.run()
    ended = recipe("attach", RUN)
    assert ended.returncode == 2
    assert "recipe up demo" in ended.stderr
    books.journal.released(books.lease("local"), MayStillBill("a process would not go", "kill -9 1234"))
    books.journal.released(books.lease("local"), Gone("it is empty"))
    assert "it is empty" in recipe("attach", RUN).stderr


def test_a_shell_is_refused_where_there_is_none(recipe: Command, books: Books) -> None:
    books.run()
    ended = recipe("ssh", RUN)
    assert ended.returncode == 2
    assert "holds no machine" in ended.stderr
    books.lease("local")
    ended = recipe("ssh", RUN, "ls", "-l")
    assert ended.returncode == 4
    assert "it is this machine" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_command_for_ssh_is_taken_as_it_stands() -> None:
    parsed = parser_for("ssh").parse_args([RUN, "ls", "-l", "--json", "a b"])
    assert parsed.command == ["ls", "-l", "--json", "a b"]


def test_a_log_is_followed_until_its_run_has_ended(recipe: Command, books: Books) -> None:
    with another_process("") as client:
        folder = books.run(client.pid)
        process = recipe.start("logs", "-f", RUN)
        path, text = folder.path / "engine.log", "".join(f"line {n}\n" for n in range(2000))
        assert process.stdout is not None
        path.write_text(text[:7000])
        heard = process.stdout.read(7000)
        with path.open("a") as file:
            file.write(text[7000:])
        client.kill()
        client.wait()
        rest, err = process.communicate(timeout=120)
    assert heard + rest == text
    assert (process.returncode, err) == (0, "")


def test_a_log_of_a_run_that_has_ended_is_given_whole(recipe: Command, books: Books) -> None:
    folder = books.run()
    (folder.path / "engine.log").write_text("one\ntwo\n")
    assert recipe("logs", "-f", RUN).stdout == recipe("logs", RUN).stdout == "one\ntwo\n"


def test_to_stop_looking_is_not_to_stop_the_run(recipe: Command, books: Books) -> None:
    with another_process("") as client:
        folder = books.run(client.pid)
        (folder.path / "engine.log").write_text("one\n")
        process = recipe.start("logs", "-f", RUN)
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        status, _, err = send(process, signal.SIGINT)
        assert client.poll() is None
    assert status == 130
    assert "nothing runs on" not in err


def test_reap_is_of_the_owner_that_is_named(recipe: Command) -> None:
    assert "nothing of ana's" in recipe("reap", "--owner", "Ana").stdout
    assert "nothing of bea's" in recipe("reap", env={"RECIPE_OWNER": "bea"}).stdout


def test_a_full_disk_keeps_no_machine_from_its_end(recipe: Command) -> None:
    """What the providers list is ended also where the journal cannot be opened."""
    recipe.home.parent.mkdir(parents=True, exist_ok=True)
    recipe.home.write_text("no folder")
    ended = recipe("reap", "--yes")
    assert ended.returncode == 0, ended.stderr
    assert "only what the providers list is seen" in ended.stderr
