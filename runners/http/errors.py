"""What can go wrong on the wire.

HttpFailed
├── Unusable       the address or a header cannot be sent
├── NotConnected   there is no connection, so nothing was asked
├── Disconnected   the connection ended before the answer did
└── Malformed      what came is no answer in HTTP/1.1
"""

from __future__ import annotations


class HttpFailed(Exception):
    """A request that got no answer, or not the whole of it."""


class Unusable(HttpFailed):
    """The address or a header cannot be sent; asking again does not help."""


class NotConnected(HttpFailed):
    """There is no connection, so nothing was asked."""


class Disconnected(HttpFailed):
    """The connection ended before the answer did.

    `stale` says that it had been kept from an earlier request and ended without a byte: the server had closed it
    meanwhile, and the request may be sent again (RFC 9112, 9.3.1).
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class Malformed(HttpFailed):
    """What came is no answer in HTTP/1.1."""
