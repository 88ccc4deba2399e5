"""The engine double does what tests of stacks rely on: steps in order, a state at each moment, secrets that stay so."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pulumi
import pytest
from pulumi import automation

from tests.conftest import eventually
from tests.emulators.pulumi import DOUBLE, ROOT, of_the_double
from tests.stacks.bench import Bench, everything_below, failure, let_go, pipe
from tests.stacks.dynamic_things import Thing

pytestmark = pytest.mark.real


@pytest.fixture
def bench(tmp_path: Path, pulumi_engine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench.make(tmp_path, pulumi_engine)
    for name in ("THINGS_WORLD", "PYTHONPATH"):
        monkeypatch.setenv(name, made.env[name])
    return made


def two(size: int = 1, kind: str = "old", **more: Any) -> Any:
    """A program: b is as big as a."""

    def program() -> None:
        a = Thing("a", size=size, kind=kind, **more)
        b = Thing("b", size=a.size, address_of_a=a.address)
        pulumi.export("address", b.address)

    return program


def no_things() -> None:
    pulumi.export("empty", True)


def test_a_stack_is_made_left_alone_changed_replaced_and_destroyed(bench: Bench) -> None:
    made = bench.up(two())
    assert bench.told() == ["create a", "create b"]
    assert f"made {bench.kept()['b']['id']}" in made.stdout, "what a provider prints is heard"
    assert made.summary.resource_changes == {"create": 3}
    assert made.outputs["address"].value == f"{bench.kept()['b']['id']}.example"

    again = bench.up(two())
    assert bench.told() == []
    assert again.summary.resource_changes == {"same": 3}

    bench.up(two(size=2))
    assert bench.told() == ["update a", "update b"]
    first = bench.kept()["a"]["id"]

    replaced = bench.up(two(size=2, kind="new"))
    assert bench.told() == ["create a", "update b", "delete a"]
    assert bench.kept()["a"]["id"] != first
    assert replaced.summary.resource_changes == {"same": 1, "replace": 1, "update": 1}

    bench.stack(two()).destroy()
    assert bench.told() == ["delete b", "delete a"]
    assert "resources" not in bench.state()
    assert bench.things() == []


def test_what_the_program_no_longer_has_is_deleted_at_the_end(bench: Bench) -> None:
    bench.up(two())
    bench.told()
    gone = bench.up(no_things)
    assert bench.told() == ["delete b", "delete a"]
    assert gone.outputs["empty"].value is True
    assert gone.summary.resource_changes == {"same": 1, "delete": 2}


def test_a_preview_asks_and_writes_nothing(bench: Bench) -> None:
    seen: list[Any] = []

    def program() -> None:
        two()()
        pulumi.Output.all(pulumi.runtime.is_dry_run()).apply(seen.extend)

    preview = bench.stack(program).preview()
    assert preview.change_summary == {"create": 3}
    assert {what for what, _ in bench.calls()} == {"check"}
    (b,) = [props for _, props in bench.calls() if props["name"] == "b"]
    assert b["size"] == 1, "an input that comes back as an output is known"
    assert "Unknown" in b["address_of_a"]
    assert seen == [True]
    assert "resources" not in bench.state()

    bench.up(program)
    bench.told()
    assert bench.stack(two(size=2)).preview().change_summary == {"same": 1, "update": 2}
    assert bench.told("check", "diff", *("create", "update", "delete")) == ["check a", "diff a", "check b", "diff b"]


def test_secrets_are_nowhere_in_clear_but_at_the_provider(bench: Bench) -> None:
    def program() -> None:
        a = Thing(
            "a", pulumi.ResourceOptions(additional_secret_outputs=["token"]), key=pulumi.Output.secret("open-the-door")
        )
        pulumi.export("key", a.key if hasattr(a, "key") else pulumi.Output.secret("open-the-door"))
        pulumi.export("token", a.token)
        pulumi.export("address", a.address)

    lines: list[str] = []
    made = bench.up(program, on_output=lines.append, on_event=lambda event: lines.append(str(vars(event))))
    assert {name: one.secret for name, one in made.outputs.items()} == {"key": True, "token": True, "address": False}
    assert made.outputs["token"].value == "token-of-a"
    assert [props["key"] for what, props in bench.calls() if what == "create"] == ["open-the-door"]

    (bench.world / "calls").unlink()
    kept = everything_below(bench.folder) + "\n".join(lines).encode()
    assert b"open-the-door" not in kept
    assert b"token-of-a" not in kept
    for bag in ("inputs", "outputs"):
        assert "ciphertext" in bench.kept()["a"][bag]["key"]
        assert "ciphertext" in bench.kept()["a"][bag]["__provider"]
    shown = bench("stack", "output", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["token"] == "[secret]"
    assert "open-the-door" in bench("stack", "export", "--show-secrets").stdout
    assert "open-the-door" not in bench("stack", "export").stdout

    wrong = bench("stack", "output", "--json", "--show-secrets", PULUMI_CONFIG_PASSPHRASE="guessed")
    assert (wrong.returncode, "incorrect passphrase" in wrong.stderr) == (1, True)


def test_what_hangs_on_it_goes_first_where_it_is_deleted_before_it_is_made_again(bench: Bench) -> None:
    def program(kind: str) -> Any:
        def run() -> None:
            a = Thing("a", kind=kind, alone=True)
            Thing("b", kind=a.address)
            Thing("c", size=a.id.apply(len))

        return run

    bench.up(program("old"))
    bench.told()
    replaced = bench.up(program("new"))
    assert bench.told()[:4] == ["delete b", "delete a", "create a", "create b"]
    assert replaced.summary.resource_changes == {"same": 2, "replace": 2}
    assert bench.things() == ["a", "b", "c"]


def test_a_failure_keeps_what_was_done_and_the_next_up_goes_on(bench: Bench) -> None:
    def program(*, fails: bool) -> Any:
        def run() -> None:
            first = Thing("first")
            broken = Thing("broken", pulumi.ResourceOptions(depends_on=[first]), fails=fails)
            Thing("last", address_of_broken=broken.address)
            pulumi.export("first", first.address)

        return run

    events: list[automation.EngineEvent] = []
    stack = bench.stack(program(fails=True))
    with pytest.raises(automation.CommandError) as failed:
        stack.up(on_event=events.append)
    said = str(failed.value)
    assert "code: 1" in said
    assert "pulumi-python:dynamic:Resource (broken):\n    error: Traceback" in said
    assert "RuntimeError: no room for broken" in said
    assert "error: update failed" in said
    assert [event.res_op_failed_event.metadata.op.value for event in events if event.res_op_failed_event] == ["create"]
    assert list(bench.kept()) == ["first"]
    assert "pending_operations" not in bench.state()
    assert bench.told() == ["create first", "create broken"]

    bench.up(program(fails=False))
    assert bench.told() == ["create broken", "create last"]


def test_a_provider_that_dies_fails_its_step(bench: Bench) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", pulumi.ResourceOptions(depends_on=[a]), dies=True)

    said = failure(bench.stack(program))
    assert "error: update failed" in said
    assert list(bench.kept()) == ["a"]


def test_an_input_that_the_provider_refuses_is_told(bench: Bench) -> None:
    said = failure(bench.stack(lambda: Thing("a", size=-1)))
    assert (
        "error: pulumi-python:dynamic:Resource resource 'a': property size value {-1} has a problem: it is below zero"
        in said
    )
    assert bench.told() == []


@of_the_double
def test_what_the_double_does_not_know_it_refuses(bench: Bench) -> None:
    said = failure(bench.stack(lambda: Thing("a", pulumi.ResourceOptions(import_="a-1")) and None))
    assert "error: the double knows no importId" in said
    assert bench("up", "--yes", "--target", "a").returncode == 2
    assert bench.told() == []


@pytest.mark.parametrize("moment", ["before-create", "after-create:b"])
def test_killed_in_a_create_the_state_says_that_it_was_begun(
    bench: Bench, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = bench.folder / "die"
    order.write_text(moment)
    monkeypatch.setenv("ENGINE_DOUBLE_DIE_FILE", str(order))
    with pytest.raises(automation.CommandError):
        bench.up(two())
    assert not order.exists()
    victim = "b" if moment.endswith("b") else "a"
    assert [(one["type"], one["resource"]["urn"][-1]) for one in bench.state()["pending_operations"]] == [
        ("creating", victim)
    ]
    assert victim not in bench.kept()
    assert bench.things() == (["a", "b"] if victim == "b" else [])

    stack = bench.stack(two())
    with pytest.raises(automation.errors.ConcurrentUpdateError, match=r"created by .*@.* \(pid \d+\) at "):
        stack.up()
    stack.cancel()
    lines: list[str] = []
    stack.up(on_output=lines.append)
    assert f"::{victim}, interrupted while creating" in "\n".join(lines)
    assert bench.things() == sorted({"a", "b"} | ({"b"} if victim == "b" else set())) + (["b"] if victim == "b" else [])
    stack.refresh(clear_pending_creates=True)
    assert "pending_operations" not in bench.state()


def test_a_signal_lets_the_running_step_end_and_begins_no_other(bench: Bench) -> None:
    gate = pipe(bench.folder, "gate")

    def program() -> None:
        a = Thing("a", waits=str(gate))
        Thing("b", pulumi.ResourceOptions(depends_on=[a]))

    lines: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(failure, bench.stack(program), heard=lines.append)
        eventually(lambda: "create" in [what for what, _ in bench.calls()], what="the create")
        (engine,) = engines_of(bench)
        engine.send_signal(signal.SIGINT)
        eventually(lambda: "^C received; cancelling." in "\n".join(lines), what="the engine's word")
        let_go(gate)
        said = running.result(120)
    assert "error: update canceled" in said
    assert list(bench.kept()) == ["a"]
    assert bench.things() == ["a"]
    assert "pending_operations" not in bench.state()


@pytest.mark.parametrize("left", [False, True])
def test_an_engine_that_is_killed_leaves_its_provider_which_may_end_by_itself(
    bench: Bench, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if left:
        monkeypatch.setenv("THINGS_STAY", "1")
    gate = pipe(bench.folder, "gate")
    stack = bench.stack(lambda: Thing("a", waits=str(gate)) and None)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(failure, stack)
        eventually(lambda: "create" in [what for what, _ in bench.calls()], what="the create")
        (engine,) = engines_of(bench)
        (shell,) = engine.children()
        (provider,) = shell.children()
        engine.kill()
        running.result(120)
    if left:
        let_go(gate)
        eventually(lambda: bench.things() == ["a"], what="the end of the create")
        provider.kill()
    eventually(lambda: not provider.is_running() or provider.status() == psutil.STATUS_ZOMBIE, what="its end")
    assert bench.things() == (["a"] if left else [])
    assert [one["type"] for one in bench.state()["pending_operations"]] == ["creating"]


def test_of_two_engines_on_a_stack_one_is_refused_and_other_stacks_go_on(bench: Bench) -> None:
    gate = pipe(bench.folder, "gate")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(bench.up, lambda: Thing("a", waits=str(gate)) and None)
        eventually(lambda: "create" in [what for what, _ in bench.calls()], what="the create")
        with pytest.raises(automation.errors.ConcurrentUpdateError, match="the stack is currently locked by 1 lock"):
            bench.up(no_things)
        others = [pool.submit(bench.up, lambda name=name: Thing(name) and None, name) for name in ("x", "y")]
        assert [one.result(120).summary.result for one in others] == ["succeeded"] * 2
        let_go(gate)
        assert first.result(120).summary.result == "succeeded"
    assert bench.things() == ["a", "x", "y"]


def test_refresh_sees_what_others_changed_and_what_is_gone(bench: Bench) -> None:
    bench.up(two(size=1))
    (bench.world / bench.kept()["a"]["id"]).write_text('{"size": 7}')
    (bench.world / bench.kept()["b"]["id"]).unlink()
    bench.stack(two()).refresh()
    assert list(bench.kept()) == ["a"]
    assert (bench.kept()["a"]["inputs"]["size"], bench.kept()["a"]["outputs"]["size"]) == (7, 7)
    bench.told()
    bench.up(two(size=1))
    assert bench.told() == ["update a", "create b"]


def test_what_is_protected_stays(bench: Bench) -> None:
    def program() -> None:
        Thing("a", pulumi.ResourceOptions(protect=True))
        Thing("b")

    bench.up(program)
    said = failure(bench.stack(program), "destroy")
    assert "cannot be deleted\n    because it is protected" in said
    assert list(bench.kept()) == ["a"]
    assert bench.things() == ["a"]


def test_a_delete_that_fails_keeps_it_in_the_state(bench: Bench) -> None:
    bench.up(lambda: Thing("a", stays=True) and None)
    said = failure(bench.stack(no_things), "destroy")
    assert "does not want to go" in said
    assert list(bench.kept()) == ["a"]


PLAIN = """
import pulumi
from tests.stacks.dynamic_things import Thing
config = pulumi.Config()
thing = Thing("a", size=config.require_int("size"), key=config.require_secret("key"))
pulumi.export("address", thing.address)
pulumi.export("colour", thing.colour)
pulumi.export("stack", pulumi.get_stack())
"""


def test_a_plain_project_runs_with_its_configuration(bench: Bench) -> None:
    work = bench.work
    (work / "Pulumi.yaml").write_text("name: proj\nruntime: python\n")
    (work / "__main__.py").write_text(PLAIN)
    assert bench("stack", "init", "main").returncode == 0
    for arguments in (["size", "3"], ["--secret", "key", "open-the-door"], ["colour", "--", "red"]):
        assert bench("config", "set", *arguments).returncode == 0
    assert bench("config", "set", "colour", "--", "red", "--non-interactive").returncode != 0, "all of it is a value"
    assert "open-the-door" not in (work / "Pulumi.main.yaml").read_text()
    assert bench("up").returncode == 2, "nobody confirmed"

    up = bench("up", "--yes")
    assert up.returncode == 0, up.stderr + up.stdout
    assert [(props["size"], props["key"]) for what, props in bench.calls() if what == "create"] == [
        (3, "open-the-door")
    ]
    outputs = json.loads(bench("stack", "output", "--json").stdout)
    assert (outputs["stack"], outputs["colour"]) == ("main", "red")
    planned = json.loads(bench("preview", "--json").stdout)
    assert planned["changeSummary"] == {"same": 2}
    assert bench("preview", "--expect-no-changes").returncode == 0

    (work / "__main__.py").write_text("raise ValueError('the program is wrong')")
    broken = bench("up", "--yes")
    assert broken.returncode == 1
    assert "error: Program failed with an unhandled exception:" in broken.stdout
    assert "ValueError: the program is wrong" in broken.stdout
    assert "unhandled error occurred" not in broken.stdout
    assert bench("destroy", "--yes").returncode == 0
    assert bench.things() == []


def test_another_folder_and_the_same_state(bench: Bench) -> None:
    bench.up(two())
    elsewhere = Bench(bench.folder / "elsewhere", bench.env)
    elsewhere.work.mkdir(parents=True)
    (elsewhere.work / "Pulumi.yaml").write_text("name: proj\nruntime: python\n")
    assert elsewhere("config", "set", "key", "--secret", "x", "--stack", "main").returncode == 0
    elsewhere.stack(two()).destroy()
    assert bench.things() == []


def test_stacks_are_made_listed_and_removed(bench: Bench) -> None:
    stack = bench.stack(two())
    with pytest.raises(automation.StackAlreadyExistsError):
        automation.create_stack("main", "proj", two(), opts=bench.options)
    with pytest.raises(automation.StackNotFoundError):
        automation.select_stack("none", "proj", two(), opts=bench.options)
    assert bench("up", "--yes", "--stack", "none").returncode == 6
    stack.up()
    (listed,) = stack.workspace.list_stacks()
    assert (listed.name, listed.current, listed.resource_count, listed.update_in_progress) == ("main", True, 4, None)
    assert stack.workspace.who_am_i().url == bench.env["PULUMI_BACKEND_URL"]
    with pytest.raises(automation.CommandError, match="still has resources; removal rejected"):
        stack.workspace.remove_stack("main")

    moved = stack.export_stack()
    bench.stack(two(), "other")
    (bench.folder / "moved.json").write_text(json.dumps(vars(moved)).replace("urn:pulumi:main::", "urn:pulumi:other::"))
    assert bench("stack", "import", "--stack", "other", "--file", str(bench.folder / "moved.json")).returncode == 0
    assert list(bench.kept("other")) == ["a", "b"]

    stack.destroy()
    stack.workspace.remove_stack("main")
    assert [one.name for one in stack.workspace.list_stacks()] == ["other"]


def test_cheap_commands_load_no_grpc() -> None:
    asked = "import sys; sys.path[0] = sys.argv[1]; from double.main import main; main(sys.argv[2:]); "
    checked = "assert not {'grpc', 'google.protobuf', 'pulumi', 'cryptography'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", asked + checked, str(DOUBLE), "version"], check=True, cwd=ROOT)
    subprocess.run(
        [sys.executable, "-c", asked + checked, str(DOUBLE), "stack", "ls", "--all"],
        check=True,
        env={"PULUMI_BACKEND_URL": f"file://{DOUBLE}"},
    )


def engines_of(bench: Bench) -> list[psutil.Process]:
    """The engines that run an operation in the bench's folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cwd() == str(bench.work) and "--exec-kind" in process.cmdline():
                found.append(process)
    return found
