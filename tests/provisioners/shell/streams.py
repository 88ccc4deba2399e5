"""A server that streams as an engine does, and clients that notice when a line is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from provisioners.shell.connection import Target
from provisioners.shell.tunnel import Tunnel, open_tunnel


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that streams, as an engine does: for each line it is sent, so many lines, a little apart."""
    try:
        while line := await reader.readline():
            for number in range(int(line)):
                writer.write(b"%d\n" % number)
                await writer.drain()
                await asyncio.sleep(0.01)
            writer.write(b"end\n")
    except (ConnectionError, ValueError):
        pass
    finally:
        writer.close()


async def ask(address: str, lines: int = 1) -> int:
    """How many lines came, in order, until the end."""
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"%d\n" % lines)
        for number in range(lines):
            assert await reader.readline() == b"%d\n" % number
        assert await reader.readline() == b"end\n"
        return lines
    finally:
        writer.close()


async def ask_until_it_answers(address: str) -> None:
    """A tunnel that heals is refused for a moment."""
    while True:
        try:
            await ask(address)
            return
        except (OSError, AssertionError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.02)


def using(work: Callable[[int], Awaitable[None]]) -> None:
    """Do something with the port of a server."""

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=256)
        try:
            await asyncio.wait_for(work(server.sockets[0].getsockname()[1]), 90)
        finally:
            server.close()

    asyncio.run(main())


@asynccontextmanager
async def tunnel(target: Target, port: int, **options: Any) -> AsyncIterator[Tunnel]:
    opened = await open_tunnel(target, port, **options)
    try:
        yield opened
    finally:
        await opened.close()
