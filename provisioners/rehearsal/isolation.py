"""A container's own view of the machine, made with Linux namespaces. Standard library only; needs root's rights.

Its process numbers begin at 1; /tmp, the home, /run and its volumes are its own; what it writes to /etc, /opt, /usr and
/var stays with it. Network, users and devices are the machine's.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# <sched.h>, <sys/mount.h>, <sys/prctl.h>
_NEW_MOUNTS, _NEW_PROCESSES = 0x00020000, 0x20000000
_READ_ONLY, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 32, 4096, 16384, 1 << 18

SSH_DIR = Path("/.sshd")
OWN_LAYER = ("etc", "opt", "usr", "var")
"""Top-level directories in which a container may write without the machine's noticing."""
_START_SH = """#!/bin/sh
# Stands where RunPod's own images start their services; this pod's sshd was started from outside.
exec sleep infinity
"""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Plan:
    """What a container's root is made of."""

    pod: Path
    """The pod's folder: tmp, home, ssh and root are there."""
    home: str
    """The home's path inside."""
    mounts: Sequence[tuple[str, str]]
    """Folders of the machine, and where they are mounted."""
    visible: Sequence[str]
    """Folders of the machine that are shown at their own place, where something private hides them."""
    disk_kib: int | None
    """The size of /tmp and of the home, if they are to be full soon."""

    @property
    def root(self) -> Path:
        return self.pod / "root"


def isolate(plan: Plan, complain: Callable[[str], None]) -> Path:
    """Enter namespaces of our own and build the container's root there; returns its path.

    The next child is the first process of the container. Raises OSError.
    """
    _call(_libc.unshare(_NEW_MOUNTS | _NEW_PROCESSES), "unshare")
    mount("none", "/", flags=_RECURSIVE | _PRIVATE)
    root = plan.root
    mount("pod", root, "tmpfs", data="mode=755,size=64m")
    home = plan.home.strip("/")
    private = {"proc", "tmp", "run", home.split("/")[0]}
    for source in sorted(Path("/").iterdir()):
        if source.name not in private:
            _show(plan.pod, source, root / source.name)
    for inside, name, mode in (("tmp", "tmp", 0o1777), (home, "home", 0o700)):
        (root / inside).mkdir(parents=True)
        _give_disk(plan, plan.pod / name, root / inside, mode)
    (root / "proc").mkdir()
    if (root / "dev" / "shm").is_dir():
        mount("pod-shm", root / "dev" / "shm", "tmpfs", data="mode=1777")
    (root / "run" / "sshd").mkdir(parents=True)
    bind(plan.pod / "ssh", _under(root, SSH_DIR))
    _unlock(plan, root / "etc" / "shadow")
    resolver = Path("/etc/resolv.conf").resolve()
    needed = [str(resolver.parent)] if resolver.parts[1:2] == ("run",) else []
    for path in map(Path, [*needed, *plan.visible]):
        inside_path = _under(root, path)
        if path.is_dir() and not (inside_path.exists() and inside_path.samefile(path)):
            inside_path.mkdir(parents=True, exist_ok=True)
            if not _layer(plan.pod, path, inside_path):
                bind(path, inside_path, read_only=True)
    for volume, at in plan.mounts:
        _attach(plan.pod, root, Path(volume), Path(at), complain)
    start = root / "start.sh"
    start.write_text(_START_SH)
    start.chmod(0o755)
    return root


def enter(root: Path, *, first: bool) -> None:
    """Make a new child part of the container; the first one brings /proc."""
    if first:
        mount("proc", root / "proc", "proc")
    os.chroot(root)


def mount(source: str | Path, target: str | Path, kind: str | None = None, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    encoded = [None if text is None else str(text).encode() for text in (source, target, kind)]
    _call(_libc.mount(*encoded, ctypes.c_ulong(flags), data.encode() or None), str(target))


def bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    target.mkdir(parents=True, exist_ok=True)
    mount(source, target, flags=_BIND | _RECURSIVE)
    if read_only:
        mount(source, target, flags=_BIND | _REMOUNT | _READ_ONLY)


def _call(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def _under(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _show(pod: Path, source: Path, target: Path) -> None:
    """One of the machine's top-level entries in the container."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_dir():
        target.mkdir()
        if source.name not in OWN_LAYER or not _layer(pod, source, target):
            mount(source, target, flags=_BIND | _RECURSIVE)


def _give_disk(plan: Plan, folder: Path, target: Path, mode: int) -> None:
    if plan.disk_kib is None:
        mount(folder, target, flags=_BIND)
        return
    mount("pod-disk", target, "tmpfs", data=f"mode={mode:o},size={plan.disk_kib}k")
    shutil.copytree(folder, target, dirs_exist_ok=True)


def _unlock(plan: Plan, shadow: Path) -> None:
    """sshd lets nobody in, not even with a key, whose account is locked, as root's is on many machines."""
    if not shadow.is_file():
        return
    locked = shadow.read_text()
    unlocked = re.sub(r"^(root:)!", r"\1*", locked, flags=re.MULTILINE)
    if unlocked != locked:
        copy = plan.pod / "ssh" / "shadow"
        copy.touch(mode=0o600)
        copy.write_text(unlocked)
        mount(copy, shadow, flags=_BIND)


def _layer(pod: Path, lower: Path, target: Path) -> bool:
    """The directory with a writable layer of the pod's own; False where the kernel or the disk cannot."""
    if pod.is_relative_to(lower):
        return False
    name = str(lower).strip("/").replace("/", "+")
    upper, work = pod / "layers" / "upper" / name, pod / "layers" / "work" / name
    upper.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)
    try:
        mount("pod-layer", target, "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={work}")
    except OSError:
        return False
    # What is mounted inside, such as a Docker container's own /etc/resolv.conf, is not part of the lower layer.
    for line in Path("/proc/self/mounts").read_text().splitlines():
        inner = Path(line.split()[1])
        if inner != lower and inner.is_relative_to(lower) and os.path.lexists(target / inner.relative_to(lower)):
            with suppress(OSError):
                mount(inner, target / inner.relative_to(lower), flags=_BIND)
    return True


def _attach(pod: Path, root: Path, volume: Path, at: Path, complain: Callable[[str], None]) -> None:
    """Mount a volume. Where its path does not exist, no directory may be left on the machine."""
    target = _under(root, at)
    above = target.parent
    while not above.is_dir():
        above = above.parent
    ours = above == root or above.relative_to(root).parts[0] in (*OWN_LAYER, "tmp", "run")
    try:
        if not target.is_dir() and not ours and not _layer(pod, Path("/") / above.relative_to(root), above):
            raise OSError(f"no directory can be made in /{above.relative_to(root)}")
        bind(volume, target)
    except OSError as error:
        complain(f"no volume is mounted at {at}: {error}")
