"""One connection: it sends a request, reads the answer, and says when it may be used again."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from runners.http.errors import Disconnected, HttpFailed, Malformed
from runners.http.response import Response
from runners.http.target import Origin
from runners.http.wire import Wire

_MOST_HEADER_BYTES = 192 * 1024
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
_NO_BODY = (204, 304)


class Keeper(Protocol):
    """Who has the connections that are not in use."""

    buffer: memoryview
    """Where a connection's data are read into; nothing stays in it."""

    def kept(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection:
    """Carries one request at a time over a wire. llhttp parses what comes; here is decided what it means.

    What is done for each block is kept to the least: its moment is noted, and the parser appends it to the response's
    list without a call into Python.
    """

    __slots__ = (
        "_began",
        "_feed",
        "_fields",
        "_headed",
        "_keeper",
        "_parser",
        "_response",
        "_reusable",
        "_served",
        "_surplus",
        "_until_close",
        "_whole",
        "_wire",
        "_writing",
        "buffer",
        "idle_since",
        "origin",
    )

    def __init__(self, keeper: Keeper, origin: Origin) -> None:
        self._keeper, self.origin, self.buffer = keeper, origin, keeper.buffer
        self.idle_since = 0.0
        self._served = 0
        self._writing = False
        self._response: Response | None = None
        self._parser: HttpResponseParser | None = None
        self._feed: Callable[[memoryview], None] = _nothing
        self._wire: Wire

    # The pool's side.

    def carried_by(self, wire: Wire) -> None:
        """To be told before anything is sent."""
        self._wire = wire

    @property
    def usable(self) -> bool:
        return not self._wire.closed

    def send(self, data: bytes) -> Response:
        """Send a request; the answer of the one before must be complete."""
        self._began = self._headed = self._whole = self._surplus = self._reusable = False
        self._until_close = True
        self._fields: list[tuple[bytes, bytes]] = []
        self._response = response = Response(self._flow)
        self._parser = parser = HttpResponseParser(
            SimpleNamespace(
                on_message_begin=self._on_message_begin,
                on_header=self._on_header,
                on_headers_complete=self._on_headers_complete,
                on_body=response.blocks.append,
                on_message_complete=self._on_message_complete,
            )
        )
        self._feed = parser.feed_data
        response.started = monotonic()
        self._writing = not self._wire.write(data)
        if not self._writing:
            response.sent = monotonic()
        return response

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self._wire.abort()

    # The wire's side.

    def received(self, count: int) -> None:
        moment = monotonic()
        response = self._response
        if response is None:
            self.abort()  # nothing was asked: a server that says why it will close
            return
        self._began = True
        try:
            self._feed(self.buffer[:count])
        except (HttpParserError, HttpParserUpgrade) as error:
            if not self._whole:
                self._fail(self._explained(error))
                return
            self._surplus = True
        moments = response.moments
        new = len(response.blocks) - len(moments)
        if new == 1:
            moments.append(moment)
        elif new:
            moments.extend([moment] * new)
        response.held += count
        if self._whole:
            self._finish(response, moment)
        elif self._headed:
            response.grown()
        elif response.held > _MOST_HEADER_BYTES:
            self._fail(
                Malformed(f"{self.origin}: the headers of its answer have more than {_MOST_HEADER_BYTES:,} bytes")
            )

    def lost(self, error: Exception | None) -> None:
        self._keeper.lost(self)
        if (response := self._response) is not None:
            self._response = None
            if self._headed and self._until_close and error is None:
                response.complete(monotonic())
            else:
                response.fail(self._disconnected(error))
        self._let_go()

    def drained(self) -> None:
        self._writing = False
        if self._response is not None and self._response.sent is None:
            self._response.sent = monotonic()

    # The parser's side.

    def _on_message_begin(self) -> None:
        if self._whole:
            raise Malformed("more than one answer")

    def _on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # what comes after the body says nothing that matters here
            self._fields.append((name.lower(), value))

    def _on_headers_complete(self) -> None:
        assert self._parser is not None
        assert self._response is not None
        status = self._parser.get_status_code()
        if status < 200:
            return
        self._headed, self._response.status = True, status
        self._until_close = status not in _NO_BODY and not any(name in _LENGTHS for name, _ in self._fields)
        headers = self._response.headers
        for raw_name, raw in self._fields:
            name, value = raw_name.decode("latin-1"), raw.decode("latin-1")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value

    def _on_message_complete(self) -> None:
        assert self._parser is not None
        if self._headed:
            self._whole, self._reusable = True, self._parser.should_keep_alive()
        else:
            self._fields.clear()  # 100 Continue, 103 Early Hints: the answer is still to come

    # Its own.

    def _flow(self, go_on: bool) -> None:
        if self._response is not None:
            self._wire.reading(go_on)

    def _finish(self, response: Response, moment: float) -> None:
        self._flow(True)
        self._response = None
        self._served += 1
        self._let_go()
        if self._reusable and not self._surplus and not self._writing and self.usable:
            self.idle_since = moment
            self._keeper.kept(self)
        else:
            self.abort()
        response.complete(moment)

    def _fail(self, error: HttpFailed) -> None:
        if self._response is not None:
            self._response.fail(error)
            self._response = None
        self.abort()

    def _let_go(self) -> None:
        """Of the parser, which holds this object."""
        self._parser, self._feed = None, _nothing

    def _explained(self, error: Exception) -> HttpFailed:
        if isinstance(error.__context__, HttpFailed):
            return error.__context__
        if isinstance(error, HttpParserUpgrade):
            return Malformed(f"{self.origin} wants to speak another protocol")
        return Malformed(f"{self.origin} does not speak HTTP/1.1: {error}")

    def _disconnected(self, error: Exception | None) -> Disconnected:
        when = "in the middle of the answer" if self._began else "before the answer"
        how = "was closed" if error is None else f"ended ({error})"
        return Disconnected(f"the connection to {self.origin} {how} {when}", stale=self._served > 0 and not self._began)


def _nothing(_: object) -> None:
    """For data that nobody waits for."""
