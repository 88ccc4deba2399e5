"""recipe stack as a user types it: what it shows, what it asks, how it ends; over the engine double."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import runners.cli.loose_volumes
import runners.cli.stack_destroy
import runners.cli.stack_up
from provisioners.site import site_of
from provisioners.volumes import StoredVolume
from recipes.errors import HostCommandFailed, MayStillBillError
from runners.cli.commands.stack import complete_stacks
from runners.cli.run import run_command
from runners.doctor import examine
from runners.stacking import program as programs
from runners.stacking.billing import Billing, Replaced
from runners.stacking.cache_volumes import CacheVolume
from stacks import kept
from stacks.automation import Managed
from stacks.reference import PROGRAMS, StackRef
from stacks.values import Changes, StackFailed, Unusable
from tests.conftest import Command, eventually
from tests.emulators.pulumi import pulumi_engine
from tests.stacks import things

__all__ = ["pulumi_engine"]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Error in event stream"),  # of the SDK, where an engine ends early
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of its programs, then
]
ROOT = Path(__file__).parents[2]
real = pytest.mark.real
WAY_OUT = "next:  recipe stack install gets it; provisioner: runpod needs none of it"


class Things:
    """A stack program whose resource does what a test says."""

    def __init__(self, at: Path) -> None:
        self.at, self.text, self.does = at, "a", ""
        self.failed: list[list[Mapping[str, Any]]] = []
        self.until: datetime | None = None
        self.waits: Callable[[], Awaitable[None]] | None = None
        self.proofs: list[str] = []
        """What its provider says when it is asked itself."""
        self.remains = ""
        self.meanwhile: Callable[[], None] = lambda: None
        """What happens while `destroy` looks."""
        self.ended_alone: list[str] = []

    async def inputs(self, recipes: Sequence[Any], ref: Any, options: Any, env: Any, before: Any) -> dict[str, Any]:
        if recipes:
            return {"text": self.text, "does": self.does, "recipe": recipes[0].recipe.name, "size_gb": options.size_gb}
        return dict(before)

    def costs(self, inputs: Mapping[str, Any], changes: Changes, outputs: Mapping[str, Any]) -> list[str]:
        return ["$14.00/month for 200 GB"] if changes.any else []

    def known(self, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        return outputs

    def told(self, outputs: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [("thing", str(outputs["text"]))]

    async def after_up(self, ref: Any, inputs: Any, outputs: Any, env: Any, heard: Any) -> list[str]:
        if self.waits is not None:
            await self.waits()
        return [f"{outputs['text']} can be used"]

    async def after_failure(self, ref: Any, made: Any, outputs: Any, env: Any, heard: Any) -> list[str]:
        self.failed.append(list(made))
        return [one["name"] for one in made]

    def billing(self, outputs: Mapping[str, Any]) -> Billing | None:
        if not outputs:
            return None
        what = f"thing {outputs['text']} at $3.61/h"
        return Billing(
            what=what, id=outputs["text"], usd_per_h=3.61, until=self.until, way_out="recipe down t1 ends it"
        )

    def replaced(self, changes: Changes, before: Any, inputs: Any, outputs: Any) -> Replaced | None:
        step = changes.of("Thing")
        if step is None or step.op != "replace":
            return None
        because = (f"text {before['text']} → {inputs['text']}",)
        return Replaced(because=because, ends=f"{self.billing(outputs)} first")

    async def warnings(self, ref: Any, inputs: Any, outputs: Any, env: Any) -> list[str]:
        return []

    def left(self, ref: Any, outputs: Any) -> str:
        self.meanwhile()
        return self.remains

    async def after_destroy(self, ref: Any, outputs: Any, env: Any, *, alone: bool = False) -> list[str]:
        self.ended_alone += [outputs["text"]] if alone else []
        return self.proofs

    def state(self) -> Path:
        (found,) = (self.at / "home" / "pulumi" / "state").rglob("stacks/**/main.json")
        return found

    def ledger(self) -> list[str]:
        found = (self.at / "ledger").read_text().splitlines() if (self.at / "ledger").exists() else []
        return [line.rpartition(" ")[0] for line in found]


@pytest.fixture
def stack(pulumi_engine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Things:
    """`recipe stack … gpu_pod` with things in the pod's place, in this process."""
    made = Things(tmp_path)
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RUNPOD_API_KEY", things.SECRET)
    monkeypatch.setenv("RECIPE_RUNPOD_URL", "http://127.0.0.1:9/v2")  # where nobody answers
    monkeypatch.setenv("RECIPE_RUNPOD_PACE", "0.01")
    monkeypatch.chdir(tmp_path)

    def pulumi_program(ref: StackRef, inputs: Mapping[str, Any]) -> Callable[[], None]:
        import pulumi

        def run() -> None:
            things.program(tmp_path, inputs["text"], inputs["does"])()
            pulumi.export("recipe_inputs", pulumi.Output.secret(json.dumps(inputs)))

        return run

    program: programs.StackProgram = made  # what the command asks for, the double has
    for name in PROGRAMS:
        monkeypatch.setitem(sys.modules, f"runners.stacking.{name}", program)
    monkeypatch.setattr(runners.cli.stack_up, "pulumi_program", pulumi_program)
    return made


