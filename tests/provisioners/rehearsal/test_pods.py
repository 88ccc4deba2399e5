"""Pods that really run: logging in, the start command, what a container keeps to itself, and its end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest

from provisioners.rehearsal import sshd
from tests.provisioners.rehearsal.using import Api, eventually, isolated_only, rehearse

pytestmark = pytest.mark.real

KINDS = [pytest.param(True, marks=isolated_only, id="isolated"), pytest.param(False, id="plain")]


@pytest.mark.parametrize("isolated", KINDS)
def test_a_pod_from_its_creation_to_its_end(tmp_path: Path, isolated: bool) -> None:
    async def use(api: Api) -> None:
        pod = await api.create(args="""sh -c 'echo "pod $RUNPOD_POD_ID"; echo hello > started; sleep 1000 & wait'""")
        assert pod["status"] == "PROVISIONING"
        await api.until(pod["id"], lambda pod: pod["status"] == "RUNNING")
        await eventually(lambda: _can_log_in(api, pod["id"]))
        code, said = await api.ssh(pod["id"], "cat /started 2>/dev/null || cat ~/started; echo ${RUNPOD_API_KEY:-none}")
        assert (code, said.split()) == (0, ["hello", "none"])
        assert f"pod {pod['id']}" in [line.line for line in api.emulator.pods[pod["id"]].lines]
        (entry,) = api.emulator.ledger.billing()
        assert (entry.id, entry.price_usd_per_h, entry.ended_by) == (pod["id"], 0.44, None)

        processes = api.emulator.pods[pod["id"]].processes()
        assert "sleep" in processes.values()
        assert await api("DELETE", f"/pods/{pod['id']}") == (204, "")
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []
        assert api.emulator.ledger.billing() == []
        assert (await api("GET", f"/pods/{pod['id']}"))[0] == 404
        assert await api.listed() == []
        (entry,) = api.emulator.ledger.entries()
        assert (entry.gone, entry.ended_by) == (True, "account: DELETE")

    rehearse(tmp_path, use, isolated=isolated)


async def _can_log_in(api: Api, pod_id: str) -> bool:
    return (await api.ssh(pod_id, "true"))[0] == 0


@pytest.mark.parametrize("isolated", KINDS)
def test_what_left_the_session_and_ignores_signals_dies_with_the_pod(tmp_path: Path, isolated: bool) -> None:
    stubborn = "trap '' TERM HUP INT; while :; do sleep 1; done"

    async def use(api: Api) -> None:
        pod_id = await api.running(args=f'sh -c "setsid sh -c \\"{stubborn}\\" & exec sleep 1000"')
        await api.ssh(pod_id, f'setsid -f sh -c "{stubborn}" >/dev/null 2>&1 </dev/null')

        async def both() -> dict[int, str] | None:
            found = api.emulator.pods[pod_id].processes()
            return found if list(found.values()).count("sh") == 2 else None

        processes = await eventually(both)
        assert (await api("POST", f"/pods/{pod_id}/action", {"action": "terminate"}))[0] == 204
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []

    rehearse(tmp_path, use, isolated=isolated)


@pytest.mark.parametrize("isolated", KINDS)
def test_a_container_whose_command_ends_is_started_again_whole(tmp_path: Path, isolated: bool) -> None:
    async def use(api: Api) -> None:
        pod_id = await api.running(
            args="sh -c 'echo run >> ~/runs; while ! test -e ~/end; do sleep 0.05; done; rm ~/end'"
        )
        await api.ssh(pod_id, "setsid -f sleep 999 >/dev/null 2>&1 </dev/null; touch ~/end")
        left = [pid for pid, name in api.emulator.pods[pod_id].processes().items() if name == "sleep"]
        await eventually(lambda: _runs(api, pod_id, 2))
        assert not [pid for pid in left if Path(f"/proc/{pid}/cmdline").exists() and "999" in _command(pid)]
        assert (await api.pod(pod_id))["status"] == "RUNNING"

    rehearse(tmp_path, use, isolated=isolated)


async def _runs(api: Api, pod_id: str, times: int) -> bool:
    code, said = await api.ssh(pod_id, "cat ~/runs")
    return code == 0 and said.split() == ["run"] * times


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_a_command_that_there_is_not_is_told_and_tried_again(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create(args="no-such-program --flag")

        async def told() -> bool:
            lines = [line.line for line in api.emulator.pods[pod["id"]].lines]
            return sum("exec: no-such-program: No such file" in line for line in lines) >= 2

        await eventually(told)

    rehearse(tmp_path, use)


@isolated_only
def test_an_isolated_pod_leaves_nothing_on_the_machine(tmp_path: Path) -> None:
    volume = f"/rehearsal-{os.getpid()}"

    async def use(api: Api) -> None:
        mounts = {"persistent": {"size": 10, "path": volume}}
        pod_id = await api.running(mounts=mounts, args="sh -c 'echo 1 > /tmp/mine; exec sleep 1000'")
        report = (
            f"touch /etc/left-by-pod /usr/left-by-pod {volume}/kept ~/left-by-pod && cat /tmp/mine && "
            f"python3 -c 'import os; print(os.path.ismount(\"{volume}\"))' && "
            "tr '\\0' '\\n' < /proc/1/environ && ls /start.sh"
        )
        code, said = await api.ssh(pod_id, report)
        assert code == 0, said
        assert said.split()[:2] == ["1", "True"]
        assert f"RUNPOD_POD_ID={pod_id}" in said.split()
        assert f"RUNPOD_API_KEY={api.emulator.pods[pod_id].key}" in said.split()
        assert (api.emulator.pods[pod_id].dir / "volume" / "kept").exists()

    rehearse(tmp_path, use)
    left = [Path(volume), Path("/etc/left-by-pod"), Path("/usr/left-by-pod"), Path.home() / "left-by-pod"]
    assert [path for path in left if path.exists()] == []


@isolated_only
@pytest.mark.parametrize("path", ["/srv/models/deep", "/home/someone/data"])
def test_a_volume_can_be_anywhere(tmp_path: Path, path: str) -> None:
    async def use(api: Api) -> None:
        status, volume = await api("POST", "/network-volumes", {"name": "v", "size": 20, "dataCenter": "EU-RO-1"})
        assert status == 201
        mounts = {"network": [{"volumeId": volume["id"], "path": path}]}
        first = await api.running(mounts=mounts)
        assert (await api.pod(first))["dataCenterId"] == "EU-RO-1"
        assert await api.ssh(first, f"echo kept > {path}/file") == (0, "")
        assert (await api("DELETE", f"/network-volumes/{volume['id']}"))[0] == 400
        await api("DELETE", f"/pods/{first}")
        second = await api.running(mounts=mounts)
        assert await api.ssh(second, f"cat {path}/file") == (0, "kept\n")

    rehearse(tmp_path, use)
    assert not Path(path).exists()


def test_what_the_image_brings_comes_first(tmp_path: Path) -> None:
    image = tmp_path / "image" / "bin"
    image.mkdir(parents=True)
    (image / "engine").write_text("#!/bin/sh\necho engine of the image\n")
    (image / "engine").chmod(0o755)

    async def use(api: Api) -> None:
        pod_id = await api.running(args="sh -c 'engine; exec sleep 1000'")
        assert "engine of the image" in [line.line for line in api.emulator.pods[pod_id].lines]
        assert await api.ssh(pod_id, "engine") == (0, "engine of the image\n")

    rehearse(tmp_path, use, image_path=image)


def test_stopping_starting_restarting(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        mounts = {"persistent": {"size": 10, "path": "/workspace"}}
        pod_id = await api.running(mounts=mounts)
        assert (await api("POST", f"/pods/{pod_id}/action", {"action": "start"}))[0] == 409
        before = (await api.pod(pod_id))["ssh"]["direct"]["port"]
        await api.ssh(pod_id, "touch ~/lost")

        status, pod = await api("POST", f"/pods/{pod_id}/action", {"action": "stop"})
        assert (status, pod["status"], pod["cost"], pod["ssh"]["direct"]) == (200, "EXITED", 0.0, None)
        assert pod["actions"] == ["start", "terminate"]
        assert api.emulator.pods[pod_id].processes() == {}
        (entry,) = api.emulator.ledger.billing()
        assert not entry.gone, "a stopped pod pays for its volume"

        assert (await api("POST", f"/pods/{pod_id}/action", {"action": "start"}))[0] == 200
        pod = await api.until(pod_id, lambda pod: pod["ssh"]["direct"])
        assert pod["ssh"]["direct"]["port"] != before
        await eventually(lambda: _can_log_in(api, pod_id))
        assert await api.ssh(pod_id, "ls ~") == (0, "")

        await api.ssh(pod_id, "touch ~/stays")
        first = api.emulator.pods[pod_id].pid
        assert (await api("POST", f"/pods/{pod_id}/action", {"action": "restart"}))[0] == 200
        await eventually(lambda: _led_by_another(api, pod_id, first))
        await eventually(lambda: _can_log_in(api, pod_id))
        assert await api.ssh(pod_id, "ls ~") == (0, "stays\n")

    rehearse(tmp_path, use)


async def _led_by_another(api: Api, pod_id: str, first: int | None) -> bool:
    return api.emulator.pods[pod_id].pid not in (None, first)


@pytest.mark.parametrize("keep", [True, False])
def test_disks_are_kept_only_if_that_is_asked_for(tmp_path: Path, keep: bool) -> None:
    async def use(api: Api) -> None:
        await api.running(name="let go by the client", args="sh -c 'echo said; touch ~/mine; exec sleep 1000'")
        await api.running(name="let go by the emulator")
        await api("DELETE", f"/pods/{(await api.listed())[0]}")

    emulator = rehearse(tmp_path, use, keep_disks=keep)
    assert [pod.dir.exists() for pod in emulator.pods.values()] == [keep, keep]
    first = next(iter(emulator.pods.values()))
    assert (first.dir / "home" / "mine").exists() == keep
    assert "container said" in (tmp_path / "emulator" / "logs" / f"{first.id}.log").read_text()


def test_twenty_pods_at_once(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        ids = await asyncio.gather(*(api.running(name=f"pod-{n}") for n in range(20)))
        assert len(api.emulator.ledger.billing()) == 20
        said = await asyncio.gather(*(api.ssh(pod_id, "echo here") for pod_id in ids))
        assert said == [(0, "here\n")] * 20
        await asyncio.gather(*(api("DELETE", f"/pods/{pod_id}") for pod_id in ids))
        assert api.emulator.ledger.billing() == []
        entries = api.emulator.ledger.entries()
        assert {entry.name for entry in entries} == {f"pod-{n}" for n in range(20)}
        assert all(entry.gone and entry.usd > 0 for entry in entries)

    rehearse(tmp_path, use)


def test_pods_that_are_ended_while_they_begin(tmp_path: Path) -> None:
    """At every moment of the first tenths of a second, and by several at once."""

    async def use(api: Api) -> None:
        async def short_life(number: int) -> None:
            pod = await api.create(name=f"short-{number}")
            await asyncio.sleep(number * 0.006)
            ways = [api("DELETE", f"/pods/{pod['id']}"), api("POST", f"//rehearsal/pods/{pod['id']}/preempt")]
            answers = await asyncio.gather(*ways, api("POST", f"/pods/{pod['id']}/action", {"action": "terminate"}))
            assert {status for status, _ in answers} <= {204, 404}

        await asyncio.gather(*(short_life(number) for number in range(40)))
        assert api.emulator.ledger.billing() == []
        assert await api.listed() == []
        mine = [child for child in psutil.Process().children() if "container" in " ".join(child.cmdline())]
        assert mine == []

    rehearse(tmp_path, use)


def test_pods_that_start_at_once_have_ports_of_their_own() -> None:
    given = [sshd.free_port() for _ in range(500)]  # none of them listens yet
    assert len(set(given)) == len(given)
