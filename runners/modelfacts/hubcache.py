"""What the Hub said of commits, kept: small files that appear whole, and are made again when they are damaged.

A cache that cannot be written is no reason to stop: what was fetched lies in a temporary folder then.

`<cache>/<host>/<owner>--<name>/refs/<revision>.json` says which commit a branch meant when it was last asked for, and
`…/<commit>/` keeps the repository's description, what facts are made from, and the tokenizer.
"""

from __future__ import annotations

import glob
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from provisioners.files import write_whole
from recipes.errors import Refused

SCHEMA = 1
COMMIT = re.compile(r"[0-9a-f]{40}")


class HubCache:
    """The records of one repository."""

    def __init__(self, root: Path, host: str, repo: str, *, writes: bool = True) -> None:
        self.host = host
        """Whose answers are kept."""
        self._all = root
        self._root = root / quote(host, safe="") / repo.replace("/", "--")
        self._writes = writes
        self.trouble: str | None = None
        """Why nothing is kept, if it cannot be."""

    def of_other_hosts(self) -> Iterator[HubCache]:
        """What other hosts said of the same repository, to be read only."""
        for path in sorted(self._all.glob(f"*/{glob.escape(self._root.name)}")):
            if path != self._root:
                yield HubCache(self._all, unquote(path.parent.name), self._root.name, writes=False)

    def ref(self, revision: str) -> dict[str, Any] | None:
        """{"commit", "seen"} of a branch or tag."""
        found = _read(self._ref(revision))
        return found if found and COMMIT.fullmatch(str(found.get("commit"))) else None

    def keep_ref(self, revision: str, commit: str, seen: str) -> None:
        self._write(self._ref(revision), {"commit": commit, "seen": seen})

    def record(self, commit: str, name: str) -> dict[str, Any] | None:
        return _read(self._root / commit / f"{name}.json")

    def keep_record(self, commit: str, name: str, value: Mapping[str, Any]) -> None:
        self._write(self._root / commit / f"{name}.json", value)

    def file(self, commit: str, name: str) -> Path | None:
        """A file that is kept, if it is as it was; checked again by its digest where it was touched since."""
        path, noted = self._root / commit / name, _read(self._root / commit / f"{name}.kept")
        if noted is None:
            return None
        with suppress(OSError):
            stat = path.stat()
            if [stat.st_size, stat.st_mtime_ns] == noted.get("stat"):
                return path
            if stat.st_size == (noted.get("stat") or [None])[0] and _sha256(path.read_bytes()) == noted.get("sha256"):
                return path
        return None

    def keep_file(self, commit: str, name: str, data: bytes) -> Path:
        """Keep a file, for this process at least, and say where. Raises Refused where nothing can be written at all."""
        path = self._root / commit / name
        if not self._writes:
            return _for_this_process(name, data)
        try:
            _put(path, data)
            stat = path.stat()
        except OSError as error:
            self._cannot_keep(error)
            return _for_this_process(name, data)
        kept = {"stat": [stat.st_size, stat.st_mtime_ns], "sha256": _sha256(data)}
        self._write(path.with_name(f"{name}.kept"), kept)
        return path

    def _write(self, path: Path, value: Mapping[str, Any]) -> None:
        """A record that cannot be written is asked for again another time."""
        if not self._writes:
            return
        try:
            _put(path, json.dumps({"schema": SCHEMA, **value}).encode())
        except OSError as error:
            self._cannot_keep(error)

    def _cannot_keep(self, error: OSError) -> None:
        self.trouble = f"nothing is kept of what the Hub says: {self._all} cannot be written ({error.strerror})"

    def _ref(self, revision: str) -> Path:
        return self._root / "refs" / f"{quote(revision, safe='')}.json"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """A record of this schema; anything else is as good as none."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("schema") == SCHEMA else None


def _for_this_process(name: str, data: bytes) -> Path:
    """The file in a folder that goes with the process. Raises Refused."""
    import atexit  # these take long to import, and are seldom needed
    import shutil
    import tempfile

    try:
        folder = Path(tempfile.mkdtemp(prefix="recipe-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        (folder / name).write_bytes(data)
    except OSError as error:
        raise Refused(
            f"neither the cache nor a temporary folder can be written: {error.strerror}",
            advice="make room, or set XDG_CACHE_HOME to another folder",
        ) from error
    return folder / name


def _put(path: Path, data: bytes) -> None:
    """Under its name only when it is whole; of several writers the last one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, data)
