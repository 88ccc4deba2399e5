"""A machine over SSH: commands and files, each call with an end that comes."""

from __future__ import annotations

import asyncio
import shlex
import threading
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from provisioners.contract import Output
from provisioners.shell.exchange import Aborted, Exchange, Feed, Pool, Sink
from provisioners.shell.target import HostKeyChanged, Lost, NotAdmitted, Ran, Target, address, parse_address
from provisioners.shell.upload import folder, piece, put_folder, put_piece
from provisioners.threads import in_thread

__all__ = ["Feed", "HostKeyChanged", "Lost", "NotAdmitted", "Ran", "Shell", "Target", "address", "parse_address"]

_LONGEST_ERROR = 16 << 20
_BLOCKS_UNDER_WAY = 64
# Ends a command that its caller has given up, also when the connection is gone; without `timeout` there it is just run.
_BOUNDED = 't=$1; shift; timeout -k 5 9 true 2>/dev/null && exec timeout -k 5 "$t" "$@"; exec "$@"'


class Shell:
    """One machine. Connects when it is first used, and again when the connection was lost between two calls."""

    def __init__(self, target: Target, *, connect_timeout_s: float = 10, silence_s: float = 15) -> None:
        """After `silence_s` without a sign of life a connection is over, and what runs over it is Lost."""
        self.target = target
        self.connect_timeout_s, self.silence_s = connect_timeout_s, silence_s
        self._pool = Pool(target, connect_timeout_s=connect_timeout_s, silence_s=silence_s)

    async def run(self, argv: Sequence[str], *, input: bytes = b"", timeout_s: float = 30) -> Ran:  # noqa: A002
        """A short command: how it ended and what it said.

        Raises Lost if the connection went, or if no end came in time: then the command is ended there as well.
        Raises NotAdmitted and HostKeyChanged. Nothing secret may stand in `argv`: it is for all to see there.
        """
        out, err = bytearray(), bytearray()
        bounded = ["sh", "-c", _BOUNDED, "sh", str(ceil(timeout_s) + 1), *argv]
        status = await self.converse(bounded, feed=input, on_out=out.extend, on_err=err.extend, timeout_s=timeout_s)
        return Ran(status, bytes(out), bytes(err))

    async def stream(self, argv: Sequence[str], *, input: Feed = b"", on_output: Output) -> Ran:  # noqa: A002
        """A long command: what it says goes to `on_output` in the event loop, in order, as it comes.

        Returns how it ended, with its standard error. Raises Lost if the connection went; then the command may go on,
        unless it minds that nobody reads. Raises what `on_output` raised, at the end: the rest is read nevertheless.
        """
        loop = asyncio.get_running_loop()
        under_way = threading.Semaphore(_BLOCKS_UNDER_WAY)
        failed: list[Exception] = []
        gone = threading.Event()
        err = bytearray()

        def deliver(data: bytes) -> None:
            under_way.release()
            if gone.is_set():
                return
            try:
                on_output(data)
            except Exception as error:
                failed.append(error)

        def on_out(data: bytes) -> None:
            # A loop that is behind slows the other side down instead of filling the memory.
            while not under_way.acquire(timeout=0.5):
                if gone.is_set() or loop.is_closed():
                    raise Aborted
            loop.call_soon_threadsafe(deliver, data)

        def on_err(data: bytes) -> None:
            err.extend(data)
            del err[:-_LONGEST_ERROR]

        try:
            status = await self.converse(argv, feed=input, on_out=on_out, on_err=on_err)
        finally:
            gone.set()
        if failed:
            raise failed[0]
        return Ran(status, b"", bytes(err))

    async def converse(
        self, argv: Sequence[str], *, feed: Feed, on_out: Sink, on_err: Sink, timeout_s: float | None = None
    ) -> int:
        """A command's exit status; both its streams go to functions that are called in a thread, and may block it."""
        exchange = Exchange(self._pool, shlex.join(argv), feed=feed, on_out=on_out, on_err=on_err)
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    return await in_thread(exchange.conduct)
                except BaseException:
                    exchange.abort()
                    raise
        except TimeoutError as error:
            raise Lost(f"{self.target} did not answer within {timeout_s:g} s to {_shortened(argv)}") from error
        except Aborted as error:
            raise Lost(f"the connection to {self.target} was closed") from error

    async def put_file(self, source: Path, target: str) -> None:
        """Copy a file; it appears under its name when it is whole and right, with its mode.

        After Lost, call it again: it goes on where it was cut. Raises HostCommandFailed if it cannot be written there.
        """
        await put_piece(self, await in_thread(piece, source), target)

    async def put_folder(self, source: Path, target: str) -> None:
        """Copy a folder in the same way; what lies there already is replaced."""
        await put_folder(self, await in_thread(folder, source), target)

    async def close(self) -> None:
        """End the connections; what is going on over them is Lost. The shell cannot be used again."""
        self._pool.close()


def _shortened(argv: Sequence[str], length: int = 80) -> str:
    words = list(argv[5:]) if list(argv[2:3]) == [_BOUNDED] else list(argv)
    text = shlex.join(words)
    return text if len(text) <= length else text[: length - 1] + "…"
