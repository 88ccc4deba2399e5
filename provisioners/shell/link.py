"""One connection to a machine, through fabric, that notices by itself when nobody answers any more."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]
from fabric import Config, Connection  # type: ignore[import-untyped]

from provisioners.shell.hostkeys import Expected, HostKey, expected
from provisioners.shell.target import Lost, NotAdmitted, Target, known_name, parse_address
from recipes.errors import RecipeError

CHANNELS = 8
"""Sessions on one connection; OpenSSH's MaxSessions is 10, and people may be logged in as well."""
_PINGS_PER_SILENCE = 3

# Errors arrive as exceptions; what paramiko says besides would stand in the user's terminal.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Link:
    """An authenticated connection. Blocking; `cut` may be called from any thread, and frees all that wait for it."""

    def __init__(self, target: Target, *, connect_timeout_s: float, silence_s: float) -> None:
        self.target = target
        self.used, self.room = 0, CHANNELS
        """Sessions that are taken, and how many there may be."""
        self.opened = 0
        """Those of them that the server has granted."""
        self.grants = False
        """Whether it ever granted one."""
        self._opening = threading.Lock()
        self._connect_timeout_s, self._silence_s = connect_timeout_s, silence_s
        self._over = threading.Event()
        self._reason = ""
        self._hops: list[_Hop] = []
        self._channels: weakref.WeakSet[Any] = weakref.WeakSet()

    def connect(self) -> None:
        """Raises Lost, NotAdmitted or HostKeyChanged. Host keys that were not known are pinned after authentication."""
        try:
            connection = self._connection()
        except (OSError, ValueError, paramiko.SSHException) as error:
            raise NotAdmitted(f"cannot prepare a connection to {self.target}: {error}") from error
        limit_s = self._connect_timeout_s * len(self._hops)
        timer = threading.Timer(limit_s, self.cut, [f"no answer within {limit_s:g} s"])
        timer.daemon = True
        timer.start()
        try:
            with self._explained():
                connection.open()
        except BaseException:
            self.cut("not connected")
            raise
        finally:
            timer.cancel()
        for hop in self._hops:
            hop.pin()
        threading.Thread(target=self._watch, name=f"watch {self.target}", daemon=True).start()

    @property
    def alive(self) -> bool:
        transport = self._transport
        return not self._over.is_set() and transport is not None and transport.is_active()

    @property
    def reason(self) -> str:
        """Why it is over."""
        return self._reason or "the connection was closed"

    def open_session(self) -> Any:
        """A channel for one command. Raises paramiko's errors, EOFError and OSError."""
        # One after the other: paramiko keeps one reason for a refusal, whoever it was that was refused.
        with self._opening:
            channel = self._transport.open_session(timeout=self._connect_timeout_s)
            self.opened += 1
            self.grants = True
        self._channels.add(channel)
        return channel

    def close_session(self, channel: Any) -> None:
        with suppress(paramiko.SSHException, EOFError, OSError):
            channel.close()
        with self._opening:
            self.opened -= 1

    def open_direct(self, port: int) -> Any:
        """A channel to a port of the machine's loopback. Raises paramiko's errors, EOFError and OSError."""
        return self._transport.open_channel(
            "direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 0), timeout=self._connect_timeout_s
        )

    def cut(self, reason: str) -> None:
        """End it now, without a word to the other side. Never blocks."""
        if not self._over.is_set():
            self._reason = reason
            self._over.set()
        for hop in self._hops:
            hop.cut()
        for channel in list(self._channels):
            # A request whose connection ends in the very moment in which it is made would wait for ever.
            channel.event.set()

    def wait_until_over(self) -> str:
        """Block until there is no contact any more; returns why."""
        self._over.wait()
        return self.reason

    @property
    def _transport(self) -> Any:
        return self._hops[-1].transport if self._hops else None

    def _connection(self) -> Any:
        """What fabric is to connect; each hop of it pinned and cut-able."""
        target = self.target
        # With a key of our own nothing of the user's configuration may change what happens.
        config = Config(lazy=True, ssh_config=paramiko.SSHConfig() if target.key else None)
        if target.key is None:
            config.load_ssh_config()
        gateway, jump_name = None, None
        if target.jump:
            user, host, port = parse_address(target.jump)
            gateway, jump_name = self._through(host, port, user, config, None), known_name(host, port)
        connection = self._through(target.host, target.port, target.user, config, gateway)
        hop: Any = connection
        while isinstance(hop, Connection):
            alias = target.alias if hop is connection else jump_name if hop is gateway else None
            self._hops.insert(0, self._prepared(hop, alias))
            hop = hop.gateway
        return connection

    def _through(self, host: str, port: int | None, user: str | None, config: Any, gateway: Any) -> Any:
        # A little after our own deadline, which knows what to say.
        timeout = round(self._connect_timeout_s) + 1
        return Connection(host, port=port, user=user, config=config, gateway=gateway, connect_timeout=timeout)

    def _prepared(self, connection: Any, alias: str | None) -> _Hop:
        name = known_name(connection.original_host, connection.port)
        users: list[Path] = []
        if self.target.key is None:
            files = connection.ssh_config.get("userknownhostsfile", "~/.ssh/known_hosts").split()
            users = [Path(file).expanduser() for file in files]
        names = {name, known_name(connection.host, connection.port), connection.ssh_config.get("hostkeyalias", name)}
        hop = _Hop(
            expected(self.target.known_hosts, alias or name, also=sorted(names), users=users), str(connection.host)
        )
        connection.client.set_missing_host_key_policy(hop)
        # Like ssh, and unlike paramiko: a key that the configuration names and that is not there is passed over.
        named = [file for file in connection.connect_kwargs.get("key_filename", []) if Path(file).expanduser().exists()]
        connection.connect_kwargs = {
            **_authentication(self.target.key),
            "key_filename": named,
            "transport_factory": hop.make_transport,
            # The whole of connecting has one deadline; these must not come before it.
            "banner_timeout": self._connect_timeout_s * 2,
            "auth_timeout": self._connect_timeout_s * 4,
            "channel_timeout": self._connect_timeout_s,
        }
        return hop

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what can happen while connecting into our errors."""
        try:
            yield
        except RecipeError:
            raise
        except (paramiko.SSHException, EOFError, OSError, ValueError) as error:
            # What is no name of a machine is a ValueError.
            if isinstance(error, paramiko.ConfigParseError | paramiko.ProxyCommandFailure | ValueError):
                raise NotAdmitted(f"no connection to {self.target}: {error}") from error
            asked = next((hop for hop in self._hops if hop.is_asking), None)
            if asked is None or self._over.is_set():
                raise Lost(f"no connection to {self.target}: {self._reason or _in_words(error)}") from error
            what = f"with {self.target.key}" if self.target.key else "with your keys"
            who = self.target.user or getpass.getuser()
            raise NotAdmitted(
                f"{asked.host} does not let {who} in {what}: {_in_words(error)}",
                advice="check the user and the key; ssh-add makes a key with a passphrase usable",
            ) from error

    def _watch(self) -> None:
        """Ask for a sign of life when none came by itself; without one in time, the connection is over.

        paramiko's own keepalive expects no answer, so it never notices that there is none.
        """
        hop, pinging = self._hops[-1], None
        while not self._over.is_set():
            hop.transport.join(min(1.0, self._silence_s / 10))
            if not hop.transport.is_active():
                self.cut("the connection was closed")
            elif hop.silent_s > self._silence_s:
                self.cut(f"no answer for {self._silence_s:g} s")
            elif hop.silent_s > self._silence_s / _PINGS_PER_SILENCE and not (pinging and pinging.is_alive()):
                pinging = threading.Thread(target=hop.ping, daemon=True)
                pinging.start()


class _Hop(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
    """One of the connections that lead to the machine: its host key is checked, its socket listened to."""

    def __init__(self, known: Expected, host: str) -> None:
        self.host = host
        self.transport: Any = None
        self._known = known
        self._seen: HostKey | None = None
        self._ear: _Ear | None = None
        self._is_cut = False

    def make_transport(self, sock: Any, **options: Any) -> Any:
        self._ear = _Ear(sock)
        self.transport = paramiko.Transport(self._ear, packetizer_class=_Packets, **options)
        wished = [kind for key in self._known.keys for kind in _algorithms(key.kind)]
        security = self.transport.get_security_options()
        # The pinned kind first: a machine has several keys, and shows the one that is asked for.
        first = [kind for kind in dict.fromkeys(wished) if kind in security.key_types]
        security.key_types = [*first, *(kind for kind in security.key_types if kind not in first)]
        if self._is_cut:
            self._ear.shut()
        return self.transport

    def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
        """Called for every machine, since its client is told of no keys."""
        self._seen = HostKey(key.get_name(), key.get_base64())
        self._known.check(self._seen, hostname)

    def pin(self) -> None:
        assert self._seen is not None
        self._known.pin(self._seen)

    @property
    def is_asking(self) -> bool:
        """Whether the machine answers, and it was us who went away or were sent away."""
        active = self.transport is not None and self.transport.is_active()
        return active and self._seen is not None and not self.transport.is_authenticated()

    @property
    def silent_s(self) -> float:
        """How long nothing was heard."""
        return time.monotonic() - self._ear.heard_at if self._ear else 0.0

    def ping(self) -> None:
        with suppress(Exception):  # whatever it is, no answer comes
            self.transport.global_request("keepalive@openssh.com", wait=True)

    def cut(self) -> None:
        self._is_cut = True
        if self._ear:
            self._ear.shut()


class _Ear:
    """A socket that knows when something was last heard on it."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self.heard_at = time.monotonic()
        if isinstance(sock, socket.socket):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def recv(self, count: int) -> bytes:
        data: bytes = self._sock.recv(count)
        self.heard_at = time.monotonic()
        return data

    def shut(self) -> None:
        """Wake whoever reads or writes. A connection through a jump ends with the one that carries it."""
        if isinstance(self._sock, socket.socket):
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)
        elif isinstance(self._sock, paramiko.ProxyCommand):
            with suppress(Exception):
                self._sock.close()

    def close(self) -> None:
        # On a channel through a jump this says good-bye, which fails when the jump has gone.
        with suppress(paramiko.SSHException, EOFError, OSError):
            self._sock.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class _Packets(paramiko.Packetizer):  # type: ignore[misc]
    def start_handshake(self, timeout: float) -> None:
        """No timer: paramiko's would keep a program that ends waiting; connecting has a deadline of its own."""


def _algorithms(kind: str) -> list[str]:
    """The signature algorithms under which a key of this kind is offered."""
    return ["rsa-sha2-512", "rsa-sha2-256"] if kind == "ssh-rsa" else [kind]


def _authentication(key: Path | None) -> dict[str, Any]:
    if key is None:
        return {"look_for_keys": True, "allow_agent": True}
    try:
        loaded = paramiko.PKey.from_path(key)
    except (OSError, ValueError, TypeError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
        why = "it has a passphrase" if "assword" in str(error) or "assphrase" in str(error) else _in_words(error)
        raise NotAdmitted(
            f"the key {key} cannot be used: {why}",
            advice="give one without a passphrase, or add it to your agent (ssh-add) and leave the file out",
        ) from error
    return {"pkey": loaded, "look_for_keys": False, "allow_agent": False}


def _in_words(error: BaseException) -> str:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        return ", ".join(sorted({os.strerror(one.errno or 0).lower() for one in error.errors.values()}))
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or "the connection was closed"
