"""A tunnel without the ssh program: a process of its own that forwards a local port over one connection.

`python -m provisioners.shell.forwarder ORDER`, ORDER being JSON. It says "ready" on standard output when it listens,
and ends when the connection does; whoever holds it starts it again. What went wrong stands on standard error, as JSON.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import paramiko  # type: ignore[import-untyped]

from provisioners.shell.link import Link
from provisioners.shell.openssh import IDLE
from provisioners.shell.target import Target
from recipes.errors import NoMachine

_BLOCK = 64 << 10
_WAITING = 256
_BROKEN = (paramiko.SSHException, EOFError, OSError)


def forwarder_argv(
    target: Target, local_port: int, remote_port: int, *, connect_timeout_s: float, silence_s: float
) -> list[str]:
    """What starts it. Nothing secret is in there: the key is named by its file."""
    order = {
        "target": asdict(target),
        "local_port": local_port,
        "remote_port": remote_port,
        "connect_timeout_s": connect_timeout_s,
        "silence_s": silence_s,
    }
    return [sys.executable, "-P", "-m", "provisioners.shell.forwarder", json.dumps(order, default=str)]


def main(arguments: list[str]) -> None:
    order = json.loads(arguments[0])
    given = order["target"]
    paths = {name: Path(given[name]) for name in ("known_hosts", "key") if given[name]}
    link = Link(
        Target(**{**given, **paths}), connect_timeout_s=order["connect_timeout_s"], silence_s=order["silence_s"]
    )
    try:
        link.connect()
        idle = link.open_session()
        idle.exec_command(IDLE)
        server = socket.create_server(("127.0.0.1", order["local_port"]), backlog=_WAITING)
    except NoMachine as error:
        _leave({"error": type(error).__name__, "message": error.message, "advice": error.advice})
    except _BROKEN as error:
        said = f"port {order['local_port']}: {error.strerror}" if isinstance(error, OSError) else str(error)
        _leave({"error": "Lost", "message": said, "advice": ""})
    threading.Thread(target=_accept, args=[server, link, order["remote_port"]], daemon=True).start()
    print("ready", flush=True)  # noqa: T201 (its way to speak to who started it)
    _leave({"error": "Lost", "message": link.wait_until_over(), "advice": ""})


def _leave(said: dict[str, str]) -> NoReturn:
    sys.stderr.write(json.dumps(said) + "\n")
    sys.stderr.flush()
    os._exit(1)


def _accept(server: socket.socket, link: Link, port: int) -> None:
    while True:
        client, _ = server.accept()
        # The channel is opened over there: who comes next does not wait for it.
        threading.Thread(target=_serve, args=[client, link, port], daemon=True).start()


def _serve(client: socket.socket, link: Link, port: int) -> None:
    with client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            channel = link.open_direct(port)
        except _BROKEN:
            return
        up = threading.Thread(
            target=_pump, args=[client.recv, channel.sendall, channel.shutdown_write, channel], daemon=True
        )
        up.start()
        _pump(channel.recv, client.sendall, lambda: client.shutdown(socket.SHUT_WR), channel)
        up.join()
        with suppress(*_BROKEN):
            channel.close()


def _pump(read: Callable[[int], bytes], write: Callable[[bytes], Any], end: Callable[[], Any], channel: Any) -> None:
    """Copy until the end of what is read, and say so on the other side; whatever breaks ends both ways."""
    try:
        while block := read(_BLOCK):
            write(block)
        end()
    except _BROKEN:
        with suppress(*_BROKEN):
            channel.close()


if __name__ == "__main__":
    main(sys.argv[1:])
