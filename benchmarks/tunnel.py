"""Latency through a tunnel, side by side: `python benchmarks/tunnel.py [--streams N] [--pings N] [--rounds N]`.

A real sshd on loopback; a server behind it that answers each line. Streams are opened at once, and each sends a line
every 50 ms, as an engine streams tokens. Compared: no tunnel, recipe's two kinds, and fabric's
`Connection.forward_local`; in turn, so that a noisy machine is noisy for all of them. The first answer of a stream
counts from the moment at which all are opened.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from provisioners.shell.connection import Target  # noqa: E402
from provisioners.shell.tunnel import Kind, open_tunnel  # noqa: E402
from tests.emulators.sshd import Sshd, free_port, running_sshd  # noqa: E402

PAUSE_S = 0.05
PATIENCE_S = 10.0
GOAL_MS = 5.0
WAYS = ("direct", "ssh -L", "forwarder", "fabric")
SERVER = """
import asyncio
async def answer(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
RIVAL = """
import sys
from fabric import Connection
host, port, user, key, local, remote = sys.argv[1:]
kwargs = {"key_filename": key, "look_for_keys": False, "allow_agent": False}
with Connection(host, port=int(port), user=user, connect_kwargs=kwargs) as connection:
    with connection.forward_local(int(local), remote_port=int(remote)):
        print("ready", flush=True)
        sys.stdin.read()
"""


@dataclass(frozen=True)
class Measured:
    """What all streams together saw."""

    failed: int
    first_s: list[float]
    ping_s: list[float]

    def __add__(self, other: Measured) -> Measured:
        return Measured(self.failed + other.failed, self.first_s + other.first_s, self.ping_s + other.ping_s)


async def stream(port: int, pings: int) -> tuple[float, list[float]]:
    """One stream: the time to its first answer, and each of the others."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    took: list[float] = []
    first = 0.0
    for number in range(pings + 1):
        sent = began if number == 0 else time.perf_counter()
        writer.write(b"x" * 200 + b"\n")
        if not await reader.readline():
            raise ConnectionError("the stream was cut")
        if number == 0:
            first = time.perf_counter() - sent
        else:
            took.append(time.perf_counter() - sent)
        await asyncio.sleep(PAUSE_S)
    writer.close()
    return first, took


async def measure(port: int, streams: int, pings: int) -> Measured:
    limit_s = PATIENCE_S + pings * PAUSE_S
    tasks = [asyncio.wait_for(stream(port, pings), limit_s) for _ in range(streams)]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    good = [result for result in results if not isinstance(result, BaseException)]
    return Measured(len(results) - len(good), [first for first, _ in good], [one for _, took in good for one in took])


@asynccontextmanager
async def way(name: str, target: Target, port: int) -> AsyncIterator[int]:
    """The local port of a way to that port."""
    if name == "direct":
        yield port
    elif name == "fabric":
        local = free_port()
        words = [target.host, target.port, target.user, target.key, local, port]
        argv = [sys.executable, "-c", RIVAL, *map(str, words)]
        rival = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            assert rival.stdout is not None
            rival.stdout.readline()
            yield local
        finally:
            rival.kill()
            rival.communicate()
    else:
        kind: Kind = "ssh -L" if name == "ssh -L" else "forwarder"
        tunnel = await open_tunnel(target, port, kinds=[kind])
        try:
            yield int(tunnel.address.split(":")[1])
        finally:
            await tunnel.close()


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f}"


async def compare(server: Sshd, port: int, folder: Path, streams: int, pings: int, rounds: int) -> dict[str, Measured]:
    """What was seen on each way, over all rounds."""
    target = Target(
        host="127.0.0.1",
        port=server.port,
        user=getpass.getuser(),
        alias="benchmark",
        known_hosts=folder / "known_hosts",
        key=server.key,
    )
    await measure(port, streams, 2)  # the first connections warm the server up
    seen = {name: Measured(0, [], []) for name in WAYS}
    for _ in range(rounds):
        for name in WAYS:
            async with way(name, target, port) as local:
                seen[name] += await measure(local, streams, pings)
    return seen


def report(seen: dict[str, Measured], total: int) -> bool:
    """Print one line for each way; returns whether ours kept the goal."""
    print(f"{'way':<10} {'failed':>9} {'first p50':>10} {'p99':>8} {'line p50':>10} {'p99':>8} {'added p50':>10}")
    direct, kept = statistics.median(seen["direct"].ping_s), True
    for name, one in seen.items():
        failed = f"{one.failed}/{total}"
        if len(one.ping_s) < 2:
            print(f"{name:<10} {failed:>9}")
            continue
        first, ping = statistics.quantiles(one.first_s, n=100), statistics.quantiles(one.ping_s, n=100)
        added = ping[49] - direct
        if name in ("ssh -L", "forwarder"):
            kept = kept and added * 1000 <= GOAL_MS and not one.failed
        figures = f"{ms(first[49]):>10} {ms(first[98]):>8} {ms(ping[49]):>10} {ms(ping[98]):>8} {ms(added):>10}"
        print(f"{name:<10} {failed:>9} {figures}")
    print(f"goal: no stream fails, and at most {GOAL_MS:g} ms are added at the median: {'kept' if kept else 'missed'}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--pings", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    serving = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        assert serving.stdout is not None
        port = int(serving.stdout.readline())
        with tempfile.TemporaryDirectory() as folder, running_sshd(Path(folder) / "sshd") as server:
            working = compare(server, port, Path(folder), given.streams, given.pings, given.rounds)
            seen = asyncio.run(working)
    finally:
        serving.kill()
        serving.wait()
    print(f"{given.streams} streams at once, {given.rounds} rounds; milliseconds")
    return 0 if report(seen, given.streams * given.rounds) else 1


if __name__ == "__main__":
    sys.exit(main())
