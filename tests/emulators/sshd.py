"""A real sshd on loopback with its own configuration, and what can go wrong: cut, frozen, refused, replaced."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from provisioners.rehearsal.sshd import kept_port

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/sbin")


def key_pair(path: Path) -> str:
    """Write a new ed25519 key in OpenSSH's format; returns its public half as one line."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    path.chmod(0o600)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    path.with_name(path.name + ".pub").write_text(public + "\n")
    return public


def free_port() -> int:
    """A port that nobody has now; a moment later somebody may."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@dataclass
class Sshd:
    """One server. Its folder holds everything that it reads and writes."""

    folder: Path
    options: dict[str, str] = field(default_factory=dict)
    user: str = field(default_factory=getpass.getuser)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        # Its own from now on, also while the server is down.
        self.port, self._keeper = kept_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.new_host_key()
        self.key = self.folder / "client_key"
        self.authorize(key_pair(self.key))

    @property
    def home(self) -> Path:
        """HOME of everything that runs there."""
        return self.folder / "home"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def authorize(self, *public_keys: str) -> None:
        """Let in who has one of these keys, and nobody else."""
        (self.folder / "authorized_keys").write_text("".join(f"{key}\n" for key in public_keys))
        (self.folder / "authorized_keys").chmod(0o600)

    def new_host_key(self) -> None:
        """Takes effect with the next start."""
        key_pair(self.folder / "host_key")

    @property
    def host_key(self) -> str:
        """Kind and base64, as in a known_hosts file."""
        return (self.folder / "host_key.pub").read_text().strip()

    def start(self) -> Sshd:
        assert SSHD is not None, "no sshd on this machine: apt install openssh-server"
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = {
            "ListenAddress": "127.0.0.1",
            "Port": str(self.port),
            "HostKey": f'"{self.folder / "host_key"}"',
            "AuthorizedKeysFile": f'"{self.folder / "authorized_keys"}"',
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "UseDNS": "no",
            "PrintMotd": "no",
            "LogLevel": "VERBOSE",
            "Subsystem": "sftp internal-sftp",
            # Nothing of the real home's shell configuration: it may be slow, or say something.
            "SetEnv": f'"HOME={self.home}"',
            **self.options,
        }
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=log, stdin=subprocess.DEVNULL)
        _until(lambda: self._listens() or self.process.poll() is not None, "sshd to listen")
        assert self.process.poll() is None, self.log
        return self

    def stop(self) -> None:
        """End the server and every session; from then on connections are refused."""
        self.thaw()
        sessions = self.sessions()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for session in sessions:
            with suppress(psutil.NoSuchProcess):
                session.kill()

    def refuse(self) -> None:
        """Take no new connections; those that there are go on."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def sessions(self) -> list[psutil.Process]:
        """The server's processes, one or two for each connection; not what runs in them."""
        found = []
        for process in psutil.process_iter(["name", "cmdline", "ppid"]):
            with suppress(psutil.Error):
                if process.info["name"] in ("sshd", "sshd-session") and self._is_ours(process):
                    found.append(process)
        return found

    def kill_sessions(self) -> int:
        """Cut every connection, as a machine does that goes down; returns how many processes that took."""
        sessions = self.sessions()
        for session in sessions:
            with suppress(psutil.NoSuchProcess):
                session.kill()
        return len(sessions)

    def freeze(self) -> None:
        """Stop in the middle of everything: connections stay, and nothing comes any more."""
        if self.process is not None:  # first, so that it makes no further sessions
            self.process.send_signal(signal.SIGSTOP)
        for session in self.sessions():
            with suppress(psutil.NoSuchProcess):
                session.suspend()

    def thaw(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
        for session in self.sessions():
            with suppress(psutil.NoSuchProcess):
                session.resume()

    def _is_ours(self, process: psutil.Process) -> bool:
        """A session of this server: its child, or with a local end at its port if the server has gone."""
        if self.process is not None:
            if process.pid == self.process.pid:
                return False
            return any(parent.pid == self.process.pid for parent in process.parents())
        return any(
            connection.laddr and connection.laddr.port == self.port and connection.status != psutil.CONN_LISTEN
            for connection in process.net_connections("tcp")
        )

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@contextmanager
def running_sshd(folder: Path, **options: str) -> Iterator[Sshd]:
    """A server for as long as the block runs."""
    server = Sshd(folder, options=options).start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def wire(to_port: int) -> Iterator[Wire]:
    """A wire to a port for as long as the block runs."""
    made = Wire(to_port)
    try:
        yield made
    finally:
        made.close()


class Wire:
    """What lies between a client and a server: it can be slow to break, and break in the middle of something."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.carried = 0
        """Bytes from clients to the server, over all connections."""
        self._cut_at: int | None = None
        self._ends: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection now."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends = []

    def cut_after(self, count: int) -> None:
        """Break every connection when so many more bytes have gone to the server."""
        self._cut_at = self.carried + count

    def freeze(self) -> None:
        """Carry nothing any more; connections stay."""
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def close(self) -> None:
        self._server.close()
        self.thaw()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                return
            self._ends += [client, server]
            threading.Thread(target=self._carry, args=[client, server, True], daemon=True).start()
            threading.Thread(target=self._carry, args=[server, client, False], daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, counts: bool) -> None:
        with suppress(OSError), source:
            while block := source.recv(16 << 10):
                self._flowing.wait()
                if counts:
                    self.carried += len(block)
                    if self._cut_at is not None and self.carried >= self._cut_at:
                        self._cut_at = None
                        self.cut()
                        return
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)


def _until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)
