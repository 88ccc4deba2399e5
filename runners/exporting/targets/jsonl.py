"""JSON, one document on a line: whole results, or the rows of requests.jsonl and telemetry.jsonl with their run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import IO, Any

from runners.exporting.contract import ExportedRun, What
from runners.exporting.tables import WHATS, documents_of


class Jsonl:
    suffix, whats, binary = ".jsonl", WHATS, False

    def write(self, what: What, runs: Iterable[ExportedRun], file: IO[bytes]) -> None:
        for document in documents_of(what, runs):
            file.write(_line(document))


def _line(document: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(document, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:  # half a character, as in the name of a file that is no UTF-8
        return (json.dumps(document) + "\n").encode()


PLUGIN = Jsonl()
