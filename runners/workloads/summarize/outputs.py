"""The output files: one for each document, under the names that the reference's readers know."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipes.errors import WorkloadFailed
from recipes.spec import Recipe
from runners.client import Endpoint
from runners.text.splitter import Splitter
from runners.workloads.summarize.documents import Document

_MOST = 1_000_000
_LONGEST_NAME = 224
"""Bytes: with a number, or as a part, it stays within the 255 of usual file systems."""


class Outputs:
    """Writes files `name-NNNN.json` of a folder, each under the first number that is free. For several threads."""

    def __init__(self, folder: Path, known: Iterable[Path] = ()) -> None:
        """`known` files are of other documents than those that will be written."""
        self._folder = folder
        self._known = {path.name for path in known}
        self._from: dict[str, int] = {}
        self._lock = threading.Lock()

    def write(self, name: str, data: Any) -> Path:
        """Whole or not at all, and never over another; what is there with the same summary is taken for it."""
        part = self._folder / f".{name}-{secrets.token_hex(4)}.part"
        try:
            with part.open("x", encoding="utf-8") as file:
                json.dump(data, file, ensure_ascii=False, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                return self._placed(part, name, data)
        finally:
            part.unlink(missing_ok=True)

    def _placed(self, part: Path, name: str, data: Any) -> Path:
        for number in range(self._first(name), _MOST):
            path = self._folder / _numbered(name, number)
            if path.name in self._known:
                continue
            try:
                path.hardlink_to(part)
            except FileExistsError:
                if not _same_summary(path, data):
                    continue  # of another run, or of a document of the same name
                # Written by a client of this run that died before it could say so.
            self._known.add(path.name)
            return path
        raise WorkloadFailed(f"{self._folder} holds {_MOST:,} outputs of {name}", advice="use another RECIPE_HOME")

    def _first(self, name: str) -> int:
        """The first number that is not known to be another document's."""
        number = self._from.get(name, 0)
        while _numbered(name, number) in self._known:
            number += 1
        self._from[name] = number
        return number


def output_name(stem: str, model: str) -> str:
    """The name without its number; of a stem that would make it longer than a file's name may be, the beginning."""
    end = f"-analysis-{model}"
    room = max(1, _LONGEST_NAME - len(end.encode()))
    return stem.encode()[:room].decode("utf-8", "ignore") + end


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number:04d}.json"


def _same_summary(path: Path, data: Any) -> bool:
    """Whether the file holds the same summary of the same document."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        return bool(
            there["summary"] == data["summary"] and there["buck_slip"]["document"] == data["buck_slip"]["document"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def buck_slip(
    recipe: Recipe,
    template: tuple[str, str],
    splitter: Splitter,
    document: Document,
    endpoint: Endpoint,
    seconds: float,
) -> dict[str, Any]:
    """The settings that made the summary, under the names that the reference's readers know; without the key.

    `template` is the prompt's text and its file.
    """
    settings, model = recipe.workload, recipe.model.identifier
    return {
        "httpx_max_connections": settings.at_once,
        "httpx_max_keepalive_connections": settings.at_once,
        "use_fast": True,
        "use_batched_tokenization": settings.separators == "paragraphs",
        "chunk_size": settings.chunk_size,
        "chunk_overlap": settings.chunk_overlap,
        "api_url": endpoint.api_url,
        "model_identifier": model,
        "max_tokens": settings.max_tokens,
        "temperature": settings.temperature,
        "model_local_identifier": model.replace("/", "_"),
        "prompt_template": template[0],
        "prompt_template_filename": template[1],
        "tokenizer": splitter.counter.name,
        "text_splitter": f"recipe, recursive, separators {list(splitter.separators)}",
        "api_client": f"recipe, /v1/{'chat/completions' if settings.api == 'chat' else 'completions'}",
        "strategy": settings.strategy,
        "document": document.path,
        "length_of_sample_text_in_characters": document.characters,
        "summarize_duration_seconds": round(seconds, 3),
    }
