"""A connection's bytes: plain ones straight from the socket, encrypted ones through asyncio's TLS."""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol, cast

from runners.http.loop import DirectLoop


class Receiver(Protocol):
    """Who is told what happens on a wire."""

    buffer: memoryview
    """Where what arrives is put; it must be taken out before `received` returns."""

    def received(self, count: int) -> None:
        """So many bytes are in the buffer."""
        ...

    def drained(self) -> None:
        """What `write` could not hand over at once is with the kernel now."""
        ...

    def lost(self, error: Exception | None) -> None:
        """The connection has ended: by its own end, if there is no error. Called once, whoever ended it."""
        ...


class Wire(Protocol):
    """What both kinds can do."""

    @property
    def closed(self) -> bool:
        """Whether it has ended, or is about to."""
        ...

    def write(self, data: bytes) -> bool:
        """Hand data to the kernel; whether it took all of them, else `drained` is called. One request at a time."""
        ...

    def reading(self, on: bool) -> None:
        """Stop reading, or go on."""
        ...

    def abort(self) -> None:
        """Close it at once."""
        ...


class PlainWire:
    """A TCP socket. Per block that arrives, this costs about a third of the calls of asyncio's own transports."""

    def __init__(self, connected: socket.socket, receiver: Receiver) -> None:
        self._socket, self._receiver, self._buffer = connected, receiver, receiver.buffer
        self._receive_into, self._received = connected.recv_into, receiver.received
        self._loop = asyncio.get_running_loop()
        self._direct = self._loop.direct if isinstance(self._loop, DirectLoop) else {}
        self._number = connected.fileno()
        self._left = memoryview(b"")
        self._reading = self._broken = False
        self.closed = False
        self.reading(True)

    def write(self, data: bytes) -> bool:
        self._left = memoryview(data)
        self._send()
        if self._left:
            self._loop.add_writer(self._number, self._send_more)
        return not self._left and not self._broken

    def reading(self, on: bool) -> None:
        if self.closed or on == self._reading:
            return
        self._reading = on
        if on:
            self._loop.add_reader(self._number, self._readable)
            self._direct[self._number] = self._readable
        else:
            self._loop.remove_reader(self._number)
            self._direct.pop(self._number, None)

    def abort(self) -> None:
        self._end(None)

    def _readable(self) -> None:
        try:
            count = self._receive_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if count:
            self._received(count)
        else:
            self._end(None)

    def _send(self) -> None:
        try:
            self._left = self._left[self._socket.send(self._left) :]
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:
            # Nobody takes it any more. Reading tells so too, and before that what the server may have answered.
            self._left, self._broken = memoryview(b""), True

    def _send_more(self) -> None:
        self._send()
        if not self._left:
            self._loop.remove_writer(self._number)
            if not self._broken:
                self._receiver.drained()

    def _end(self, error: Exception | None) -> None:
        if self.closed:
            return
        self.reading(False)
        self._loop.remove_writer(self._number)
        self.closed = True
        self._socket.close()
        self._receiver.lost(error)


class TlsWire(asyncio.BufferedProtocol):
    """TLS over a TCP connection."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver, self._buffer = receiver, receiver.buffer
        self._full = False

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def write(self, data: bytes) -> bool:
        self._transport.write(data)
        return not self._full

    def reading(self, on: bool) -> None:
        if not self.closed and on != self._transport.is_reading():
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def abort(self) -> None:
        self._transport.abort()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # so that it tells when nothing is left, however little it was

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receiver.received(nbytes)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._receiver.drained()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.lost(exc)
