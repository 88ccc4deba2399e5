"""`workload.where: host`: a driver on the machine does what the client would have done, and goes on without it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.emulators.slots import SlotsDouble
from tests.provisioners.ssh_hosts import Machine
from tests.runners.driver.conftest import Work, cache_of

pytestmark = pytest.mark.real
Wait = Callable[..., Any]


def asked(engine: SlotsDouble) -> Counter[str]:
    """How often it was asked for each prompt, but for the one token with which a client convinces itself."""
    return Counter(row["digest"] for row in engine.requests() if row["tokens"] > 1)


def is_working(engine: SlotsDouble, more_than: int) -> bool:
    return asked(engine).total() > more_than


def test_on_this_machine_it_comes_out_the_same(work: Work) -> None:
    found = []
    for where in ("client", "host"):
        ended = work.recipe("up", "local-smoke", "--set", f"workload.where={where}")
        assert ended.returncode == 0, ended.stderr
        answers = sorted((row["id"], row["key"], row["text"]) for row in work.rows("answers"))
        requests = sorted((row["id"], row["status"], row["prompt_tokens"]) for row in work.rows("requests"))
        outputs = sorted(path.name for path in (work.folder / "outputs").iterdir())
        documents = sorted((row["document"], row["output"], row["key"]) for row in work.rows("documents"))
        found.append((answers, requests, outputs, documents, work.summaries()))
        assert len(work.rows("telemetry")) >= 2
        result = work.result()
        assert result["throughput"]["measured_at"] == where
        assert result["latency"]["ttft_s"]["p50"] > 0
        assert ("measured     on the host" in ended.stdout) == (where == "host")
    assert found[0] == found[1]
    result["throughput"]["clock_offset_s"] = -3.25
    (work.folder / "result.json").write_text(json.dumps(result))
    shown = work.recipe("report", work.folder.name).stdout
    assert "measured     on the host; its clock is 3.2 s behind this one's" in shown


def test_over_ssh_everything_comes_home(
    work: Work, over_ssh: Callable[..., None], engine: SlotsDouble, ssh_machine: Machine, texts: list[str]
) -> None:
    over_ssh()
    ended = work.recipe("up", str(work.path))
    assert ended.returncode == 0, ended.stderr
    assert set(work.summaries()) == set(texts), "under the paths that the client knows"
    assert set(asked(engine).values()) == {1}
    rows = work.rows("requests")
    assert len(rows) == len(work.rows("answers")) == asked(engine).total()
    assert not [row for row in rows if str(ssh_machine.sshd.home) in row["document"]]
    result = work.result()
    assert (result["requests"]["ok"], result["requests"]["failed"]) == (len(rows), 0)
    assert (result["throughput"]["measured_at"], abs(result["throughput"]["clock_offset_s"]) < 1) == ("host", True)
    assert ssh_machine.is_as_found()


def test_a_second_run_sends_the_inputs_no_second_time(
    work: Work, over_ssh: Callable[..., None], ssh_machine: Machine
) -> None:
    for max_tokens in (16, 17):
        over_ssh(workload={"max_tokens": max_tokens})
        assert work.recipe("up", str(work.path)).returncode == 0
    assert len(list(cache_of(ssh_machine).glob("provided/*/files"))) == 1


@pytest.mark.parametrize("until_done", [True, False])
def test_a_killed_client_costs_nothing_and_attach_brings_all_home(
    work: Work,
    over_ssh: Callable[..., None],
    killed: Callable[..., None],
    engine: SlotsDouble,
    ssh_machine: Machine,
    texts: list[str],
    wait_until: Wait,
    until_done: bool,
) -> None:
    over_ssh()
    killed(after=8)
    at_home = len(work.rows("answers"))
    wait_until(lambda: is_working(engine, at_home + 20), what="the driver to go on alone")
    listed = work.recipe("ps").stdout
    assert "CLIENT GONE, driver left" in listed
    assert f"comes home with recipe attach {work.folder.name}" in listed
    if until_done:
        wait_until(lambda: not driver_of(HOME=str(ssh_machine.sshd.home)), what="the driver's end")
    attached = work.recipe("attach", work.folder.name)
    assert attached.returncode == 0, attached.stderr
    assert set(asked(engine).values()) == {1}, "nothing was asked twice"
    assert Counter(row["id"] for row in work.rows("answers")).most_common(1)[0][1] == 1
    assert len(work.rows("answers")) == len(work.rows("requests")) == asked(engine).total()
    assert set(work.summaries()) == set(texts)
    result = work.result()
    assert (result["outcome"]["status"], result["documents"]["done"]) == ("completed", len(texts))
    assert result["requests"]["ok"] == asked(engine).total(), "the driver has measured all of it"
    assert result["requests"]["resumed"] == 0
    assert ssh_machine.is_as_found()


def test_a_machine_lets_itself_go_when_the_driver_is_done_and_not_before(
    work: Work,
    over_ssh: Callable[..., None],
    killed: Callable[..., None],
    engine: SlotsDouble,
    ssh_machine: Machine,
    wait_until: Wait,
) -> None:
    """It works for longer than the machine would wait for a client."""
    over_ssh(limits={"idle_duration": "5s"})
    killed(after=5)
    wait_until(lambda: ssh_machine.is_as_found(), what="the machine to let itself go")
    done = {row["document"] for row in work.rows("documents")}
    assert asked(engine).total() >= 120 + 12, "all of it was asked, with nobody there"
    assert len(done) < 12
    assert work.recipe("attach", work.folder.name).returncode == 4


def test_what_a_failed_drive_says_is_what_the_client_would_say(
    work: Work, over_ssh: Callable[..., None], ssh_machine: Machine
) -> None:
    over_ssh(workload={"max_levels": 1})
    ended = work.recipe("up", str(work.path))
    assert ended.returncode == 7
    assert "documents failed: " in work.result()["outcome"]["error"]
    assert work.rows("answers"), "what it had is at home"
    assert ssh_machine.is_as_found()


def test_a_second_up_goes_on_from_what_the_first_had(
    work: Work, over_ssh: Callable[..., None], killed: Callable[..., None], engine: SlotsDouble, ssh_machine: Machine
) -> None:
    over_ssh()
    killed(after=8)
    down = work.recipe("down", work.folder.name)
    assert down.returncode == 0, down.stderr
    first = {row["key"] for row in work.rows("answers")}
    before = asked(engine)
    ended = work.recipe("up", str(work.path))
    assert ended.returncode == 0, ended.stderr
    result = work.result()
    assert result["requests"]["resumed"] == len(first) > 0
    again = asked(engine) - Counter(before.keys())
    assert asked(engine).total() - before.total() == result["requests"]["ok"]
    assert sum(again[prompt] for prompt in before) <= before.total() - len(first), "only what never came home"


def test_a_machine_that_has_forgotten_its_driver_gets_the_answers_that_are_at_home(
    work: Work, over_ssh: Callable[..., None], killed: Callable[..., None], engine: SlotsDouble, ssh_machine: Machine
) -> None:
    over_ssh()
    killed(after=8)
    (driver,) = driver_of(HOME=str(ssh_machine.sshd.home))
    driver.kill()
    driver.wait()
    (state,) = (ssh_machine.sshd.home / ".recipe").iterdir()
    for folder in (state / "work" / "runs", state / "jobs" / "drive"):
        shutil.rmtree(folder)
    at_home, before = len(work.rows("answers")), asked(engine)
    attached = work.recipe("attach", work.folder.name)
    assert attached.returncode == 0, attached.stderr
    result = work.result()
    assert (result["requests"]["resumed"], result["documents"]["done"]) == (at_home, 12)
    assert asked(engine).total() - before.total() == result["requests"]["ok"]
    ids = [row["id"] for row in work.rows("answers")]
    assert len(ids) == len(set(ids))


def test_the_engines_key_is_in_no_file_and_in_no_command_line(
    work: Work, ssh_machine: Machine, book: object, wait_until: Wait
) -> None:
    work.write(
        extends="local-smoke",
        name="secretive",
        resources={
            "provisioner": "ssh",
            "hosts": [ssh_machine.address],
            "ssh_key": str(ssh_machine.sshd.key),
        },
        workload={"where": "host", "inputs": [str(book)]},
    )
    process = work.recipe.start("up", str(work.path))
    try:
        wait_until(lambda: process.poll() is not None or driver_of(HOME=str(ssh_machine.sshd.home)), what="the driver")
        (driver,) = driver_of(HOME=str(ssh_machine.sshd.home))
        key = driver.environ()["RECIPE_ENGINE_KEY"]
        wait_until(lambda: len(work.rows("answers")) > 3, what="some answers")
        command_lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
        assert not [line for line in command_lines if key in line]
        assert files_with(key, work.recipe.home, ssh_machine.sshd.home) == []
    finally:
        process.terminate()
        process.communicate()
    assert ssh_machine.is_as_found()


def test_an_engine_that_dies_while_nobody_is_there_ends_the_run_with_its_cause(
    work: Work, ssh_machine: Machine, book: object, killed: Callable[..., None], wait_until: Wait
) -> None:
    work.write(
        extends="local-smoke",
        name="mortal",
        resources={
            "provisioner": "ssh",
            "hosts": [ssh_machine.address],
            "ssh_key": str(ssh_machine.sshd.key),
        },
        workload={"where": "host", "inputs": [str(book)], "retries": 0},
    )
    killed(after=5)
    at_home = len(work.rows("answers"))
    wait_until(lambda: answers_there(ssh_machine) > at_home + 5, what="answers that nobody hears")
    for process in of_machine("serve_llamacpp.py", HOME=str(ssh_machine.sshd.home)):
        process.kill()
    wait_until(lambda: not driver_of(HOME=str(ssh_machine.sshd.home)), what="the driver's end")
    there = answers_there(ssh_machine)
    attached = work.recipe("attach", work.folder.name)
    assert attached.returncode == 6, attached.stderr
    assert "SIGKILL" in work.result()["outcome"]["error"]
    assert len(work.rows("answers")) == there > at_home
    assert ssh_machine.is_as_found()


def of_machine(word: str, **environment: str) -> list[psutil.Process]:
    """The processes in whose environment these stand, and whose command line has this word."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        try:
            theirs = process.environ()
        except (psutil.Error, OSError):
            continue
        mine = all(value in theirs.get(name, "") for name, value in environment.items())
        if mine and any(word in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def driver_of(**environment: str) -> list[psutil.Process]:
    """The drivers there, by the command line that was seen: one that ends meanwhile has none any more."""
    drivers = of_machine("drive.json", **environment)
    return [one for one in drivers if any(part.endswith(".zip") for part in one.info["cmdline"])]


def files_with(key: str, *folders: Path) -> list[Path]:
    """The files below these that hold it; one that is replaced meanwhile is looked into under its next name."""
    found = []
    for folder in folders:
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and key.encode() in path.read_bytes():
                    found.append(path)
    return found


def answers_there(machine: Machine) -> int:
    paths = list((machine.sshd.home / ".recipe").glob("*/work/runs/*/answers.jsonl"))
    return sum(len(path.read_bytes().splitlines()) for path in paths)
