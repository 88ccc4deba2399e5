"""Where a request goes, and what its first lines say: made once for many requests."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from runners.http.errors import Unusable

_PORTS = {"http": 80, "https": 443}
_COMMON = {"User-Agent": "gpu-recipe", "Accept": "*/*", "Accept-Encoding": "identity"}
_SAFE = "!#$%&'()*+,/:;=?@[]~"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A field's name (RFC 9110, 5.6.2)."""
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
"""A field's value (RFC 9110, 5.5): no line break, which would begin another field."""


@dataclass(frozen=True)
class Origin:
    """A server: connections to it may carry any request that is meant for it."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self._host}:{self.port}"

    @property
    def authority(self) -> str:
        """The value of the field Host."""
        return self._host if self.port == _PORTS[self.scheme] else str(self)

    @property
    def _host(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class Target:
    """A method, an address and fields; `head` is all of it but for the body's length."""

    origin: Origin
    head: bytes

    def request(self, body: bytes | None = None) -> bytes:
        """The whole request, as it goes over the wire."""
        if body is None:
            return self.head + b"\r\n"
        return b"%sContent-Length: %d\r\n\r\n%s" % (self.head, len(body), body)


def target(method: str, url: str, headers: Mapping[str, str] | None = None) -> Target:
    """Raises Unusable for an address or a field that cannot be sent."""
    parts, origin = _split(url)
    path = quote(parts.path, safe=_SAFE) or "/"
    query = f"?{quote(parts.query, safe=_SAFE)}" if parts.query else ""
    fields = {"Host": origin.authority, **_COMMON, **_login(parts), **(headers or {})}
    lines = [f"{method} {path}{query} HTTP/1.1", *(_line(name, value) for name, value in fields.items())]
    return Target(origin, "".join(f"{line}\r\n" for line in lines).encode("latin-1"))


def _split(url: str) -> tuple[SplitResult, Origin]:
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("ascii" if ":" in (parts.hostname or "") else "idna").decode()
    except ValueError as error:
        raise Unusable(f"{url}: no address: {error}") from None
    if parts.scheme not in _PORTS or not host:
        raise Unusable(f"{url}: no address of the web; it begins with http:// or https:// and a host")
    return parts, Origin(parts.scheme, host, port if port is not None else _PORTS[parts.scheme])


def _login(parts: SplitResult) -> dict[str, str]:
    """What a user and a password in the address become (RFC 7617)."""
    if parts.username is None:
        return {}
    login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}


def _line(name: str, value: str) -> str:
    if not _TOKEN.fullmatch(name):
        raise Unusable(f"the header {name!r} cannot be sent: that is no name")
    if not _VALUE.fullmatch(value):
        raise Unusable(f"the header {name} cannot be sent: its value holds a line break or a character beyond Latin-1")
    return f"{name}: {value}"
