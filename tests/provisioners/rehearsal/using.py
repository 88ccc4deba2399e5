"""What the tests of the RunPod emulator share: a client of its API, and logins by the real ssh."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from provisioners.rehearsal.emulator import Emulator, can_isolate
from provisioners.rehearsal.faults import Faults
from tests.provisioners.rehearsal import schema

A40 = "NVIDIA A40"
WAITS = "sleep 1000"
isolated_only = pytest.mark.skipif(not can_isolate(), reason="pods of their own namespaces need root's rights")


class Api:
    """One client of the emulator, with the account's key or another."""

    def __init__(
        self, emulator: Emulator, session: aiohttp.ClientSession, key_file: Path, key: str | None = None
    ) -> None:
        self.emulator, self._session, self.key_file = emulator, session, key_file
        self._headers = {"Authorization": f"Bearer {key or emulator.key}"}

    def as_pod(self, pod_id: str) -> Api:
        """The same with the key that a pod has."""
        return Api(self.emulator, self._session, self.key_file, self.emulator.pods[pod_id].key)

    async def __call__(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and body; a path is below /v2, or begins with // for the server's root."""
        url = self.emulator.url.removesuffix("/v2") + path[1:] if path.startswith("//") else self.emulator.url + path
        given = self._headers if headers is None else headers
        async with self._session.request(method, url, json=body, headers=given) as response:
            text = await response.text()
            is_json = "json" in response.content_type
            self.headers = response.headers
            answer = json.loads(text) if is_json and text else text
            if path.startswith("/") and not path.startswith("//"):
                schema.check(method, path, response.status, response.content_type, answer)
            return response.status, answer

    async def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        status, answer = await self("POST", "//graphql", {"query": query, "variables": variables})
        assert status == 200
        assert isinstance(answer, dict)
        return answer

    def order(self, **changes: Any) -> dict[str, Any]:
        """The body of a create."""
        public = self.key_file.with_suffix(".pub").read_text()
        body = {
            "name": "rehearsed",
            "image": "some/image:1",
            "gpu": {"id": A40, "count": 1},
            "ports": ["22/tcp"],
            "args": WAITS,
            "env": {"PUBLIC_KEY": public},
        }
        return {**body, **changes}

    async def create(self, **changes: Any) -> dict[str, Any]:
        status, pod = await self("POST", "/pods", self.order(**changes))
        assert status == 201, pod
        assert isinstance(pod, dict)
        return pod

    async def pod(self, pod_id: str) -> dict[str, Any]:
        status, pod = await self("GET", f"/pods/{pod_id}")
        assert status == 200, pod
        assert isinstance(pod, dict)
        return pod

    async def listed(self) -> list[str]:
        status, answer = await self("GET", "/pods")
        assert status == 200
        return [pod["id"] for pod in answer["pods"]]

    async def until(self, pod_id: str, true_of: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """The pod, once this is true of it."""

        async def look() -> dict[str, Any] | None:
            pod = await self.pod(pod_id)
            return pod if true_of(pod) else None

        found = await eventually(look)
        assert isinstance(found, dict)
        return found

    async def running(self, **changes: Any) -> str:
        """The id of a new pod that runs and lets us in."""
        pod = await self.create(**changes)
        await self.until(pod["id"], lambda pod: pod["status"] == "RUNNING" and pod["ssh"]["direct"])
        await eventually(lambda: self._answers(pod["id"]))
        return str(pod["id"])

    async def _answers(self, pod_id: str) -> bool:
        direct = (await self.pod(pod_id))["ssh"]["direct"]
        return direct is not None and await knocks(direct["port"])

    async def ssh(self, pod_id: str, command: str, *options: str) -> tuple[int, str]:
        """Run a command in a pod by its direct way: exit status and output."""
        direct = (await self.pod(pod_id))["ssh"]["direct"]
        process = await asyncio.create_subprocess_exec(
            *(
                "ssh",
                *options,
                "-F",
                "none",
                "-i",
                str(self.key_file),
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
            ),
            *("-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"),
            *("-o", "UserKnownHostsFile=/dev/null"),
            *("-p", str(direct["port"]), f"{direct['username']}@{direct['host']}", command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        assert process.returncode is not None
        return process.returncode, output.decode()


async def knocks(port: int) -> bool:
    """Whether an sshd says hello on this port."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    with contextlib.suppress(OSError):
        hello = await reader.readline()
        writer.close()
        return hello.startswith(b"SSH-2.0")
    return False


async def eventually(look: Callable[[], Awaitable[Any]], *, seconds: float = 120) -> Any:
    """The first true value. Fails if none comes in time."""
    end = time.monotonic() + seconds
    while not (value := await look()):
        assert time.monotonic() < end, "it did not come true in time"
        await asyncio.sleep(0.01)
    return value


def rehearse(
    tmp_path: Path, use: Callable[[Api], Awaitable[None]], faults: Faults | None = None, **options: Any
) -> Emulator:
    """Run a test against an emulator of its own; afterwards nothing of it may be alive. Returns it, closed."""
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)

    async def main() -> Emulator:
        emulator = Emulator(tmp_path / "emulator", faults=faults, **options)
        async with emulator, aiohttp.ClientSession() as session:
            await use(Api(emulator, session, key))
            pids = [pid for pod in emulator.pods.values() for pid in (pod.pid, *pod.processes()) if pid]
        assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
        return emulator

    return asyncio.run(main())
