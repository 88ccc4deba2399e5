"""Keeps connections for the next request, and opens as many as are wanted at once."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from runners.http.addresses import Address, Addresses
from runners.http.connection import Connection
from runners.http.errors import NotConnected
from runners.http.response import Response
from runners.http.target import Origin, Target, target
from runners.http.wire import PlainWire, TlsWire

_BUFFER_BYTES = 64 * 1024
_AT_ONCE = 64
"""So many connections are being opened at a time: the queues of servers that accept them are short."""
_NEXT_ADDRESS_S = 3.0
_IDLE_S = 60.0
_MOST_BYTES = 64 * 1024 * 1024
_MOST_FILES = 65_536


class Transport:
    """`async with Transport() as transport`: sends requests, each on a connection of its own, until it is left.

    There are never more connections than requests that were under way at once: who asks decides how many.
    """

    def __init__(self, *, connect_timeout_s: float = 30.0) -> None:
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[Origin, deque[Connection]] = {}
        self._live: set[Connection] = set()
        self._addresses: dict[Origin, Addresses] = {}
        self._opening = asyncio.Semaphore(_AT_ONCE)
        self._trust: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in list(self._live):
            connection.abort()
        while self._live:  # each is told of its end in one of the next rounds of the loop
            await asyncio.sleep(0)

    def send(self, where: Target, body: bytes | None = None) -> Exchange:
        """`async with transport.send(…) as response`: the request is on its way, and is given up when that is left.

        Raises HttpFailed when it cannot be sent.
        """
        return Exchange(self, where.origin, where.request(body))

    async def get(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout_s: float = 10.0
    ) -> tuple[int, bytes]:
        """Status and body of a page. Raises HttpFailed, and TimeoutError with a sentence."""
        try:
            async with asyncio.timeout(timeout_s), self.send(target("GET", url, headers)) as response:
                await response.begun()
                response.check()
                return response.status, await response.read(_MOST_BYTES)
        except TimeoutError:
            raise TimeoutError(f"no answer in {timeout_s:g} s") from None

    def idle_for(self, origin: Origin) -> Connection | None:
        """The connection that was used last: the others may become old enough to be closed."""
        idle = self._idle.get(origin)
        while idle:
            if (connection := idle.pop()).usable:
                return connection
        return None

    async def connected(self, origin: Origin) -> Connection:
        """A new connection, or one that became free meanwhile. Raises NotConnected."""
        async with self._opening:
            if (free := self.idle_for(origin)) is not None:
                return free
            try:
                async with asyncio.timeout(self._connect_timeout_s):
                    return await self._connected(origin)
            except TimeoutError:
                raise NotConnected(f"no connection to {origin} in {self._connect_timeout_s:g} s") from None
            except OSError as error:
                raise NotConnected(f"no connection to {origin}: {_reason(error)}") from error

    async def _connected(self, origin: Origin) -> Connection:
        known = self._addresses.setdefault(origin, Addresses(origin))
        *others, last = await known.candidates()
        for address in others:
            try:
                async with asyncio.timeout(_NEXT_ADDRESS_S):
                    return await self._open(origin, address)
            except OSError:  # TimeoutError is one
                known.unreachable(address)
        return await self._open(origin, last)

    async def _open(self, origin: Origin, address: Address) -> Connection:
        connected = await _connected_to(address)
        try:
            connection = Connection(self, origin)
            if origin.scheme == "https":
                connection.carried_by(await self._secured(connected, origin, connection))
            else:
                connection.carried_by(PlainWire(connected, connection))
        except BaseException:
            connected.close()
            raise
        self._live.add(connection)
        return connection

    async def _secured(self, connected: socket.socket, origin: Origin, connection: Connection) -> TlsWire:
        if self._trust is None:
            from provisioners.light_http import trust  # only https needs it

            self._trust = await asyncio.to_thread(trust)
        _, wire = await asyncio.get_running_loop().create_connection(
            lambda: TlsWire(connection), sock=connected, ssl=self._trust, server_hostname=origin.host
        )
        return wire

    # What connections tell.

    def kept(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.origin, deque())
        idle.append(connection)
        while idle[0].idle_since < connection.idle_since - _IDLE_S:
            idle.popleft().abort()

    def lost(self, connection: Connection) -> None:
        self._live.discard(connection)
        with suppress(ValueError):
            self._idle.get(connection.origin, deque()).remove(connection)


class Exchange:
    """One request with its answer, for the time of a `with`; an answer that is not complete then is given up."""

    __slots__ = ("_connection", "_data", "_origin", "_response", "_transport")

    def __init__(self, transport: Transport, origin: Origin, data: bytes) -> None:
        self._transport, self._origin, self._data = transport, origin, data

    async def __aenter__(self) -> Response:
        free = self._transport.idle_for(self._origin)
        self._connection = free if free is not None else await self._transport.connected(self._origin)
        self._response = self._connection.send(self._data)
        return self._response

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._response.ended is None:
            self._connection.abort()


def open_transport() -> Transport:
    """A transport for a run: `async with open_transport() as transport`."""
    return Transport()


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError | socket.gaierror) or not error.errno:
        return str(error.strerror or error)
    return os.strerror(error.errno)


async def _connected_to(address: Address) -> socket.socket:
    """A TCP connection. Raises OSError."""
    family, where = address
    found = _new_socket(family)
    try:
        found.setblocking(False)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a long prompt may be silent for minutes
        await asyncio.get_running_loop().sock_connect(found, where)
    except BaseException:
        found.close()
        raise
    return found


def _new_socket(family: int) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        if error.errno != errno.EMFILE or not _more_files():
            raise
        return socket.socket(family, socket.SOCK_STREAM)


def _more_files() -> bool:
    """Let this process open as many files as it may; whether that is more than before."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft >= most:
        return False
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return True
