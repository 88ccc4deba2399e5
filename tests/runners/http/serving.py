"""A server on loopback that says byte for byte what a test tells it to."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Served:
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    """Heads and bodies, in the order in which they came."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """A client has closed a connection before its answer was whole."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Answer = Callable[[asyncio.StreamWriter, int], Awaitable[bool]]
"""Writes the answer to a request of this number, from 1; whether the connection stays open."""


@asynccontextmanager
async def serving(
    answer: Answer, *, host: str = "127.0.0.1", context: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    served = Served()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b""
                served.requests.append(head + body)
                if not await answer(writer, len(served.requests)):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            served.ended.set()
        finally:
            writer.close()

    server = await asyncio.start_server(handle, host, 0, ssl=context)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()


def saying(*blocks: bytes, stay: bool = True) -> Answer:
    """These blocks, each on its own; the same for every request."""

    async def answer(writer: asyncio.StreamWriter, _: int) -> bool:
        for block in blocks:
            writer.write(block)
            await writer.drain()
            await asyncio.sleep(0)
        return stay

    return answer
