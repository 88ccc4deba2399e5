"""What goes wrong on demand, seen as a client would see it, and what the ledger says of it."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from provisioners.rehearsal.faults import Faults
from tests.provisioners.rehearsal.using import A40, Api, eventually, isolated_only, knocks, rehearse

pytestmark = pytest.mark.real

NOTHING_MADE: list[tuple[dict[str, Any], int]] = [
    ({"create_500_before": 1}, 500),
    ({"create_no_capacity": 1}, 400),
    ({"no_capacity_gpus": (A40,)}, 400),
    ({"no_capacity_gpus": (f"{A40}@SECURE",)}, 400),
    ({"create_402": 1}, 402),
    ({"forbidden_gpus": (A40,)}, 403),
    ({"create_422": 1}, 422),
    ({"create_429": 1}, 429),
    ({"gone_410": True}, 410),
    ({"html_502": 1}, 502),
    ({"html_502": 1, "html_502_kind": "create"}, 502),
]


def test_faults_are_read_from_json_and_written_to_it() -> None:
    faults = Faults(create_429=2, no_capacity_gpus=("a", "b"), preempt_after_s=3, down_how="503")
    assert Faults.from_json(faults.to_json()) == faults
    for wrong in (
        '{"no_such": 1}',
        '{"create_429": "2"}',
        '{"create_429": true}',
        '{"down_how": "x"}',
        "[]",
        '{"no_capacity_gpus": "a"}',
    ):
        with pytest.raises(ValueError, match=r"no_such|create_429|down_how|object|no_capacity_gpus"):
            Faults.from_json(wrong)


@pytest.mark.parametrize(("faults", "status"), NOTHING_MADE)
def test_creates_that_make_nothing(tmp_path: Path, faults: dict[str, Any], status: int) -> None:
    async def use(api: Api) -> None:
        answered, problem = await api("POST", "/pods", api.order())
        assert answered == status
        assert ("<html>" in problem) == (status == 502)
        assert (api.headers.get("Retry-After") == "1") == (status == 429)
        assert api.emulator.ledger.entries() == []
        counted = all(value == 1 for value in faults.values() if isinstance(value, int) and value is not True)
        if counted and not faults.keys() & {"no_capacity_gpus", "forbidden_gpus", "gone_410"}:
            await api.create()
        api.emulator.inject(**{name: getattr(Faults(), name) for name in faults})
        await api.create()

    rehearse(tmp_path, use, Faults(**faults))


def test_creates_that_make_a_pod_and_do_not_say_so(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        api.emulator.inject(create_500_after=1)
        assert (await api("POST", "/pods", api.order(name="a")))[0] == 500
        api.emulator.inject(create_lost_after=1)
        with pytest.raises(aiohttp.ClientError):
            await api("POST", "/pods", api.order(name="b"))
        api.emulator.inject(create_duplicate=1)
        await api.create(name="c")
        assert [entry.name for entry in api.emulator.ledger.billing()] == ["a", "b", "c", "c"]
        assert len(await api.listed()) == 4

    rehearse(tmp_path, use)


def test_the_price_that_is_billed_is_not_the_catalogues(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create(gpu={"id": "NVIDIA H100 PCIe", "count": 2}, cloud="COMMUNITY")
        assert pod["cost"] == pytest.approx(2 * 1.99 * 1.5)
        assert api.emulator.ledger.entries()[0].price_usd_per_h == pytest.approx(5.97)

    rehearse(tmp_path, use, Faults(cost_factor=1.5))


def test_new_pods_are_unreadable_and_missing_from_lists_for_a_while(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        assert (await api("GET", f"/pods/{pod['id']}"))[0] == 404
        assert await api.listed() == []
        api.emulator.inject(unreadable_s=0.0, list_lag_new_s=0.0)
        assert (await api("GET", f"/pods/{pod['id']}"))[0] == 200
        assert await api.listed() == [pod["id"]]
        api.emulator.inject(unreadable_s=-1.0)
        assert (await api("DELETE", f"/pods/{pod['id']}"))[0] == 404
        assert len(api.emulator.ledger.billing()) == 1
        api.emulator.inject(unreadable_s=0.0)
        api.emulator.inject(list_lag_gone_s=-1.0, terminated_visible_s=-1.0)
        assert (await api("DELETE", f"/pods/{pod['id']}"))[0] == 204
        assert (await api.pod(pod["id"]))["status"] == "TERMINATED"
        assert await api.listed() == [pod["id"]]
        assert api.emulator.ledger.billing() == []

    rehearse(tmp_path, use, Faults(unreadable_s=-1.0, list_lag_new_s=-1.0))


def test_lists_in_pages(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        made = [(await api.create())["id"] for _ in range(5)]
        found: list[str] = []
        cursor: str | None = "0"
        while cursor is not None:
            _, page = await api("GET", f"/pods?cursor={cursor}")
            assert len(page["pods"]) <= 2
            found += [pod["id"] for pod in page["pods"]]
            cursor = page.get("nextCursor")
        assert found == made

    rehearse(tmp_path, use, Faults(page_size=2))


def test_states_that_never_come_or_come_too_soon(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        stuck = await api.create()
        runs = await api.running()
        assert (await api.pod(stuck["id"]))["status"] == "PROVISIONING"
        assert (await api("DELETE", f"/pods/{stuck['id']}"))[0] == 204
        api.emulator.inject(error_after_s=0.0)
        broken = await api.create()
        pod = await api.until(broken["id"], lambda pod: pod["status"] == "ERROR")
        assert pod["actions"] == ["start", "terminate"]
        assert {entry.id for entry in api.emulator.ledger.billing()} == {runs, broken["id"]}

    rehearse(tmp_path, use, Faults(stuck_provisioning=1))


def test_delays_of_the_emulator_pass_faster(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        await api.until(pod["id"], lambda pod: pod["status"] == "STARTING")
        await api.until(pod["id"], lambda pod: pod["status"] == "RUNNING")

    rehearse(tmp_path, use, Faults(provisioning_s=1000, starting_s=1000), time_scale=5000)


def test_ssh_that_is_late_or_elsewhere(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        pod = await api.until(pod["id"], lambda pod: pod["status"] == "RUNNING")
        assert pod["ssh"]["direct"] is None
        assert pod["runtime"]["ports"] == []
        api.emulator.inject(no_direct_s=0.0, stale_port_s=-1.0)
        stale = (await api.pod(pod["id"]))["ssh"]["direct"]["port"]
        assert not await knocks(stale)
        api.emulator.inject(stale_port_s=0.0)
        port = (await api.pod(pod["id"]))["ssh"]["direct"]["port"]
        assert port != stale
        await eventually(lambda: knocks(port))

        api.emulator.inject(sshd_delay_s=-1.0)
        silent = await api.create()
        found = await api.until(silent["id"], lambda pod: pod["ssh"]["direct"])
        assert not await knocks(found["ssh"]["direct"]["port"])
        closed = await api.create(ports=["8000/http"])
        found = await api.until(closed["id"], lambda pod: pod["status"] == "RUNNING")
        assert found["ssh"]["direct"] is None

    rehearse(tmp_path, use, Faults(no_direct_s=-1.0))


def test_another_host_key(tmp_path: Path) -> None:
    known = f"UserKnownHostsFile={tmp_path / 'known_hosts'}"
    strict = ("-o", known, "-o", "StrictHostKeyChecking=yes")

    async def use(api: Api) -> None:
        pod_id = await api.running()
        assert (await api.ssh(pod_id, "true", "-o", known))[0] == 0
        assert (await api.ssh(pod_id, "true", *strict))[0] == 0
        assert (await api("POST", f"//rehearsal/pods/{pod_id}/rekey"))[0] == 204

        async def refused() -> bool:
            code, said = await api.ssh(pod_id, "true", *strict)
            return code == 255 and "HOST IDENTIFICATION HAS CHANGED" in said

        await eventually(refused)
        assert (await api.ssh(pod_id, "true"))[0] == 0

    rehearse(tmp_path, use)


def test_sessions_that_are_cut_and_an_sshd_that_freezes(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod_id = await api.running()
        session = asyncio.create_task(api.ssh(pod_id, "echo on; touch ~/on; sleep 1000"))
        await eventually(lambda: _done(api, pod_id, "test -e ~/on"))
        assert (await api("POST", f"//rehearsal/pods/{pod_id}/cut"))[0] == 204
        assert (await session)[0] == 255
        assert await api.ssh(pod_id, "echo again") == (0, "again\n")

        assert (await api("POST", f"//rehearsal/pods/{pod_id}/freeze"))[0] == 204
        await eventually(lambda: _is_frozen(api, pod_id))
        port = (await api.pod(pod_id))["ssh"]["direct"]["port"]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(api.ssh(pod_id, "true"), 1)
        assert (await api.pod(pod_id))["ssh"]["direct"]["port"] == port
        assert (await api("DELETE", f"/pods/{pod_id}"))[0] == 204

    rehearse(tmp_path, use)


async def _is_frozen(api: Api, pod_id: str) -> bool:
    pids = [pid for pid, name in api.emulator.pods[pod_id].processes().items() if name == "sshd"]
    return bool(pids) and psutil.Process(pids[0]).status() == psutil.STATUS_STOPPED


async def _done(api: Api, pod_id: str, command: str) -> bool:
    return (await api.ssh(pod_id, command))[0] == 0


def test_mishaps_that_are_planned(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod_id = await api.running()
        first = api.emulator.pods[pod_id].pid
        api.emulator.inject(restart_after_s=0.0)
        restarted = await api.create()

        async def twice() -> bool:
            lines = [line.line for line in api.emulator.pods[restarted["id"]].lines]
            return lines.count("start container") == 2

        await eventually(twice)
        assert api.emulator.pods[pod_id].pid == first
        api.emulator.inject(restart_after_s=None, preempt_after_s=0.0)
        taken = await api.create()
        pod = await api.until(taken["id"], lambda pod: pod["status"] == "EXITED")
        assert pod["cost"] == 0.0
        assert (await api("POST", f"//rehearsal/pods/{pod_id}/preempt"))[0] == 204
        assert (await api.pod(pod_id))["status"] == "EXITED"
        api.emulator.inject(preempt_after_s=None, crash_loop=1)
        crashing = await api.create()

        async def again_and_again() -> bool:
            lines = [line.line for line in api.emulator.pods[crashing["id"]].lines]
            return lines.count("this command cannot work") >= 3

        await eventually(again_and_again)
        assert (await api.pod(crashing["id"]))["status"] == "RUNNING"

    rehearse(tmp_path, use)


@isolated_only
def test_a_disk_that_is_full_soon(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod_id = await api.running()
        code, said = await api.ssh(pod_id, "dd if=/dev/zero of=/tmp/big bs=1k count=1000")
        assert code == 1
        assert "No space left on device" in said

    rehearse(tmp_path, use, Faults(disk_kib=200))


def test_terminations_that_do_nothing(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        at = f"/pods/{pod['id']}"
        for fault, status in (("delete_500", 500), ("delete_403", 403), ("delete_404", 404), ("delete_ignored", 204)):
            api.emulator.inject(**{fault: 1})
            assert (await api("DELETE", at))[0] == status
            assert await api.listed() == [pod["id"]]
            assert len(api.emulator.ledger.billing()) == 1
        api.emulator.inject(delete_500=-1)
        for _ in range(3):
            assert (await api("POST", f"{at}/action", {"action": "terminate"}))[0] == 500
        assert (await api.as_pod(pod["id"])("DELETE", at))[0] == 204, "they meet the account's key alone"
        assert api.emulator.ledger.billing() == []
        pod = await api.create()
        api.emulator.inject(delete_500=0, delete_lost=1)
        with suppress(aiohttp.ClientError):
            # The client itself asks again where a connection that it kept was closed.
            assert (await api("DELETE", f"/pods/{pod['id']}"))[0] == 404
        assert api.emulator.ledger.billing() == []

    rehearse(tmp_path, use)


def test_a_pods_own_key_is_refused_on_some_ways(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        own, at = api.as_pod(pod["id"]), f"/pods/{pod['id']}"
        assert (await own("POST", f"{at}/action", {"action": "terminate"}))[0] == 403
        assert (await own("DELETE", at))[0] == 403
        answer = await own.graphql(f'mutation {{ podTerminate(input: {{podId: "{pod["id"]}"}}) }}')
        assert answer == {"data": {"podTerminate": None}}
        assert [entry.ended_by for entry in api.emulator.ledger.entries()] == ["pod: podTerminate"]

    rehearse(tmp_path, use, Faults(pod_key_refused=("action", "delete")))


def test_a_key_that_is_revoked(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        pod = await api.create()
        api.emulator.inject(revoke_key_after_requests=2)
        answers = [(await api("GET", "/pods"))[0] for _ in range(4)]
        assert answers == [200, 200, 401, 401]
        assert (await api("GET", "//rehearsal/ledger"))[0] == 200
        api.emulator.inject(revoke_key_after_requests=None, revoke_key_after_s=0.0)
        assert (await api("GET", "/pods"))[0] == 401
        assert (await api.as_pod(pod["id"])("DELETE", f"/pods/{pod['id']}"))[0] == 204

    rehearse(tmp_path, use)


@pytest.mark.parametrize("how", ["refuse", "503"])
def test_an_outage(tmp_path: Path, how: str) -> None:
    async def use(api: Api) -> None:
        url = api.emulator.url
        api.emulator.inject(down_from_s=0.0, down_for_s=-1.0, down_how=how)
        await eventually(lambda: _is_down(api, how))
        api.emulator.inject(down_from_s=None)
        await eventually(lambda: _answers(api))
        api.emulator.inject(down_from_s=0.0, down_for_s=600.0)
        await eventually(lambda: _is_down(api, how))
        await eventually(lambda: _answers(api))
        assert api.emulator.url == url

    rehearse(tmp_path, use, time_scale=200)


async def _is_down(api: Api, how: str) -> bool:
    try:
        return (await api("GET", "/pods"))[0] == 503
    except aiohttp.ClientError:
        return how == "refuse"


async def _answers(api: Api) -> bool:
    try:
        return (await api("GET", "/pods"))[0] == 200
    except aiohttp.ClientError:
        return False


async def _bills(api: Api) -> bool:
    return bool(api.emulator.ledger.billing())


def test_faults_are_changed_over_http(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        assert (await api("POST", "//rehearsal/faults", {"create_429": 1, "retry_after_s": 7}))[0] == 200
        assert (await api("POST", "/pods", api.order()))[0] == 429
        assert api.headers["Retry-After"] == "7"
        status, problem = await api("POST", "//rehearsal/faults", {"creat_429": 1})
        assert status == 422
        assert re.search("creat_429 is not a fault", problem["detail"])
        await api("POST", "//rehearsal/faults", {"answer_429": 1})
        assert [(await api("GET", "/pods"))[0] for _ in range(2)] == [429, 200]
        pod = await api.create()
        status, seen = await api("GET", f"//rehearsal/pods/{pod['id']}")
        assert (status, seen["id"]) == (200, pod["id"])
        for headers in ({}, {"Authorization": f"Bearer {api.emulator.pods[pod['id']].key}"}):
            assert (await api("GET", "//rehearsal/ledger", headers=headers))[0] in (401, 403)
        assert (await api("GET", "//rehearsal/ledger"))[1]["create_outcomes"] == {"rehearsed": ["429", pod["id"]]}

    rehearse(tmp_path, use)


def test_answers_that_take_their_time(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        asking = asyncio.create_task(api("POST", "/pods", api.order(name="slow")))
        await eventually(lambda: _bills(api))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asking, 0.5)
        assert [entry.name for entry in api.emulator.ledger.billing()] == ["slow"]

    rehearse(tmp_path, use, Faults(create_answer_delay_s=600))


def test_a_late_answer_comes_when_its_fault_is_taken_back(tmp_path: Path) -> None:
    async def use(api: Api) -> None:
        late = asyncio.ensure_future(api("POST", "/pods", api.order(name="late")))
        async with asyncio.timeout(60):
            while not api.emulator.ledger.billing():
                await asyncio.sleep(0.01)
            assert not late.done()
            api.emulator.inject(create_answer_delay_s=0)
            assert (await late)[0] == 201

    rehearse(tmp_path, use, Faults(create_answer_delay_s=-1))
