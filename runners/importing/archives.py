"""Archives of runs, as CI systems keep them: unpacked without anything that leads out of the folder."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from recipes.errors import UsageError

_Read = Callable[[str], IO[bytes]]
_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def is_archive(path: Path) -> bool:
    return path.name.lower().endswith(_SUFFIXES)


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    file: bool
    folder: bool


def unpack(archive: Path, into: Path) -> None:
    """Unpack files and folders; nothing at all is left if the archive holds anything else. Raises UsageError."""
    try:
        with _opened(archive) as (members, read):
            _judge(archive, members, into)
            for member in members:
                target = into / member.name
                if member.folder:
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                with read(member.name) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{archive} is no whole archive{_why(error)}", advice="fetch it again") from error
    except FileExistsError as error:
        raise UsageError(f"{archive} holds {Path(error.filename).name} twice", advice="make it anew") from error
    except (OSError, ValueError) as error:  # no room, or a name that is none here
        raise UsageError(
            f"{archive} cannot be unpacked: {error}", advice="unpack it yourself, and name the folder"
        ) from error


def _why(error: Exception) -> str:
    """Of a file that is none of its kinds, tarfile names the reason of each kind: none of them says more."""
    text = str(error)
    return f": {text}" if text and "\n" not in text else ""


def _judge(archive: Path, members: list[_Member], into: Path) -> None:
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or "\0" in member.name:
            raise UsageError(f"{archive}: {member.name!r} leads out of it", advice="nothing of it was taken")
        if not (member.file or member.folder):
            raise UsageError(f"{archive}: {member.name!r} is no file and no folder", advice="nothing of it was taken")
    size, free = sum(member.size for member in members), shutil.disk_usage(into).free
    if size > free:
        raise UsageError(f"{archive} unpacks to {size:,} bytes, and {free:,} are free", advice=f"make room at {into}")


@contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[_Member], _Read]]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as zipped:
            yield [_of_zip(info) for info in zipped.infolist()], zipped.open
        return
    with tarfile.open(archive) as tar:
        members = [_Member(m.name, m.size, m.isreg(), m.isdir()) for m in tar.getmembers()]

        def read(name: str) -> IO[bytes]:
            file = tar.extractfile(name)
            if file is None:
                raise tarfile.ReadError(f"{name} has no content")
            return file

        yield members, read


def _of_zip(info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    folder = info.is_dir()
    return _Member(info.filename, info.file_size, not folder and kind in (0, stat.S_IFREG), folder)
