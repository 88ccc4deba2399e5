"""One connection: it sends a request, reads the answer, and says when it may be used again."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from runners.http.errors import Disconnected, HttpFailed, Malformed
from runners.http.response import Response
from runners.http.target import Origin

_MOST_HEADER_BYTES = 256 * 1024
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})
_NO_BODY = (204, 304)


class Keeper(Protocol):
    """Who has the connections that are not in use."""

    buffer: memoryview
    """Where a connection's data are read into; nothing stays in it."""

    def kept(self, connection: Connection) -> None: ...

    def lost(self, connection: Connection) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """Carries one request at a time. llhttp parses what comes; here is decided what it means for the connection."""

    def __init__(self, keeper: Keeper, origin: Origin) -> None:
        self._keeper, self.origin, self._view = keeper, origin, keeper.buffer
        self._parser: HttpResponseParser = HttpResponseParser(self)
        self._response: Response | None = None
        self._moment = 0.0
        self.idle_since = 0.0
        self._served = 0
        self._writing = False
        self._new_answer()

    def _new_answer(self) -> None:
        self._began = self._headed = self._whole = self._surplus = self._reusable = False
        self._until_close = True
        self._fields: list[tuple[bytes, bytes]] = []
        self._field_bytes = 0

    # The pool's side.

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def send(self, data: bytes, response: Response) -> None:
        """Send a request and fill this response; the one before must be complete."""
        self._new_answer()
        self._response = response
        response.controlled_by(self._flow)
        response.started = monotonic()
        self._transport.write(data)
        if not self._writing:
            response.sent = monotonic()

    def abort(self) -> None:
        """Close it at once, whatever is under way."""
        self._transport.abort()

    def close(self) -> None:
        self._transport.close()

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=0)  # so that the end of sending is told, whatever remained

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        self._moment = monotonic()
        if self._response is None:
            self.abort()  # nothing was asked: a server that says why it will close
            return
        self._began = True
        try:
            self._parser.feed_data(self._view[:nbytes])
        except HttpParserUpgrade:
            self._fail(Malformed(f"{self.origin} wants to speak another protocol"))
        except HttpParserError as error:
            if not self._whole:
                failed = error.__context__
                told = failed if isinstance(failed, HttpFailed) else Malformed(f"{self.origin}: no HTTP/1.1: {error}")
                self._fail(told)
                return
            self._surplus = True
        if self._whole:
            self._finish()

    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.lost(self)
        if self._response is not None:
            if self._headed and self._until_close and exc is None:
                self._response.complete(monotonic())
            else:
                self._response.fail(self._lost(exc))
            self._response = None
        del self._parser  # it holds this object

    def pause_writing(self) -> None:
        self._writing = True

    def resume_writing(self) -> None:
        self._writing = False
        if self._response is not None and self._response.sent is None:
            self._response.sent = monotonic()

    # The parser's side.

    def on_message_begin(self) -> None:
        if self._whole:
            self._surplus = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value)
        if self._field_bytes > _MOST_HEADER_BYTES:
            raise Malformed(f"{self.origin}: the answer's headers are larger than {_MOST_HEADER_BYTES:,} bytes")
        if not self._headed:  # what comes after the body says nothing that matters here
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        response, status = self._response, self._parser.get_status_code()
        if response is None or self._whole or status < 200:
            return
        self._headed, response.status = True, status
        self._until_close = status not in _NO_BODY and not any(name in _LENGTHS for name, _ in self._fields)
        for raw_name, raw in self._fields:
            name, value = raw_name.decode("latin-1"), raw.decode("latin-1")
            response.headers[name] = f"{response.headers[name]}, {value}" if name in response.headers else value

    def on_body(self, block: bytes) -> None:
        if self._response is not None and not self._whole:
            self._response.add(self._moment, block)

    def on_message_complete(self) -> None:
        if self._headed:
            self._whole, self._reusable = True, self._parser.should_keep_alive()
        else:
            self._fields.clear()  # 100 Continue, 103 Early Hints: the answer is still to come

    # Its own.

    def _flow(self, go_on: bool) -> None:
        if not self._transport.is_closing():
            (self._transport.resume_reading if go_on else self._transport.pause_reading)()

    def _finish(self) -> None:
        response, self._response = self._response, None
        assert response is not None
        self._served += 1
        response.controlled_by(lambda _: None)
        if self._reusable and not self._surplus and not self._writing and self.usable:
            self._transport.resume_reading()
            self.idle_since = self._moment
            self._keeper.kept(self)
        else:
            self.abort()
        response.complete(self._moment)

    def _fail(self, error: HttpFailed) -> None:
        if self._response is not None:
            self._response.fail(error)
            self._response = None
        self.abort()

    def _lost(self, error: Exception | None) -> Disconnected:
        when = "in the middle of the answer" if self._began else "before the answer"
        how = "was closed" if error is None else f"ended ({error})"
        return Disconnected(f"the connection to {self.origin} {how} {when}", stale=self._served > 0 and not self._began)