Ended = tuple[int, str, str]


@pytest.fixture
def typed(stack: Things, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs a command line; returns the exit code and what was written."""

    def run(*words: str) -> Ended:
        code = run_command("stack", words)
        written = capsys.readouterr()
        return code, written.out, written.err

    return run


@real
def test_a_stack_from_up_to_destroy(stack: Things, typed: Callable[..., Ended]) -> None:
    code, out, _ = typed("list")
    assert (code, out.splitlines()[0]) == (0, "no stacks yet")
    assert "recipe stack up model_cache RECIPE" in out

    code, out, _ = typed("preview", "gpu_pod", "local-smoke")
    assert code == 0
    assert out.splitlines() == [
        "+   create   Thing   thing",
        "costs     $14.00/month for 200 GB",
        "go:       recipe stack up gpu_pod local-smoke",
    ]
    assert typed("list")[1].splitlines()[0] == "no stacks yet", "a look leaves nothing"
    assert stack.ledger() == []

    code, out, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 0, err
    assert out.splitlines()[-2:] == ["thing   a", "a can be used"]
    assert "makes Thing thing" in err

    code, out, _ = typed("up", "gpu_pod")
    assert (code, out.splitlines()[0]) == (0, "nothing changes")
    code, out, _ = typed("list")
    assert out.splitlines()[0] == "gpu_pod   thing a at $3.61/h"
    code, out, _ = typed("outputs", "gpu_pod")
    assert out == "thing   a\n"
    code, out, _ = typed("inputs", "gpu_pod", "--json")
    assert json.loads(out) == {"text": "a", "does": "", "recipe": "local-smoke", "size_gb": None}

    code, out, _ = typed("destroy", "gpu_pod", "--yes")
    assert code == 0
    assert out.splitlines() == [
        "-   delete   Thing   thing",
        "ends      thing a at $3.61/h",
        "gone   looked for twice",
    ]
    assert typed("list")[1].splitlines()[0] == "no stacks yet"
    assert stack.ledger() == ["create a", "delete a"]


@real
def test_json_is_one_document(stack: Things, typed: Callable[..., Ended]) -> None:
    _, out, _ = typed("up", "gpu_pod", "local-smoke", "--yes", "--json")
    document = json.loads(out)
    assert [(step["op"], step["type"]) for step in document["changes"]] == [("create", "Thing")]
    assert (document["stack"], document["costs"]) == ("gpu_pod", ["$14.00/month for 200 GB"])
    assert document["done"] is True
    assert document["outputs"] == {"text": "a", "sizes": {"gb": 200}}, "neither secrets nor what only recipe reads"
    assert things.SECRET not in out
    assert json.loads(typed("outputs", "gpu_pod", "--json")[1])["source"] == "pulumi"
    (row,) = json.loads(typed("list", "--json")[1])["stacks"]
    assert (row["stack"], row["says"], row["busy"]) == ("gpu_pod", "thing a at $3.61/h", None)
    what = {"what": "thing a at $3.61/h", "id": "a", "usd_per_h": 3.61, "usd_per_month": None, "until": None}
    assert row["bills"] == what
    assert json.loads(typed("destroy", "gpu_pod", "--yes", "--json")[1])["proofs"] == ["looked for twice"]


@real
@pytest.mark.parametrize("stdin", [io.StringIO(), None], ids=["no terminal", "closed"])
def test_nothing_is_changed_where_nobody_can_be_asked(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    code, out, err = typed("up", "gpu_pod", "local-smoke")
    assert code == 2
    assert "+   create   Thing   thing" in out
    assert "nothing was changed: nobody can be asked here" in err
    assert "--yes" in err
    assert stack.ledger() == []
    assert typed("list")[1].splitlines()[0] == "no stacks yet"


@real
@pytest.mark.parametrize(("answer", "made"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_the_question_at_a_terminal(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, answer: str, made: bool
) -> None:
    ours, its = os.openpty()
    with open(its, closefd=True) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(ours, answer.encode())
        code, _, err = typed("up", "gpu_pod", "local-smoke")
    os.close(ours)
    assert code == 0
    assert "do this? [y/N]" in err
    assert ("nothing was changed" in err) is not made
    assert stack.ledger() == (["create a"] if made else [])


@real
@pytest.mark.parametrize("command", ["up", "destroy", "unlock"])
def test_no_is_a_document_as_well(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    stack.text = "b"
    ours, its = os.openpty()
    with open(its, closefd=True) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(ours, b"n\n")
        code, out, _ = typed(command, "gpu_pod", *(["local-smoke"] if command == "up" else []), "--json")
    os.close(ours)
    document = json.loads(out)
    assert (code, document["stack"], document["done"]) == (0, "gpu_pod", False)
    assert stack.ledger() == ["create a"]


@real
def test_the_end_of_what_is_typed_is_a_no_on_a_line_of_its_own(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, its = os.openpty()
    with open(its, closefd=True) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        os.write(ours, b"\x04")
        code, _, err = typed("up", "gpu_pod", "local-smoke")
    os.close(ours)
    assert code == 0
    assert err.splitlines()[-2:] == ["do this? [y/N] ", "nothing was changed"]


@real
@pytest.mark.parametrize("why", ["signal", "failure"])
def test_whoever_stops_waiting_is_told_what_bills(stack: Things, typed: Callable[..., Ended], why: str) -> None:
    async def stopped() -> None:
        if why == "failure":
            raise HostCommandFailed("ssh-keygen is not there")
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

    stack.waits = stopped
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == (130 if why == "signal" else 5)
    told = " ".join(err.split())
    ways = "recipe stack up gpu_pod local-smoke goes on, recipe stack destroy gpu_pod ends it"
    assert f"thing a at $3.61/h is there; {ways}" in told
    assert "running step" not in err, "none is"


@real
@pytest.mark.parametrize("other", ["", "b"], ids=["still ours", "another's by now"])
def test_an_update_gives_up_what_it_made_itself(stack: Things, typed: Callable[..., Ended], other: str) -> None:
    async def unusable() -> None:
        if other:
            whole = json.loads(stack.state().read_text())
            (its,) = [one for one in whole["checkpoint"]["latest"]["resources"] if one["type"].endswith(":Stack")]
            its["outputs"]["text"] = other
            stack.state().write_text(json.dumps(whole))
        raise Unusable("it cannot be reached")

    stack.waits, stack.proofs = unusable, ["asked for itself"]
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 4
    assert "it cannot be reached; it was let go: asked for itself" in err
    assert ("somebody else has changed stack gpu_pod meanwhile, which holds thing b at $3.61/h" in err) is bool(other)
    assert stack.ledger() == (["create a"] if other else ["create a", "delete a"])
    assert stack.ended_alone == (["a"] if other else [])


@real
def test_a_failure_is_what_it_is_and_what_stays_is_told(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.does = "fail:NoCapacity"
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 4
    assert err.splitlines()[-2:] == ["error: no more of it for ***", "next:  try another"]
    assert stack.failed == [[]]

    stack.does, stack.remains = "fail:Unsettled", "thing ? at $3.61/h"
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 9, "nobody knows whether it is there"
    assert "error: no more of it for ***; thing ? at $3.61/h may bill" in err
    assert (
        "next:  recipe stack up gpu_pod local-smoke goes on, recipe stack destroy gpu_pod ends it; try another" in err
    )

    async def broken(*_: object) -> list[str]:
        raise OSError("disk full")

    monkeypatch.setattr(stack, "after_failure", broken)
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 4
    assert "nobody could see what it has left: disk full" in err
    assert "error: no more of it for ***" in err, "what comes after it hides no error"


def interrupted_in(step: str, number: signal.Signals, stack: Things, typed: Callable[..., Ended], *words: str) -> Ended:
    """A command that a signal meets in the middle of this step, which ends once the signal has been heard."""
    gate = stack.at / "gate"
    gate.touch()
    said: Any = sys.stderr  # as capsys has put it there

    def interrupt() -> None:
        try:
            eventually(lambda: step in stack.ledger())
            os.kill(os.getpid(), number)
            eventually(lambda: "stops after the running step" in said.getvalue())
        finally:
            gate.unlink()

    other = threading.Thread(target=interrupt)
    other.start()
    ended = typed(*words)
    other.join()
    return ended


@real
def test_a_signal_lets_the_step_end_and_says_what_bills(stack: Things, typed: Callable[..., Ended]) -> None:
    code, _, err = interrupted_in("create a", signal.SIGTERM, stack, typed, "up", "gpu_pod", "local-smoke", "--yes")
    assert code == 130
    assert "stops after the running step" in err
    assert "a exists, and bills" in err
    assert "error: interrupted by SIGTERM before it was done" in err
    assert [one["name"] for one in stack.failed[0]] == ["a"]
    assert typed("up", "gpu_pod", "local-smoke", "--yes")[0] == 0
    assert stack.ledger() == ["create a"], "what the interrupted update made is gone on with"


@real
def test_whoever_stops_a_destroy_is_told_what_may_bill(stack: Things, typed: Callable[..., Ended]) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    code, _, err = interrupted_in("delete a", signal.SIGINT, stack, typed, "destroy", "gpu_pod", "--yes")
    assert code == 9
    assert err.splitlines()[-2:] == [
        "error: NOT PROVEN GONE: thing a at $3.61/h: interrupted before it was done",
        "next:  recipe stack destroy gpu_pod goes on",
    ]


@real
def test_what_somebody_else_has_destroyed_meanwhile_is_proven_gone(stack: Things, typed: Callable[..., Ended]) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    stack.meanwhile, stack.proofs = lambda: stack.state().unlink(missing_ok=True), ["asked for itself"]
    code, out, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 0, err
    assert out.splitlines()[-1] == "gone   asked for itself"


@real
def test_a_stack_whose_passphrase_is_lost_is_ended_without_pulumi_and_forgotten(
    stack: Things, typed: Callable[..., Ended]
) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    (stack.at / "home" / "pulumi" / "passphrase").write_text("another")
    code, _, err = typed("up", "gpu_pod")
    assert code == 2
    assert "without it recipe stack destroy gpu_pod ends what it holds, and forgets the stack" in err
    code, out, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9, "nobody has proven it"
    assert "ends      thing a at $3.61/h" in out
    assert "NOT PROVEN GONE: thing a at $3.61/h: stack gpu_pod was encrypted with another passphrase" in err
    stack.proofs = ["asked for itself"]
    code, out, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 0, err
    assert out.splitlines()[-1] == "gone   asked for itself"
    assert typed("list")[1].splitlines()[0] == "no stacks yet"


@real
def test_a_stack_that_cannot_be_forgotten_hides_neither_a_proof_nor_an_error(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def locked(*_: object, **__: object) -> None:
        raise StackFailed("it is locked")

    monkeypatch.setattr(Managed, "remove", locked)
    code, _, err = typed("up", "gpu_pod", "local-smoke")
    assert code == 2
    assert "the empty stack gpu_pod stays: it is locked" in err
    assert "nothing was changed: nobody can be asked here" in err
    typed("up", "gpu_pod", "local-smoke", "--yes")
    code, out, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 0
    assert out.splitlines()[-1] == "gone   looked for twice"
    assert "the stack stays, and holds nothing that bills: it is locked" in err


@real
def test_what_is_not_proven_gone_is_told_with_its_price(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    (stack.at / "gate").touch()
    monkeypatch.setattr(runners.cli.stack_destroy, "PATIENCE_S", 1.0)
    code, _, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9
    assert "NOT PROVEN GONE: thing a at $3.61/h" in err
    assert "next:  recipe stack destroy gpu_pod, again" in err
    (stack.at / "gate").unlink()

    async def still_there(*_: object) -> list[str]:
        raise MayStillBillError("volume x is still there", advice="recipe stack destroy gpu_pod")

    monkeypatch.setattr(runners.cli.stack_destroy, "PATIENCE_S", 600.0)
    monkeypatch.setattr(stack, "after_destroy", still_there)
    code, _, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9
    assert "volume x is still there" in err
    assert typed("list")[1].splitlines()[0].startswith("gpu_pod"), "it is forgotten only with the proof"


@real
def test_a_state_that_cannot_be_read_hides_nothing_that_bills(stack: Things, typed: Callable[..., Ended]) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    state = stack.state()
    whole = state.read_text()
    without = json.loads(whole)
    resources = without["checkpoint"]["latest"]["resources"]
    resources[:] = [one for one in resources if not one["type"].endswith(":Thing")]
    state.write_text(json.dumps(without))
    assert typed("list")[1].startswith("gpu_pod   bills nothing: what it put out is gone"), "as after a failed update"
    state.write_text(whole[:300])
    code, _, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9
    assert "NOT PROVEN GONE: thing a at $3.61/h" in err
    stack.proofs = ["asked for itself"]
    code, out, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 0, err
    assert out.splitlines()[-1] == "gone   asked for itself"
    assert "the stack itself stays: pulumi stack output of gpu_pod" in err
    assert typed("destroy", "gpu_pod", "--yes")[0] == 4, "nothing of it is known to bill any more"
    state.write_text(whole)
    assert typed("destroy", "gpu_pod", "--yes")[0] == 0


@real
def test_what_a_backend_of_several_held_when_it_was_last_seen_is_not_all_of_it(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    (stack.at / "team").mkdir()
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{stack.at / 'team'}")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "theirs")
    typed("up", "gpu_pod", "local-smoke", "--yes")
    (state,) = (stack.at / "team").rglob("stacks/**/main.json")
    whole = state.read_text()
    state.write_text(whole[:300])
    stack.proofs = ["asked for itself"]
    for _ in range(2):
        code, out, err = typed("destroy", "gpu_pod", "--yes")
        assert code == 4, "somebody else may have made another thing since"
        assert out.splitlines()[-1] == "gone   asked for itself"
        assert "held when it was last seen here is gone; what else it holds nobody can say now: pulumi stack" in err
        assert err.splitlines()[-1] == "next:  recipe stack destroy gpu_pod, again"
    state.write_text(whole)
    assert typed("destroy", "gpu_pod", "--yes")[0] == 0


@real
def test_a_cache_that_nobody_can_read_is_forgotten_only_where_no_volume_is_its(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.does = "fail:NoCapacity"
    typed("up", "model_cache", "local-smoke", "--yes")
    (stack.at / "home" / "pulumi" / "passphrase").write_text("another")
    volume = StoredVolume(id="v1", name="recipe-cache-main-20261122-002055-5a64", size_gb=10, region="EU-RO-1")
    found = [
        CacheVolume(
            volume=volume, provisioner="runpod", usd_per_month=0.7, state="unfinished", ref=StackRef("model_cache")
        )
    ]

    async def volumes_there(site: object) -> tuple[list[CacheVolume], None]:
        return found, None

    monkeypatch.setattr(runners.cli.stack_destroy, "volumes_there", volumes_there)
    code, _, err = typed("destroy", "model_cache", "--yes")
    assert code == 9
    assert "NOT PROVEN GONE: volume v1, 10 GB in EU-RO-1, $0.70/month: stack model_cache was encrypted with" in err
    assert "or delete it at its provider: recipe stack destroy model_cache then forgets the stack" in err
    found.clear()
    assert typed("destroy", "model_cache", "--yes")[0] == 0
    assert typed("list")[1].splitlines()[0] == "no stacks yet"


@real
def test_a_stack_that_is_not_there(stack: Things, typed: Callable[..., Ended]) -> None:
    for command in ("destroy", "outputs", "unlock"):
        code, _, err = typed(command, "gpu_pod")
        assert (code, err.splitlines()[0]) == (2, "error: stack gpu_pod does not exist")
    typed("up", "gpu_pod/anna", "local-smoke", "--yes")
    assert "next:  did you mean gpu_pod/anna?" in typed("destroy", "gpu_pod/ana", "--yes")[2]
    assert "next:  there is gpu_pod/anna; " in typed("destroy", "model_cache/anna", "--yes")[2], "of another program"
    code, _, err = typed("up", "gpu_pod")
    assert code == 2
    assert "name a recipe: recipe stack up gpu_pod RECIPE" in err


@real
def test_without_the_engine_what_was_seen_here_is_told(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    code, out, err = typed("list")
    assert (code, out.splitlines()[0]) == (0, "gpu_pod   thing a at $3.61/h")
    assert "as last seen on this machine" in err
    code, out, err = typed("outputs", "gpu_pod")
    assert (code, out) == (0, "thing   a\n")
    assert "as last seen on this machine" in err
    assert "recipe down t1 ends it" in err
    assert "recipe down t1 ends it" in typed("list")[1]
    code, _, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9, "it bills"
    assert err.splitlines()[-2:] == [
        "error: NOT PROVEN GONE: thing a at $3.61/h: Pulumi's engine is not on this machine",
        "next:  recipe down t1 ends it; recipe stack install gets the engine",
    ]
    stack.until = datetime(2026, 1, 1, tzinfo=UTC)
    assert typed("destroy", "gpu_pod", "--yes")[0] == 9, "a deadline is no proof"
    stack.remains = "thing ? at $1.00/h"
    _, _, err = typed("destroy", "gpu_pod", "--yes")
    assert "NOT PROVEN GONE: thing a at $3.61/h and thing ? at $1.00/h: Pulumi's engine" in err
    assert "next:  recipe down t1 ends it; recipe ps shows thing ? at $1.00/h, and recipe down RUN ends it" in err


@real
def test_a_lock_of_another_machine_is_lifted_when_somebody_says_so(
    stack: Things, typed: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed("up", "gpu_pod", "local-smoke", "--yes")
    monkeypatch.setenv("ENGINE_DOUBLE_DIE", "before-update")
    stack.text = "b"
    assert typed("up", "gpu_pod", "local-smoke", "--yes")[0] == 4
    monkeypatch.delenv("ENGINE_DOUBLE_DIE")
    (lock,) = (stack.at / "home" / "pulumi" / "state").rglob("locks/**/*.json")
    held = json.loads(lock.read_text())
    lock.write_text(json.dumps({**held, "hostname": "elsewhere"}))
    code, _, err = typed("up", "gpu_pod", "local-smoke", "--yes")
    assert code == 4
    assert "gpu_pod is being changed by" in err
    assert "recipe stack unlock gpu_pod" in err
    assert len(stack.failed) == 1, "whoever began nothing ends nothing"
    stack.remains = "thing ? at $1.00/h"
    code, _, err = typed("destroy", "gpu_pod", "--yes")
    assert code == 9
    assert "NOT PROVEN GONE: thing a at $3.61/h and thing ? at $1.00/h: stack gpu_pod is being changed by" in err
    stack.remains = ""
    assert typed("unlock", "gpu_pod")[0] == 2, "not unasked"
    assert typed("unlock", "gpu_pod", "--yes")[0] == 0
    assert typed("up", "gpu_pod", "local-smoke", "--yes")[0] == 0


def plainly(recipe: Command, *words: str) -> subprocess.CompletedProcess[str]:
    """Where there is no engine."""
    return recipe("stack", *words, env={"PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize(
    "words", [("list",), ("up", "gpu_pod", "local-smoke"), ("outputs", "model_cache"), ("destroy", "gpu_pod")]
)
def test_without_an_engine_there_is_one_sentence(recipe: Command, words: tuple[str, ...]) -> None:
    ended = plainly(recipe, *words)
    assert ended.returncode == 4
    assert ended.stderr.splitlines() == ["error: Pulumi's engine is not on this machine", WAY_OUT]


def test_volumes_are_told_where_no_stack_can_be_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = StoredVolume(id="v1", name="recipe-cache-main-20261122-002055-5a64", size_gb=10, region="EU-RO-1")
    why = "Pulumi's engine is not on this machine"
    ref = StackRef("model_cache")
    one = CacheVolume(volume=volume, provisioner="runpod", usd_per_month=0.7, state="unknown", ref=ref, why=why)

    async def volumes_there(site: object) -> tuple[list[CacheVolume], None]:
        return [one], None

    monkeypatch.setattr(runners.cli.loose_volumes, "volumes_there", volumes_there)
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run_command("stack", ["list"]) == 4
    written = capsys.readouterr()
    assert written.out.startswith("volume   v1, 10 GB in EU-RO-1, $0.70/month")
    assert written.err.splitlines() == [f"error: {why}", WAY_OUT]
    assert run_command("stack", ["list", "--json"]) == 4
    told = json.loads(capsys.readouterr().out)
    assert (told["stacks"], [row["id"] for row in told["volumes"]]) == (None, ["v1"])
    assert told["error"]["message"] == why


def test_install_without_a_network_says_so(recipe: Command) -> None:
    nowhere = {"PATH": "/usr/bin:/bin", "https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
    ended = recipe("stack", "install", env=nowhere)
    assert ended.returncode == 4
    what, way_out = ended.stderr.splitlines()
    assert what.startswith("error: Pulumi's engine ")
    assert "get.pulumi.com did not answer" in what
    assert way_out.endswith("provisioner: runpod needs none of it")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("up", "model_cach", "local-smoke"), "did you mean model_cache?"),
        (("up", "gpu_pod/a b", "local-smoke"), "'a b' is no name of a stack"),
        (("up", "model_cache", "local-smoke", "--size", "20QB"), "20QB: not a size"),
        (("up", "model_cache", "local-smoke", "--size", "0GB"), "no volume is that small"),
        (("destory", "gpu_pod"), "did you mean destroy?"),
        (("up", "gpu_pod", "local-smoke", "--fil"), "did you mean --fill?"),
        (("up",), "the following arguments are required: STACK\n"),
    ],
)
def test_wrong_words(recipe: Command, words: tuple[str, ...], told: str) -> None:
    ended = plainly(recipe, *words)
    assert ended.returncode == 2
    assert told in ended.stderr


def test_the_command_alone_shows_its_help(recipe: Command) -> None:
    ended = plainly(recipe)
    assert ended.returncode == 2
    assert "recipe stack up model_cache RECIPE" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert plainly(recipe, "up", "--help").returncode == 0


def test_stacks_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_HOME", str(tmp_path))
    kept.keep(site_of({"RECIPE_HOME": str(tmp_path)}), StackRef("gpu_pod", "ana"), {"a": 1})
    assert complete_stacks("") == ["gpu_pod", "gpu_pod/ana", "model_cache"]
    assert complete_stacks("mod") == ["model_cache"]


def test_the_doctor_asks_for_the_passphrase_of_a_backend(tmp_path: Path, pulumi_engine: dict[str, str]) -> None:
    env = {"RECIPE_HOME": str(tmp_path / "home"), "PATH": pulumi_engine["PATH"]}
    (ours,) = [check for check in examine(site_of(env)) if check.name == "pulumi"]
    assert ours.state == "ok"
    (check,) = [one for one in examine(site_of({**env, "PULUMI_BACKEND_URL": "s3://team"})) if one.name == "pulumi"]
    assert check.state == "missing"
    assert "PULUMI_CONFIG_PASSPHRASE" in check.mend
    assert not (tmp_path / "home").exists(), "a look makes nothing"


def test_every_program_has_its_side_here() -> None:
    wanted = [name for name in vars(programs.StackProgram) if not name.startswith("_")]
    for program in ("gpu_pod", "model_cache"):
        module = programs.program_of(StackRef(program))
        assert [name for name in wanted if not callable(getattr(module, name, None))] == []


def test_nothing_is_kept_of_another_backend(tmp_path: Path) -> None:
    ours = site_of({"RECIPE_HOME": str(tmp_path)})
    theirs = site_of(
        {"RECIPE_HOME": str(tmp_path), "PULUMI_BACKEND_URL": "s3://them?region=x", "PULUMI_CONFIG_PASSPHRASE": "x"}
    )
    ref = StackRef("gpu_pod")
    kept.keep(ours, ref, {"a": 1}, {"text": "b"})
    found = kept.kept(ours, ref)
    assert found is not None
    assert (found.values, found.inputs) == ({"a": 1}, {"text": "b"})
    assert kept.kept(theirs, ref) is None
    kept.forget(ours, ref)
    assert kept.kept(ours, ref) is None
