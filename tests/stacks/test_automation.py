"""Stacks through the real Automation API and the real provider process, over the engine double."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import socket
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from provisioners.contract import Site
from provisioners.site import site_of
from recipes.errors import ExitCode, MayStillBillError, NoCapacity, RecipeError, Unsettled
from stacks.automation import Managed, stacks
from stacks.backend import key_of
from stacks.log import log_of
from stacks.values import Changes, NoSuchStack, Secret, StackBusy, StackFailed
from tests.conftest import eventually
from tests.stacks.things import SECRET, program

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:Error in event stream"),  # of the SDK, where an engine ends early
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # of its programs, then
]
PROJECT = "recipe-gpu-pod"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(pulumi_engine: dict[str, str], tmp_path: Path) -> Site:
    own = {k: v for k, v in pulumi_engine.items() if k not in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE")}
    return site_of({**own, "RECIPE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT), "RUNPOD_API_KEY": SECRET})


async def opened(site: Site, run: Callable[[], None] | None, name: str = "main") -> Managed:
    return await Managed.open(site, PROJECT, name, run, create=True)


def ledger(at: Path) -> list[str]:
    """What the resource was asked, without the processes."""
    found = (at / "ledger").read_text().splitlines() if (at / "ledger").exists() else []
    return [line.rpartition(" ")[0] for line in found]


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(120):
        while not holds():
            await asyncio.sleep(0.01)


def asked_to_stop(site: Site) -> bool:
    return "^C received; cancelling." in log_of(site, PROJECT, "main").read_text()


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def ops(changes: Changes) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(step.op, step.type, step.changed) for step in changes.steps]


def test_a_stack_from_its_beginning_to_its_end(site: Site, tmp_path: Path) -> None:
    heard: list[str] = []

    async def life() -> None:
        managed = await opened(site, program(tmp_path, "a", "say:asks for it"))
        assert managed.fresh
        assert ops(await managed.preview()) == [("create", "Thing", ())]
        assert ledger(tmp_path) == []
        outputs = await managed.up(heard.append)
        assert outputs["text"] == "a"
        assert outputs["sizes"] == {"gb": 200}
        assert outputs["token"] == Secret(SECRET)
        assert SECRET not in repr(outputs)
        assert managed.report.created == [{"name": "a", "id": "1"}]

        managed = await opened(site, program(tmp_path, "a", "say:asks for it"))
        assert not managed.fresh
        assert not (await managed.preview()).any
        managed = await opened(site, program(tmp_path, "b", "say:asks for it"))
        assert ops(await managed.preview()) == [("update", "Thing", ("text",))]
        assert (await managed.up())["text"] == "b"
        managed = await opened(site, program(tmp_path, "new", "say:asks for it"))
        assert ops(await managed.preview()) == [("replace", "Thing", ("text",))]
        await managed.up()
        (listed,) = await stacks(site)
        assert (listed.project, listed.name, listed.busy) == (PROJECT, "main", None)
        assert listed.updated_at is not None

        managed = await Managed.open(site, PROJECT, "main", create=False)
        assert ops(await managed.preview_destroy()) == [("delete", "Thing", ())]
        await managed.destroy(patience_s=60)
        assert managed.report.proofs == ["looked for twice"]
        await managed.remove()
        assert await stacks(site) == []

    asyncio.run(life())
    assert ledger(tmp_path) == ["create a", "update b", "delete b", "create new", "delete new"]
    assert "asks for it" in heard
    assert any(line.startswith("made Thing thing in") for line in heard)
    assert not log_of(site, PROJECT, "main").exists(), "what is gone leaves no log"
    assert list((site.home / "pulumi" / "reports").iterdir()) == []


def test_no_secret_stays_anywhere(site: Site, tmp_path: Path) -> None:
    asyncio.run(_up(site, program(tmp_path, "a", "say:asks for it")))
    with pytest.raises(StackFailed) as broken:
        asyncio.run(_up(site, program(tmp_path, "new one", "break")))
    assert SECRET not in str(broken.value)
    files = [path for path in site.home.rglob("*") if path.is_file()]
    assert any(path.name == "main.json" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert (site.home / "pulumi").stat().st_mode & 0o777 == 0o700
    assert (site.home / "pulumi" / "passphrase").stat().st_mode & 0o777 == 0o600


def test_a_secret_that_only_the_stack_knows_stays_nowhere(site: Site, tmp_path: Path) -> None:
    unaware = site_of({name: value for name, value in site.env.items() if name != "RUNPOD_API_KEY"})
    outputs = asyncio.run(_up(unaware, program(tmp_path)))
    assert outputs["token"] == Secret(SECRET)
    files = [path for path in site.home.rglob("*") if path.is_file()]
    assert log_of(site, PROJECT, "main") in files
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


async def _up(site: Site, run: Callable[[], None], name: str = "main") -> dict[str, object]:
    managed = await opened(site, run, name)
    return dict(await managed.up())


@pytest.mark.parametrize("kind", [NoCapacity, Unsettled, MayStillBillError])
def test_what_a_provider_reports_is_raised_as_what_it_is(site: Site, tmp_path: Path, kind: type[RecipeError]) -> None:
    with pytest.raises(kind) as failed:
        asyncio.run(_up(site, program(tmp_path, "a", f"fail:{kind.__name__}")))
    assert type(failed.value) is kind
    assert failed.value.message == "no more of it for ***"
    assert failed.value.advice == "try another"


def test_what_nobody_reports_is_the_last_line_that_was_said(site: Site, tmp_path: Path) -> None:
    with pytest.raises(StackFailed) as failed:
        asyncio.run(_up(site, program(tmp_path, "a", "break")))
    assert failed.value.exit_code == ExitCode.NO_MACHINE
    assert "broken ***" in failed.value.message
    log = log_of(site, PROJECT, "main")
    assert str(log) in failed.value.advice
    assert "pulumi up" in log.read_text()


def test_a_program_that_fails_says_why(site: Site) -> None:
    def run() -> None:
        raise ValueError("no such recipe")

    with pytest.raises(StackFailed, match="no such recipe"):
        asyncio.run(_up(site, run))


def test_a_stack_that_is_not_there(site: Site) -> None:
    with pytest.raises(NoSuchStack, match="gpu_pod"):
        asyncio.run(Managed.open(site, PROJECT, "main", create=False))


def test_whoever_only_looked_takes_no_stack_away_from_an_update(site: Site, tmp_path: Path) -> None:
    """A preview makes an empty stack where there was none, and takes it away with its folder."""

    async def life() -> None:
        looks, makes = await opened(site, program(tmp_path)), await opened(site, program(tmp_path))
        assert (looks.fresh, makes.fresh) == (True, False)
        await looks.remove()
        assert (await makes.up())["text"] == "a"
        again = await opened(site, program(tmp_path, "b"))
        await again.remove(force=True)
        assert ops(await again.preview()) == [("create", "Thing", ())]

    asyncio.run(life())
    assert ledger(tmp_path) == ["create a"]


def test_who_is_asked_to_stop_finishes_its_step_and_writes_it_down(site: Site, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()

    async def life() -> None:
        managed = await opened(site, program(tmp_path))
        working = asyncio.ensure_future(managed.up())
        await until(lambda: ledger(tmp_path) == ["create a"])
        working.cancel()
        await until(lambda: asked_to_stop(site))
        assert not working.done(), "it waits for the engine's last word"
        (tmp_path / "gate").unlink()
        with pytest.raises(asyncio.CancelledError):
            await working
        assert managed.report.created == [{"name": "a", "id": "1"}]
        await _up(site, program(tmp_path))

    asyncio.run(life())
    assert ledger(tmp_path) == ["create a"], "what was made is in the state, and is not made again"


def test_who_is_asked_twice_stops_at_once_and_leaves_no_process(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gate").touch()

    async def life() -> None:
        managed = await opened(site, program(tmp_path))
        working = asyncio.ensure_future(managed.up())
        await until(lambda: ledger(tmp_path) == ["create a"])
        working.cancel()
        await until(lambda: asked_to_stop(site))
        working.cancel()
        async with asyncio.timeout(120):
            with pytest.raises(asyncio.CancelledError):
                await working

    monkeypatch.setitem(Managed._steps.__kwdefaults__, "last_word_s", 600.0)
    asyncio.run(life())
    provider = int((tmp_path / "ledger").read_text().split()[-1])
    eventually(lambda: has_ended(provider), what="the end of the provider")


def test_patience_ends_a_destroy(site: Site, tmp_path: Path) -> None:
    async def life() -> None:
        managed = await opened(site, program(tmp_path))
        await managed.up()
        (tmp_path / "gate").touch()
        with pytest.raises(StackFailed, match="did not destroy gpu_pod within 1 s"):
            await managed.destroy(patience_s=1)
        (tmp_path / "gate").unlink()
        await managed.destroy(patience_s=60)

    asyncio.run(life())


def test_the_lock_of_a_process_that_died_is_lifted(site: Site, tmp_path: Path) -> None:
    heard: list[str] = []

    async def life() -> None:
        deadly = site_of({**site.env, "ENGINE_DOUBLE_DIE": "before-create"})
        with pytest.raises(StackFailed, match="ended by signal 9"):
            await _up(deadly, program(tmp_path))
        managed = await opened(site, program(tmp_path))
        assert (await managed.up(heard.append))["text"] == "a"

    asyncio.run(life())
    assert [line for line in heard if line.startswith("lifts the lock of ")]


def test_the_lock_of_whoever_died_while_making_or_removing_the_stack_is_lifted(site: Site, tmp_path: Path) -> None:
    """There is no stack then that could be unlocked."""
    died = subprocess.Popen(["true"])
    died.wait()
    holder = {
        "pid": died.pid,
        "username": getpass.getuser(),
        "hostname": socket.gethostname(),
        "timestamp": datetime.now(UTC).isoformat(),
    }
    lock = site.home / "pulumi/state/.pulumi/locks/organization" / PROJECT / "main" / "left.json"

    async def life() -> None:
        assert await stacks(site) == []
        lock.parent.mkdir(parents=True)
        lock.write_text(json.dumps(holder))
        managed = await opened(site, program(tmp_path))
        lock.write_text(json.dumps(holder))
        await managed.remove()
        assert await stacks(site) == []

    asyncio.run(life())
    assert not lock.exists()


def test_the_lock_of_a_living_process_is_respected(site: Site, tmp_path: Path) -> None:
    (tmp_path / "gate").touch()

    async def life() -> None:
        first = asyncio.ensure_future(_up(site, program(tmp_path)))
        await until(lambda: ledger(tmp_path) == ["create a"])
        with pytest.raises(StackBusy, match=r"gpu_pod is being changed by .*process \d+") as busy:
            await _up(site, program(tmp_path))
        assert busy.value.exit_code == ExitCode.NO_MACHINE
        (tmp_path / "gate").unlink()
        await first

    asyncio.run(life())
    assert ledger(tmp_path) == ["create a"]


def test_several_at_once_in_one_process(site: Site, tmp_path: Path) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        (tmp_path / name).mkdir()

    async def life() -> None:
        made = await asyncio.gather(*(_up(site, program(tmp_path / name, name), name) for name in names))
        assert [outputs["text"] for outputs in made] == names
        assert sorted(one.name for one in await stacks(site)) == sorted(names)

    asyncio.run(life())
    assert [ledger(tmp_path / name) for name in names] == [[f"create {name}"] for name in names]


def test_a_failure_beside_others_is_its_own(site: Site, tmp_path: Path) -> None:
    async def life() -> None:
        good, bad = await asyncio.gather(
            _up(site, program(tmp_path, "a"), "good"),
            _up(site, program(tmp_path, "b", "fail:NoCapacity"), "bad"),
            return_exceptions=True,
        )
        assert isinstance(good, dict)
        assert isinstance(bad, NoCapacity)

    asyncio.run(life())


def test_a_shared_backend_needs_its_passphrase(site: Site, tmp_path: Path) -> None:
    shared = {"PULUMI_BACKEND_URL": f"file://{tmp_path}", "PULUMI_CONFIG_PASSPHRASE": "one that we all know"}
    ours = site_of({**site.env, **shared})
    theirs = site_of({**ours.env, "RECIPE_HOME": str(tmp_path / "elsewhere")})
    others = site_of({**theirs.env, "PULUMI_CONFIG_PASSPHRASE": "another"})

    async def life() -> None:
        await _up(ours, program(tmp_path))
        with pytest.raises(RecipeError, match="another passphrase"):
            await _up(others, program(tmp_path))
        managed = await Managed.open(theirs, PROJECT, "main", create=False)
        assert (await managed.outputs())["token"] == Secret(SECRET)
        await managed.destroy(patience_s=60)

    asyncio.run(life())
    assert ledger(tmp_path) == ["create a", "delete a"]
    assert os.listdir(tmp_path / "elsewhere" / "pulumi" / "work" / key_of(theirs) / PROJECT) == ["main"]
