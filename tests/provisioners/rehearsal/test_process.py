"""The emulator as a process: its one line, its end, and what is left after it was killed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import pytest

from provisioners.rehearsal import sshd
from provisioners.rehearsal.emulator import Emulator
from provisioners.rehearsal.ledger import Ledger
from recipes.errors import NoMachine
from tests.provisioners.rehearsal.using import isolated_only

pytestmark = pytest.mark.real


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[tuple[subprocess.Popen[str], dict[str, str]]]:
    """The process, and what it said; killed in the end if need be."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "provisioners.rehearsal", "--root", str(root), *arguments]


def ask(said: dict[str, str], method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    url = said["url"].removesuffix("/v2") + path
    request = urllib.request.Request(url, data, {"Authorization": f"Bearer {said['key']}"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text else None


def create(said: dict[str, str], wait_until: Callable[..., Any], **changes: Any) -> dict[str, Any]:
    """A running pod, as the emulator knows it, with its processes."""
    body = {
        "name": "n",
        "image": "i",
        "gpu": {"id": "NVIDIA A40"},
        "args": "sh -c 'sleep 1000 & sleep 1000'",
        **changes,
    }
    pod = ask(said, "POST", "/v2/pods", body)
    at = f"/rehearsal/pods/{pod['id']}"

    def complete() -> Any:
        known = ask(said, "GET", at)
        names = list(known["processes"].values())
        return known if "sshd" in names and names.count("sleep") == 2 else None

    return wait_until(complete)


@pytest.mark.parametrize("more", [(), ("--plain",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, None])
def test_no_pod_outlives_the_emulator(
    tmp_path: Path, number: signal.Signals | None, more: tuple[str, ...], wait_until: Callable[..., Any]
) -> None:
    """Without a signal, it is the end of its standard input."""
    with started(command(tmp_path / "e", "--attached", *more), stdin=subprocess.PIPE) as (process, said):
        pod = create(said, wait_until)
        pids = [pod["pid"], *map(int, pod["processes"])]
        assert len(pids) >= 4
        if number is not None:
            process.send_signal(number)
        else:
            assert process.stdin is not None
            process.stdin.close()
        process.wait(60)
        wait_until(lambda: not any(map(psutil.pid_exists, pids)))
    (entry,) = Ledger(tmp_path / "e" / "ledger.db").entries()
    assert (entry.billing, entry.gone) == (False, True)
    died = "emulator: died, found at the next start"
    assert entry.ended_by == (died if number == signal.SIGKILL else "emulator: closed")


def test_arguments(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    options = ("--key", "mine", "--faults", '{"page_size": 1}', "--time-scale", "10")
    with started(command(tmp_path / "e", *options)) as (_, said):
        create(said, wait_until)
        create(said, wait_until)
        assert ask({**said, "key": "mine"}, "GET", "/v2/pods")["nextCursor"] == "1"
    refused = subprocess.run(command(tmp_path, "--faults", '{"none": 1}'), capture_output=True, text=True)
    assert refused.returncode == 2
    assert "none is not a fault" in refused.stderr


def test_one_folder_and_one_port_are_for_one_emulator_at_a_time(tmp_path: Path) -> None:
    async def main() -> None:
        async with Emulator(tmp_path / "e") as emulator:
            with pytest.raises(NoMachine, match="another rehearsal uses"):
                Emulator(tmp_path / "e")
            with pytest.raises(NoMachine, match="cannot listen"):
                await Emulator(tmp_path / "f", port=emulator.port).__aenter__()
            headers = {"Authorization": f"Bearer {emulator.key}"}
            order = {"name": "v", "size": 10, "dataCenter": "EU-RO-1"}
            async with aiohttp.request(
                "POST", f"{emulator.url}/network-volumes", json=order, headers=headers
            ) as answer:
                volume = await answer.json()
            (tmp_path / "e" / "volumes" / volume["id"] / "kept").touch()
        async with (
            Emulator(tmp_path / "e", key=emulator.key) as emulator,
            aiohttp.request("GET", f"{emulator.url}/network-volumes", headers=headers) as answer,
        ):
            assert await answer.json() == {"networkVolumes": [volume]}
        assert (tmp_path / "e" / "volumes" / volume["id"] / "kept").exists()

    asyncio.run(main())


def test_without_sshd_the_way_out_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshd, "PLACES", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoMachine) as refused:
        Emulator(tmp_path / "e")
    assert "openssh-server" in refused.value.advice


AS_SOMEBODY = """
mount --bind {folder}/passwd /etc/passwd
exec setpriv --reuid 4242 --regid 4242 --clear-groups --inh-caps=-all,+dac_read_search \\
  --ambient-caps=-all,+dac_read_search {python} -m provisioners.rehearsal --root {folder}/e
"""


@isolated_only
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv, to be somebody else")
def test_somebody_without_rights_can_rehearse_too(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    key = tmp_path / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    folder = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    folder.chmod(0o755)
    (folder / "e").mkdir()
    os.chown(folder / "e", 4242, 4242)
    somebody = f"somebody:x:4242:4242::{folder}/e:/bin/sh\n"
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + somebody)
    script = AS_SOMEBODY.format(folder=folder, python=sys.executable)
    with started(["unshare", "-m", "sh", "-c", script]) as (_, said):
        env = {"PUBLIC_KEY": key.with_suffix(".pub").read_text()}
        pod = create(said, wait_until, env=env, ports=["22/tcp"])
        direct = ask(said, "GET", f"/v2/pods/{pod['id']}")["ssh"]["direct"]
        assert direct["username"] == "somebody"
        login = f"ssh -F none -i {key} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -p {direct['port']}"
        inside = "id -un; echo $HOME; setsid -f sleep 999 >/dev/null 2>&1 </dev/null"
        seen = subprocess.run([*login.split(), f"somebody@{direct['host']}", inside], capture_output=True, text=True)
        assert seen.stdout.split() == ["somebody", f"{folder}/e/pods/{pod['id']}/home"]
        pids = [int(pid) for pid in ask(said, "GET", f"/rehearsal/pods/{pod['id']}")["processes"]]
        ask(said, "DELETE", f"/v2/pods/{pod['id']}")
        assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    shutil.rmtree(folder)
