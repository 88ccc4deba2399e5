"""The SSH side of a pod: which sshd is used, its configuration, its port."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import socket
from itertools import cycle
from pathlib import Path

from provisioners.rehearsal.isolation import SSH_DIR
from recipes.errors import NoMachine

PLACES = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where sshd is besides PATH, which seldom holds the administrator's programs."""
PORTS = range(20_000, 32_000)
"""Below those that systems give to outgoing connections, so that a port stays free while its sshd is away."""
_TURNS = cycle(random.sample(PORTS, len(PORTS)))
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find_sshd() -> str:
    """The machine's sshd. Raises NoMachine, with the command that mends it."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:{PLACES}")
    if found is None:
        raise NoMachine(
            "the rehearsal's pods need sshd, and this machine has none",
            advice="sudo apt-get install openssh-server   (or: dnf install openssh-server, apk add openssh-server)",
        )
    return found


def user() -> pwd.struct_passwd:
    return pwd.getpwuid(os.getuid())


def search_path(image_path: Path | None) -> str:
    """PATH inside a pod: what the image brings first."""
    return f"{image_path}:{_SYSTEM_PATH}" if image_path else _SYSTEM_PATH


def free_port() -> int:
    """A port of loopback that nobody listens on now.

    This process has not given it before, as long as there are others: pods that start at once do not listen yet.
    """
    while True:
        port = next(_TURNS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def write_config(pod_dir: Path, port: int, *, isolated: bool, image_path: Path | None) -> None:
    """The configuration of a pod's sshd. A session gets no variable of the pod, as at RunPod."""
    folder = pod_dir / "ssh"
    at = SSH_DIR if isolated else folder
    lines = [
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {at}/host_key",
        f"PidFile {at}/sshd.pid",
        "UsePAM no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitRootLogin prohibit-password",
        "PrintMotd no",
        "Subsystem sftp internal-sftp",
    ]
    if isolated:
        lines.append(f'SetEnv PATH="{search_path(image_path)}"')
    else:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        home = pod_dir / "home"
        # The folders above belong to others, such as a /tmp that all may write to.
        lines += ["StrictModes no", f"AuthorizedKeysFile {home}/.ssh/authorized_keys"]
        lines.append(f'SetEnv PATH="{search_path(image_path)}" HOME="{home}"')
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")


def let_in(home: Path, public_key: str) -> None:
    """Append a key to a home's authorized keys, once, as the start script of official images does."""
    folder = home / ".ssh"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "authorized_keys"
    known = path.read_text().splitlines() if path.exists() else []
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in public_key.splitlines() if line.strip() and line not in known)
    path.chmod(0o600)
