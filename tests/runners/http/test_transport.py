"""The HTTP client on the wire: framings, cuts, ends, back-pressure, and how each failure is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from runners.http import loop
from runners.http.errors import Disconnected, HttpFailed, Malformed, NotConnected, Unusable
from runners.http.pool import Transport
from runners.http.target import target
from tests.runners.http.serving import Answer, Served, saying, serving

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
HELLO = HEAD + b"hello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
    b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n"
)
RUNNERS: list[Callable[[Any], Any]] = [asyncio.run, loop.run]


def with_server(
    answer: Answer, use: Callable[[Transport, Served], Awaitable[Any]], runner: Callable[[Any], Any] = loop.run
) -> Any:
    async def main() -> Any:
        async with asyncio.timeout(30), serving(answer) as served, Transport() as transport:
            return await use(transport, served)

    return runner(main())


async def get(transport: Transport, served: Served) -> tuple[int, bytes]:
    return await transport.get(served.url, timeout_s=10)


async def twice(transport: Transport, served: Served) -> tuple[bytes, bytes, int]:
    first, second = await get(transport, served), await get(transport, served)
    return first[1], second[1], served.connections


@pytest.mark.parametrize("runner", RUNNERS, ids=["asyncio", "direct"])
@pytest.mark.parametrize("whole", [HELLO, CHUNKED], ids=["length", "chunked"])
def test_an_answer_may_be_cut_anywhere(whole: bytes, runner: Callable[[Any], Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Transport() as transport:
            for cut in range(1, len(whole)):

                async def answer(writer: asyncio.StreamWriter, _: int, cut: int = cut) -> bool:
                    writer.write(whole[:cut])
                    await writer.drain()
                    await asyncio.sleep(0.002)
                    writer.write(whole[cut:])
                    return True

                async with serving(answer) as served:
                    assert await get(transport, served) == (200, b"hello")
                    assert await get(transport, served) == (200, b"hello")
                    assert served.connections == 1

    runner(main())


@pytest.mark.parametrize(
    ("blocks", "stay", "connections"),
    [
        ((HELLO,), True, 1),
        ((CHUNKED,), True, 1),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HELLO), True, 1),
        ((b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",), True, 2),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",), True, 2),
        ((b"HTTP/1.1 200 OK\r\n\r\nhel", b"lo"), False, 2),
        ((HELLO + b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n",), True, 2),
        ((HELLO + b"what?",), True, 2),
    ],
    ids=["length", "chunked", "1xx", "close", "http/1.0", "until the end", "another answer", "more than was said"],
)
def test_where_an_answer_ends(blocks: tuple[bytes, ...], stay: bool, connections: int) -> None:
    assert with_server(saying(*blocks, stay=stay), twice) == (b"hello", b"hello", connections)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_is_whole(status: int) -> None:
    head = f"HTTP/1.1 {status} -\r\n\r\n".encode()
    assert with_server(saying(head), twice) == (b"", b"", 1)


@pytest.mark.parametrize(
    ("blocks", "kind", "words"),
    [
        ((b"SSH-2.0-OpenSSH_9.6\r\n",), Malformed, "does not speak HTTP/1.1"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",), Malformed, "does not speak HTTP/1.1"),
        ((b"HTTP/1.1 200 OK\r\nA: " + b"x" * 300_000,), Malformed, "more than 196,608 bytes"),
        ((b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",), Malformed, "compressed (gzip)"),
        ((b"HTTP/1.1 101 -\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",), HttpFailed, ""),
        (
            (b"HTTP/1.1 307 -\r\nLocation: https://x/v1\r\nContent-Length: 0\r\n\r\n",),
            Unusable,
            "moved to https://x/v1",
        ),
        ((HEAD + b"hel",), Disconnected, "was closed in the middle of the answer"),
        ((CHUNKED[:-6],), Disconnected, "was closed in the middle of the answer"),
        ((), Disconnected, "was closed before the answer"),
    ],
    ids=["ssh", "chunks", "headers", "gzip", "upgrade", "moved", "short", "no last chunk", "nothing"],
)
def test_what_is_no_answer_is_told(blocks: tuple[bytes, ...], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as caught:
        with_server(saying(*blocks, stay=False), get)
    assert words in str(caught.value)


def test_a_server_that_falls_silent_is_given_up_in_time() -> None:
    with pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
        with_server(saying(HEAD), lambda transport, served: transport.get(served.url, timeout_s=0.1))


def test_the_request_says_what_it_must() -> None:
    async def use(transport: Transport, served: Served) -> tuple[bytes, int]:
        where = target("POST", f"http://me:pass%20word@127.0.0.1:{served.port}/a b?q=ü#x", {"X-Key": "k"})
        async with transport.send(where, b"body") as response:
            assert await response.read(100) == b"hello"
        return served.requests[0], served.port

    request, port = with_server(saying(HELLO), use)
    head, _, body = request.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    assert (first, body) == ("POST /a%20b?q=%C3%BC HTTP/1.1", b"body")
    assert f"Host: 127.0.0.1:{port}" in fields
    assert {"Accept-Encoding: identity", "X-Key: k", "Content-Length: 4"} <= set(fields)
    assert "Authorization: Basic bWU6cGFzcyB3b3Jk" in fields


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("ftp://host/x", {}),
        ("http:///x", {}),
        ("http://host:port/", {}),
        ("http://[::1/", {}),
        ("http://host/", {"Authorization": "Bearer secret\r\nX: y"}),
        ("http://host/", {"A b": "x"}),
    ],
)
def test_what_cannot_be_sent_is_said_without_its_secret(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(Unusable) as caught:
        target("GET", url, headers)
    assert "secret" not in str(caught.value)


def test_nobody_there_is_said_in_the_systems_words() -> None:
    async def main(port: int) -> None:
        async with Transport() as transport:
            with pytest.raises(NotConnected, match=f"no connection to 127.0.0.1:{port}: Connection refused"):
                await transport.get(f"http://127.0.0.1:{port}/")
            with pytest.raises(NotConnected, match=r"no connection to nowhere\.invalid:80: "):
                await transport.get("http://nowhere.invalid/")

    with socket.socket() as taken:  # the port is nobody else's meanwhile, and nobody listens there
        taken.bind(("127.0.0.1", 0))
        loop.run(main(taken.getsockname()[1]))


def test_a_name_with_an_address_where_nobody_is_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> list[int]:
        async with serving(saying(HELLO)) as served, Transport() as transport:
            running = asyncio.get_running_loop()

            async def two(*_: object, **__: object) -> list[Any]:
                wheres = [("127.0.0.2", served.port), ("127.0.0.1", served.port)]
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where) for where in wheres]

            monkeypatch.setattr(running, "getaddrinfo", two)
            return [(await transport.get(f"http://two.test:{served.port}/"))[0] for _ in range(3)]

    assert loop.run(main()) == [200, 200, 200]


def test_ipv6() -> None:
    async def main() -> tuple[int, bytes, bytes]:
        try:
            async with serving(saying(HELLO), host="::1") as served, Transport() as transport:
                status, body = await transport.get(f"http://[::1]:{served.port}/")
                return status, body, served.requests[0]
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")

    status, body, request = loop.run(main())
    assert (status, body) == (200, b"hello")
    assert b"\r\nHost: [::1]:" in request


@pytest.mark.parametrize("runner", RUNNERS, ids=["asyncio", "direct"])
def test_large_bodies_both_ways(runner: Callable[[Any], Any]) -> None:
    """Much more than the kernel takes at once, to a server that lets it wait; sending ends when the last byte went."""
    size = 20_000_000

    async def main() -> tuple[bool, float, int]:
        release = asyncio.Event()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await release.wait()
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(size)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(60), Transport() as transport:
            async with transport.send(target("POST", url), bytes(size)) as response:
                waits = response.sent is None
                await asyncio.sleep(0.05)
                released = monotonic()
                release.set()
                body = await response.read(size)
            assert response.sent is not None
            server.close()
            return waits, response.sent - released, len(body)

    waits, sent_after_s, received = runner(main())
    assert waits
    assert sent_after_s > 0
    assert received == size


def test_a_reader_that_lags_holds_the_server_up() -> None:
    """What is not read stays with the server: memory here is bounded."""
    total, written = 64, 0
    block = bytes(1 << 20)

    async def answer(writer: asyncio.StreamWriter, _: int) -> bool:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (total * len(block)))
        for _ in range(total):
            writer.write(block)
            await writer.drain()
            written += 1
        return True

    async def use(transport: Transport, served: Served) -> tuple[int, int, int]:
        async with transport.send(target("GET", served.url)) as response:
            await response.begun()
            previous = -1
            while previous != written:  # until the server is stuck
                previous = written
                await asyncio.sleep(0.2)
            stuck, held = written, sum(map(len, response.blocks))
            return stuck, held, len(await response.read(total * len(block)))

    stuck, held, received = with_server(answer, use)
    assert stuck < total
    assert held < 1_000_000
    assert received == total * len(block)


def test_an_answer_before_the_whole_request_was_taken_counts() -> None:
    async def main() -> tuple[int, bytes]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
            await writer.drain()
            await answered.wait()

        answered = asyncio.Event()
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with asyncio.timeout(30), Transport() as transport:
            async with transport.send(target("POST", url), bytes(50_000_000)) as response:
                body = await response.read(100)
            answered.set()
            server.close()
            return response.status, body

    assert loop.run(main()) == (413, b"too large")


def test_a_request_that_is_given_up_closes_its_connection_at_once() -> None:
    async def use(transport: Transport, served: Served) -> bytes:
        async def ask() -> None:
            async with transport.send(target("GET", served.url)) as response:
                await response.read(100)

        asking = asyncio.create_task(ask())
        while not served.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        async with asyncio.timeout(20):  # the transport, which would close it in the end, is open all the while
            await served.ended.wait()
        return (await get(transport, served))[1]

    async def answer(writer: asyncio.StreamWriter, number: int) -> bool:
        writer.write(HELLO if number > 1 else HEAD)
        return True

    assert with_server(answer, use) == b"hello"


def test_no_more_connections_than_requests_at_once() -> None:
    async def use(transport: Transport, served: Served) -> int:
        for _ in range(5):
            await asyncio.gather(*(get(transport, served) for _ in range(40)))
        return served.connections

    assert with_server(saying(HELLO), use) <= 40


def test_a_kept_connection_that_the_server_has_closed_is_not_used() -> None:
    async def answer(writer: asyncio.StreamWriter, _: int) -> bool:
        writer.write(HELLO)
        return False

    async def use(transport: Transport, served: Served) -> tuple[bytes, int]:
        await get(transport, served)
        await asyncio.sleep(0.05)
        return (await get(transport, served))[1], served.connections

    assert with_server(answer, use) == (b"hello", 2)


def test_tls_with_a_certificate_that_is_trusted_and_with_one_that_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    made = subprocess.run(["openssl", *words.split(), "-keyout", key, "-out", certificate], capture_output=True)
    assert made.returncode == 0, made.stderr
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    answer = saying(CHUNKED[:50], CHUNKED[50:])

    async def main() -> tuple[bytes, bytes, int]:
        async with asyncio.timeout(30), serving(answer, context=context) as served:
            url = f"https://127.0.0.1:{served.port}/"
            async with Transport() as stranger:
                with pytest.raises(NotConnected, match="certificate verify failed"):
                    await stranger.get(url)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
            before = served.connections
            async with Transport() as transport:
                first = (await transport.get(url))[1]
                second = (await transport.get(url))[1]
            return first, second, served.connections - before

    assert loop.run(main()) == (b"hello", b"hello", 1)


def test_the_moment_of_each_block_is_that_of_its_arrival() -> None:
    """A reader that is busy elsewhere, and woken late, still learns when each block came."""
    written: list[float] = []

    async def answer(writer: asyncio.StreamWriter, _: int) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        for letter in (b"a", b"b", b"c"):
            await asyncio.sleep(0.05)
            written.append(monotonic())
            writer.write(letter)
        return True

    async def use(transport: Transport, served: Served) -> list[float]:
        async with transport.send(target("GET", served.url)) as response:
            moments, blocks = await response.batch()
        assert blocks == [b"a", b"b", b"c"]
        assert response.ended == moments[-1]
        return list(moments)

    came = with_server(answer, use)
    assert all(sent <= moment for sent, moment in zip(written, came, strict=True))
    assert all(moment <= following for moment, following in zip(came, written[1:], strict=False)), "not with the next"
