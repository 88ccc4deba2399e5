"""An engine of so many slots, in a process of its own: fast enough that what is measured is the client.

    python -m tests.emulators.slots --slots 16 --ttft 0.2 --per-token 0.02 --tokens 64 --metrics vllm

prints one line of JSON with its `url`. It speaks OpenAI's API (completions and chat, streamed and whole) over HTTP/1.1,
queues what is over its slots in the order of arrival, and says at /metrics what vLLM or llama.cpp would say. Each
request's moments are at `GET /requests`, on CLOCK_MONOTONIC, which all processes of a machine share: the truth that a
client's figures are held against. `POST /reset` forgets them and begins anew. An answer is a function of the prompt.
After `POST /admit` with a number it takes up so many requests and no more, until it is told `null`.

As in real engines a stream's header comes before its first token, each token is an event of about 200 bytes, and a
client that goes away gives its slot back. With `--kv-tokens`, what runs is preempted when it does not fit any more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.emulators.slots_engine import MODEL, Settings, Slots
from tests.emulators.slots_wire import Wire

_ROOT = Path(__file__).resolve().parents[2]


@dataclass
class SlotsDouble:
    """A running double, for tests and benchmarks."""

    url: str
    process: subprocess.Popen[str] = field(repr=False)

    def requests(self) -> list[dict[str, Any]]:
        """What it was asked, in the order of arrival; see `Asked`."""
        with urlopen(f"{self.url}/requests", timeout=60) as response:
            rows: list[dict[str, Any]] = json.load(response)["requests"]
        return rows

    def reset(self) -> None:
        with urlopen(Request(f"{self.url}/reset", method="POST"), timeout=60) as response:
            response.read()

    def admit(self, count: int | None) -> None:
        """From now on it takes up so many requests and leaves all others waiting; None: it takes up all again."""
        with urlopen(Request(f"{self.url}/admit", json.dumps(count).encode()), timeout=60) as response:
            response.read()

    def cpu_s(self) -> float:
        """CPU seconds that it has used so far (Linux)."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / 100


@contextmanager
def slots_double(*arguments: str) -> Iterator[SlotsDouble]:
    """`with slots_double("--slots", "16") as double:` — ends with the block, and with this process."""
    argv = [sys.executable, "-m", "tests.emulators.slots", "--with-stdin", *arguments]
    process = subprocess.Popen(argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield SlotsDouble(json.loads(process.stdout.readline())["url"], process)
    finally:
        process.terminate()
        process.wait(60)


def _pair(text: str) -> tuple[float, int]:
    seconds, _, slots = text.partition(":")
    return float(seconds), int(slots)


def parse(argv: Sequence[str] | None) -> tuple[Settings, argparse.Namespace]:
    parser = argparse.ArgumentParser(prog="python -m tests.emulators.slots", description="an engine of so many slots")
    known = Settings()
    parser.add_argument("--slots", type=int, default=known.slots)
    parser.add_argument("--ttft", type=float, default=known.ttft, help="seconds from admission to the first token")
    parser.add_argument("--per-prompt-token", type=float, default=0.0, help="seconds added to it per prompt token")
    parser.add_argument("--per-token", type=float, default=known.per_token, help="seconds between tokens")
    parser.add_argument("--tokens", type=int, default=known.tokens, help="of an answer")
    parser.add_argument("--spread", type=float, default=0.0, help="answers have tokens · (1 ± this)")
    parser.add_argument("--metrics", choices=("vllm", "llamacpp", "none"), default="vllm")
    parser.add_argument("--slots-at", type=_pair, nargs="*", default=[], metavar="SECONDS:N")
    parser.add_argument("--kv-tokens", type=int, help="preempt what does not fit")
    parser.add_argument("--most-waiting", type=int, help="refuse with 429 what would make the queue longer")
    parser.add_argument("--zero", action="store_true", help="answer at once")
    parser.add_argument("--key")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--with-stdin", action="store_true", help="end when the standard input is closed")
    options = parser.parse_args(argv)
    if options.zero:
        options.ttft = options.per_prompt_token = options.per_token = 0.0
    given = {name: value for name, value in vars(options).items() if name in Settings.__dataclass_fields__}
    return Settings(**{**given, "slots_at": tuple(options.slots_at)}), options


async def serve(settings: Settings, options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    engine = Slots(settings)
    server = await loop.create_server(lambda: Wire(engine), "127.0.0.1", options.port, backlog=4096)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if options.with_stdin:
        loop.add_reader(sys.stdin.fileno(), ended.set)
    host, port = server.sockets[0].getsockname()
    print(json.dumps({"url": f"http://{host}:{port}", "slots": settings.slots, "model": MODEL}), flush=True)
    await ended.wait()
    server.close()


def main(argv: Sequence[str] | None = None) -> None:
    settings, options = parse(argv)
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(settings, options))
    else:
        uvloop.run(serve(settings, options))


if __name__ == "__main__":
    main()
