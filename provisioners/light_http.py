"""HTTP GET with the standard library alone, for commands that ask little and must start fast."""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes


class NeverSent(OSError):
    """There was no connection, so nothing was asked."""


class Connections:
    """Open connections by host, kept for the next question. Not for several threads at once; close it at the end."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        """Of connections that are opened from now on: for connecting, and for each silence."""
        self._open: dict[tuple[str, str], http.client.HTTPConnection] = {}

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """One answer; redirects are answers too. Raises NeverSent, OSError or http.client.HTTPException."""
        parts = urlsplit(url)
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        with self._connection(parts.scheme, parts.netloc) as (connection, prefix):
            connection.request("GET", prefix + (path or "/"), headers=dict(headers))
            response = connection.getresponse()
            body = response.read()
            if response.will_close:
                connection.close()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, body)

    @contextmanager
    def _connection(self, scheme: str, netloc: str) -> Iterator[tuple[http.client.HTTPConnection, str]]:
        """The open connection to a host, and what stands before a path there; one that failed is let go."""
        key = (scheme, netloc)
        proxy = _proxy(scheme, netloc)
        if key not in self._open:
            self._open[key] = _connect(scheme, netloc, proxy, self.timeout_s)
        try:
            yield self._open[key], f"{scheme}://{netloc}" if proxy and scheme == "http" else ""
        except BaseException:
            self._open.pop(key).close()
            raise


def _connect(scheme: str, netloc: str, proxy: str | None, timeout_s: float) -> http.client.HTTPConnection:
    try:
        if scheme == "http":
            found = http.client.HTTPConnection(proxy or netloc, timeout=timeout_s)
        else:
            found = http.client.HTTPSConnection(proxy or netloc, timeout=timeout_s, context=trust())
            if proxy:
                found.set_tunnel(netloc)
        found.connect()
    except (OSError, http.client.HTTPException) as error:
        raise NeverSent(str(error) or type(error).__name__) from error
    return found


def trust() -> ssl.SSLContext:
    """The machine's certificates, and those that the Hub's library brings along: a bare container has none."""
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE"):
        with suppress(ImportError, OSError):
            import certifi

            context.load_verify_locations(certifi.where())
    return context


def _proxy(scheme: str, netloc: str) -> str | None:
    """The proxy that the environment names for a host, as host:port."""
    if not any(name.lower() in (f"{scheme}_proxy", "all_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(netloc):
        return None
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    return (urlsplit(found).netloc or found).rpartition("@")[2] if found else None
