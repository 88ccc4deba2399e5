"""What a driver writes into its folder, told line by line: each row as it stands there, each output whole."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runners.run_folder import RunFolder

FILES = ("telemetry", "answers", "requests", "documents")
"""In the order in which they are told: what a row speaks of was told before it."""


class Mirror:
    """Reads what was added to the files since it was last asked.

    A row that was told may be told again by another driver of the same folder; who listens knows it by its bytes.
    """

    def __init__(self, folder: RunFolder, root: str, write: Callable[[bytes], None]) -> None:
        self._folder, self._write = folder, write
        self._offsets = dict.fromkeys(FILES, 0)
        self._told: set[str] = set()
        # The client's paths stand below the root here. In JSON a path may be written in either of two ways.
        told = {json.dumps(root, ensure_ascii=plain)[1:-1].encode() for plain in (True, False)} if root else set()
        self._roots = sorted(told)

    def tell(self) -> None:
        """Tell what is new. Raises OSError."""
        for name in FILES:
            self._tell_rows(name)

    def tell_all(self) -> None:
        """The same, and every output that no row has named."""
        self.tell()
        for path in sorted(self._folder.outputs.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                self._tell_output(path)

    def _tell_rows(self, name: str) -> None:
        path = self._folder.path / f"{name}.jsonl"
        try:
            size = os.stat(path).st_size  # noqa: PTH116 (ten times a second)
        except FileNotFoundError:
            return
        if size <= self._offsets[name]:
            return
        with path.open("rb") as file:
            file.seek(self._offsets[name])
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offsets[name] += len(line)
                self._tell_row(name, line.strip())

    def _tell_row(self, name: str, row: bytes) -> None:
        if not row:
            return
        if name == "documents":
            self._tell_output_of(row)
        self._write(b'{"file": "%s", "row": %s}\n' % (name.encode(), self._own(row)))

    def _tell_output_of(self, row: bytes) -> None:
        try:
            path = self._folder.outputs / json.loads(row)["output"]
        except (ValueError, KeyError, TypeError):
            return
        if path.is_file():
            self._tell_output(path)

    def _tell_output(self, path: Path) -> None:
        name = path.relative_to(self._folder.outputs).as_posix()
        if name not in self._told:
            self._told.add(name)
            text = self._own(path.read_bytes()).decode("utf-8", "replace")
            self._write(line({"output": name, "text": text}))

    def _own(self, data: bytes) -> bytes:
        """With the client's paths, as the client knows them."""
        for root in self._roots:
            data = data.replace(root, b"")
        return data


def line(said: dict[str, Any]) -> bytes:
    """What a driver says, as one line."""
    try:
        return (json.dumps(said, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(said) + "\n").encode()
