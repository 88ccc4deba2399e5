"""What the Hub said of commits, kept: small files that appear whole, and are made again when they are damaged.

`<cache>/<host>/<owner>--<name>/refs/<revision>.json` says which commit a branch meant when it was last asked for, and
`…/<commit>/` keeps the repository's description, what facts are made from, and the tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from recipes.errors import Refused

SCHEMA = 1
COMMIT = re.compile(r"[0-9a-f]{40}")


class HubCache:
    """The records of one repository."""

    def __init__(self, root: Path, endpoint: str, repo: str) -> None:
        parts = urlsplit(endpoint)
        self._root = root / quote(parts.netloc + parts.path, safe="") / repo.replace("/", "--")

    def ref(self, revision: str) -> dict[str, Any] | None:
        """{"commit", "seen"} of a branch or tag."""
        found = _read(self._ref(revision))
        return found if found and COMMIT.fullmatch(str(found.get("commit"))) else None

    def keep_ref(self, revision: str, commit: str, seen: str) -> None:
        _write(self._ref(revision), {"commit": commit, "seen": seen})

    def record(self, commit: str, name: str) -> dict[str, Any] | None:
        return _read(self._root / commit / f"{name}.json")

    def keep_record(self, commit: str, name: str, value: Mapping[str, Any]) -> None:
        _write(self._root / commit / f"{name}.json", value)

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
        """Keep a file, and say where. Raises Refused where nothing can be written."""
        path = self._root / commit / name
        try:
            _put(path, data)
            stat = path.stat()
        except OSError as error:
            raise Refused(
                f"{path.parent} cannot be written: {error.strerror}",
                advice="make room or free the way there, or set XDG_CACHE_HOME to another folder",
            ) from error
        _write(path.with_name(f"{name}.kept"), {"stat": [stat.st_size, stat.st_mtime_ns], "sha256": _sha256(data)})
        return path

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


def _write(path: Path, value: Mapping[str, Any]) -> None:
    """A record that cannot be written is asked for again another time."""
    with suppress(OSError):
        _put(path, json.dumps({"schema": SCHEMA, **value}).encode())


def _put(path: Path, data: bytes) -> None:
    """Under its name only when it is whole; of several writers the last one's stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{secrets.token_hex(6)}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
