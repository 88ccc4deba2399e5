"""Lines out of blocks of bytes that end anywhere."""

from __future__ import annotations


class LineBuffer:
    """Keeps the unfinished line until its end has come."""

    def __init__(self) -> None:
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """The line that is not finished yet."""
        return self._rest

    def feed(self, block: bytes) -> list[bytes]:
        """The lines that are complete now, without their newlines."""
        *lines, self._rest = (self._rest + block).split(b"\n")
        return lines
