"""One client under load, in a process of its own: `python stream_clients.py CLIENT URL STREAMS ROUNDS OUT [LOOP]`.

So many streams at once, each of which asks again as soon as its answer is whole. Each client does what users write:
stream, read the pieces of text, note when the first was there. Writes JSON to OUT: CPU seconds of the load, and for
each answer its prompt's digest, the pieces, and the moment of the first on CLOCK_MONOTONIC. Nothing but the client
itself and the standard library is imported, so that it runs in an environment of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PROMPT_BYTES = 11_500
MAX_TOKENS = 64
MODEL = "double"

Ask = Callable[[str], Awaitable[tuple[float, int]]]
"""Asks for one prompt: the moment of the first piece of text, and how many there were."""


async def ours(url: str, load: Callable[[Ask], Awaitable[None]]) -> None:
    from recipes.spec import Workload
    from runners.client import Client, Endpoint, open_transport

    async with open_transport() as transport:
        settings = Workload(inputs=("unused",), max_tokens=MAX_TOKENS, retries=0)
        client = Client(transport, Endpoint(url, MODEL), settings)

        async def ask(prompt: str) -> tuple[float, int]:
            answer = await client.complete(prompt)
            assert answer.ttft_s is not None
            started = answer.started_at.timestamp() - (time.time() - time.monotonic())
            return started + answer.ttft_s, len(answer.itl_s) + 1

        await load(ask)


async def openai(url: str, load: Callable[[Ask], Awaitable[None]]) -> None:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def ask(prompt: str) -> tuple[float, int]:
            first, pieces = 0.0, 0
            stream = await client.completions.create(
                model=MODEL,
                prompt=prompt,
                max_tokens=MAX_TOKENS,
                stream=True,
                stream_options={"include_usage": True},
            )
            async for event in stream:
                if event.choices and event.choices[0].text:
                    first = first or time.monotonic()
                    pieces += 1
            return first, pieces

        await load(ask)


def body_of(prompt: str) -> dict[str, Any]:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": MAX_TOKENS, "stream": True}
    return {**body, "stream_options": {"include_usage": True}}


def text_in(line: str) -> str:
    """The piece of text in a line of a stream; none at its end."""
    if not line.startswith("data:") or (data := line[5:].strip()) == "[DONE]":
        return ""
    choices = json.loads(data)["choices"]
    return choices[0]["text"] if choices else ""


async def aiohttp(url: str, load: Callable[[Ask], Awaitable[None]]) -> None:
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

        async def ask(prompt: str) -> tuple[float, int]:
            first, pieces = 0.0, 0
            async with session.post(f"{url}/v1/completions", json=body_of(prompt)) as response:
                async for line in response.content:
                    if text_in(line.decode()):
                        first = first or time.monotonic()
                        pieces += 1
            return first, pieces

        await load(ask)


async def httpx(url: str, load: Callable[[Ask], Awaitable[None]]) -> None:
    import httpx

    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:

        async def ask(prompt: str) -> tuple[float, int]:
            first, pieces = 0.0, 0
            async with client.stream("POST", f"{url}/v1/completions", json=body_of(prompt)) as response:
                async for line in response.aiter_lines():
                    if text_in(line):
                        first = first or time.monotonic()
                        pieces += 1
            return first, pieces

        await load(ask)


def prompt_of(stream: int, round_: int) -> str:
    """Each one of its own, and as long as three thousand tokens of prose."""
    line = f"Stream {stream}, request {round_}: the keeper’s wife said that the lamp had burnt all night. "
    return (line * (PROMPT_BYTES // len(line) + 1))[:PROMPT_BYTES]


async def run(client: Callable[..., Awaitable[None]], url: str, streams: int, rounds: int) -> dict[str, Any]:
    answers: list[dict[str, Any]] = []
    used = 0.0

    async def load(ask: Ask) -> None:
        nonlocal used

        async def one(stream: int) -> None:
            for round_ in range(rounds):
                prompt = prompt_of(stream, round_)
                first, pieces = await ask(prompt)
                answers.append({"prompt": prompt, "first_s": first, "pieces": pieces})

        before = resource.getrusage(resource.RUSAGE_SELF)
        await asyncio.gather(*(one(stream) for stream in range(streams)))
        after = resource.getrusage(resource.RUSAGE_SELF)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    await client(url, load)
    for answer in answers:
        answer["digest"] = hashlib.sha256(answer.pop("prompt").encode()).hexdigest()[:16]
    return {"cpu_s": used, "answers": answers}


def main() -> None:
    name, url, streams, rounds, out, *loop = sys.argv[1:]
    factory = None
    from runners.http.loop import DirectLoop

    factory = DirectLoop if name == "ours" and loop != ["plain"] else None
    if loop == ["uvloop"]:
        import uvloop

        factory = uvloop.new_event_loop
    client = {"ours": ours, "openai": openai, "aiohttp": aiohttp, "httpx": httpx}[name]
    with asyncio.Runner(loop_factory=factory) as runner:
        found = runner.run(run(client, url, int(streams), int(rounds)))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
