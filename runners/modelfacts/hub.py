"""A repository of the Hub at a pinned commit: its files, its facts and its tokenizer, for a few small requests.

Cold: the description, config.json, a header where one is needed, the tokenizer in pieces. Warm: nothing for a commit,
one light question for a branch. Without a network, or with HF_HUB_OFFLINE, the commit that was last seen is used.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from recipes.errors import Refused
from runners.modelfacts import gguf, safetensors
from runners.modelfacts.clean import name_of, printable, printable_in
from runners.modelfacts.config import Stored, facts_of
from runners.modelfacts.facts import File, ModelFacts, Tensors
from runners.modelfacts.gguf_facts import facts_of_gguf
from runners.modelfacts.hubcache import COMMIT, HubCache
from runners.modelfacts.quantization import quantization_of
from runners.modelfacts.read import LARGEST_BYTES, SIDE_FILES
from runners.modelfacts.safetensors import LENGTH_BYTES, Tensor
from runners.modelfacts.weightfiles import weights_among

TOKENIZER = "tokenizer.json"
MOST_HEADERS = 16
"""Of more files than this the sizes have to do."""
LONGEST_HEADER = 25_000_000
"""Bytes; what huggingface_hub takes for the header of a safetensors file (constants.SAFETENSORS_MAX_HEADER_LENGTH)."""
_GGUF_PIECES = 2
"""Of a GGUF file's beginning so many pieces are read; a vocabulary that is longer hides the tensors."""
_HEADER_START = 100_000
"""Bytes; the header of most files is shorter."""
_PATIENCE = 2
"""Tries, where an earlier answer can stand in."""
_TIMEOUT_S = 5.0
_LONG_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Description:
    """What the Hub says of a repository at a commit."""

    commit: str
    files: tuple[File, ...]
    gated: bool
    elements: Mapping[str, int]
    """Of its safetensors files, by type."""
    tokenizer_digest: str | None = None
    """Its sha256, where the Hub knows it."""
    notes: tuple[str, ...] = ()

    def size(self, name: str) -> int | None:
        return next((file.bytes for file in self.files if file.name == name), None)


class Repository:
    """One repository, asked for as little as possible. Raises NoAccess where the Hub does not give it."""

    def __init__(self, repo: str, *, endpoint: str | None, cache: Path, env: Mapping[str, str] = os.environ) -> None:
        self.repo = repo
        self._endpoint = (endpoint or env.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
        parts = urlsplit(self._endpoint)
        self._cache = HubCache(cache, parts.netloc + parts.path, repo)
        self._env = env

    @cached_property
    def _client(self) -> Any:
        """Made when something is asked for, because that takes more than the rest of a warm look-up."""
        from runners.modelfacts.hubclient import HubClient, is_offline, offline, token_of

        if is_offline(self._env):
            raise offline(self.repo)
        return HubClient(self._endpoint, token_of(self._env))

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what could not be done, though it was found."""
        return (self._cache.trouble,) if self._cache.trouble else ()

    def describe(self, revision: str) -> Description:
        """The repository at the commit that the revision means.

        Where the Hub is silent and has said nothing before, what another host said of it may stand in.
        """
        try:
            return self._described(revision)
        except Refused as refusal:
            from runners.modelfacts.hubclient import SilentHub

            for cache in self._cache.of_other_hosts() if isinstance(refusal, SilentHub) else ():
                if (found := self._kept_elsewhere(cache, revision)) is not None:
                    self._cache = cache
                    return found
            raise

    def _kept_elsewhere(self, cache: HubCache, revision: str) -> Description | None:
        ref = None if COMMIT.fullmatch(revision) else cache.ref(revision)
        commit = revision if COMMIT.fullmatch(revision) else str(ref["commit"]) if ref else None
        found = self._kept(commit, check=True, cache=cache) if commit else None
        if found is None:
            return None
        note = f"offline: {self.repo} at commit {found.commit[:7]}, as {printable(cache.host)} gave it"
        return replace(found, notes=(note if ref is None else f"{note} for {revision} on {str(ref['seen'])[:10]}",))

    def _described(self, revision: str) -> Description:
        if COMMIT.fullmatch(revision):
            return self._kept(revision, check=True) or self._asked(revision)
        ref = self._cache.ref(revision)
        kept = self._kept(ref["commit"], check=False) if ref else None
        if ref is None or kept is None:
            return self._asked(revision)
        from runners.modelfacts.hubclient import SilentHub

        try:
            client = self._client
            client.wait(_PATIENCE, _TIMEOUT_S)
            commit = str(client.info(self.repo, revision, light=True).get("sha") or "")
            if kept.gated:
                client.auth_check(self.repo)
        except SilentHub:
            seen = str(ref.get("seen", ""))[:10]
            note = f"offline: {self.repo} at commit {kept.commit[:7]}, which {revision} meant on {seen}"
            return replace(kept, notes=(note,))
        finally:
            if "_client" in self.__dict__:
                self._client.wait(None, _LONG_TIMEOUT_S)
        if commit != kept.commit:
            return self._kept(commit, check=False) or self._asked(commit, revision)
        self._cache.keep_ref(revision, commit, _now())
        return kept

    def _kept(self, commit: str, *, check: bool, cache: HubCache | None = None) -> Description | None:
        """What was answered before. A closed repository's is asked for anew where another account asks."""
        found = (cache or self._cache).record(commit, "description")
        try:
            files = tuple(File(str(name), int(size)) for name, size in found["files"]) if found else ()
            elements = {str(kind): int(count) for kind, count in found["elements"].items()} if found else {}
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
        if not found or not files:
            return None
        if check and found.get("for") and found["for"] != self._account():
            return None
        return Description(commit, files, bool(found.get("gated")), elements, found.get("digest"))

    def _asked(self, revision: str, branch: str | None = None) -> Description:
        answer = self._client.info(self.repo, revision)
        gated, private = bool(answer.get("gated")), bool(answer.get("private"))
        if gated:
            # Of a gated repository everyone may read the description; only this tells who gets its files.
            self._client.auth_check(self.repo)
        siblings = _siblings(answer)
        found = Description(
            commit=name_of(answer.get("sha")) or revision,
            files=tuple(File(s["rfilename"], _count(s.get("size"))) for s in siblings),
            gated=gated,
            elements=_elements(answer),
            tokenizer_digest=next((_digest(s) for s in siblings if s["rfilename"] == TOKENIZER), None),
        )
        record = {
            "files": [[file.name, file.bytes] for file in found.files],
            "gated": gated,
            "elements": found.elements,
            "digest": found.tokenizer_digest,
            "for": self._account() if gated or private else None,
        }
        if COMMIT.fullmatch(found.commit):
            self._cache.keep_record(found.commit, "description", record)
            self._cache.keep_ref(branch or revision, found.commit, _now())
        return found

    def _account(self) -> str:
        """Stands for the account that asks; no token can be had from it."""
        from runners.modelfacts.hubclient import token_of

        return hashlib.sha256(f"account {token_of(self._env)}".encode()).hexdigest()[:16]

    # Files

    def tokenizer(self, found: Description) -> Path | None:
        """Its tokenizer.json, brought here; None if it has none."""
        size = found.size(TOKENIZER)
        if size is None:
            return None
        if (kept := self._cache.file(found.commit, TOKENIZER)) is not None:
            return kept
        data = self._client.read(self.repo, found.commit, TOKENIZER, size or None)
        if found.tokenizer_digest and hashlib.sha256(data).hexdigest() != found.tokenizer_digest:
            raise Refused(f"{self.repo}'s {TOKENIZER} came damaged: its digest is another", advice="try again")
        return self._cache.keep_file(found.commit, TOKENIZER, data)

    def facts(self, found: Description, files: tuple[File, ...], *, gguf: bool, identifier: str) -> ModelFacts:
        """The facts of these files of it, one GGUF file or a folder. Raises Refused for files that are damaged."""
        name = f"facts-{hashlib.sha256(files[0].name.encode()).hexdigest()[:12]}" if gguf else "facts"
        read = self._read_gguf if gguf else self._read_folder

        def make(record: Mapping[str, Any]) -> ModelFacts:
            if gguf:
                return _of_gguf(record, found.commit, files, identifier)
            return _of_folder(record, found, files, identifier)

        if (kept := self._cache.record(found.commit, name)) is not None:
            try:
                return make(kept)
            except (KeyError, TypeError, ValueError, AttributeError, IndexError):
                pass  # damaged: it is made again
        record = read(found, files)
        made = make(record)
        if COMMIT.fullmatch(found.commit):
            self._cache.keep_record(found.commit, name, record)
        return made

    def _read_gguf(self, found: Description, files: tuple[File, ...]) -> dict[str, Any]:
        file = files[0]

        def fetch(start: int, length: int) -> bytes:
            piece: bytes = self._client.range(self.repo, found.commit, file.name, start, length)[0]
            return piece

        label = f"{self.repo}'s {file.name}"
        header = gguf.read_header(fetch, label, most=_GGUF_PIECES * gguf.PIECE_BYTES)
        tensors = header.tensors
        rows = None if tensors is None else [[t.name, t.dtype, t.elements, t.bytes] for t in tensors]
        return {"metadata": header.metadata, "tensors": rows}

    def _read_folder(self, found: Description, files: tuple[File, ...]) -> dict[str, Any]:
        names = {file.name for file in files}
        record: dict[str, Any] = {"config": self._object(found, "config.json"), "tensors": None, "parameters": 0}
        if quantization_of(record["config"]) is None:
            side = next((name for name in SIDE_FILES if name in names), None)
            record["side"] = self._object(found, side) if side else None
        weights = weights_among(files)
        headed = [file for file in weights if file.name.endswith(".safetensors")]
        one = len(weights) == 1 and weights[0].name.endswith(".safetensors")
        stored = _stored(found, files)
        arithmetic = facts_of(record["config"], identifier=self.repo, stored=stored, side=record.get("side"))
        sure = arithmetic.weights_from == "arithmetic" or (arithmetic.known and arithmetic.multimodal)
        if one or (not sure and len(headed) <= MOST_HEADERS):
            tensors = [tensor for file in headed for tensor in self._header(found, file)]
            quantization = quantization_of(record["config"], record.get("side"))
            summed = safetensors.summed(tensors, arithmetic.layer_count)
            record["tensors"] = [[t.module, t.dtype, t.elements, t.bytes] for t in summed]
            record["parameters"] = safetensors.parameters_of(tensors, quantization)
        return record

    def _header(self, found: Description, file: File) -> list[Tensor]:
        label = f"{self.repo}'s {file.name}"
        start, _ = self._client.range(
            self.repo, found.commit, file.name, 0, min(_HEADER_START, file.bytes or _HEADER_START)
        )
        length = safetensors.header_length(start, label, most=LONGEST_HEADER)
        if 0 < file.bytes < LENGTH_BYTES + length:
            raise Refused(
                f"{label} is cut off: its header should be {length:,} bytes long, and the file has {file.bytes:,}",
                advice="name another revision, or a repository that is whole",
            )
        while len(start) < LENGTH_BYTES + length:
            wanted = min(gguf.PIECE_BYTES, LENGTH_BYTES + length - len(start))
            piece, _ = self._client.range(self.repo, found.commit, file.name, len(start), wanted)
            if not piece:
                raise Refused(f"{label} is cut off within its header", advice="name another revision")
            start += piece
        return safetensors.tensors_in(start[LENGTH_BYTES : LENGTH_BYTES + length], label)

    def _object(self, found: Description, name: str) -> dict[str, Any]:
        data = self._client.read(self.repo, found.commit, name, found.size(name) or None)
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Refused(f"{self.repo}'s {name} is no JSON object: {error}", advice="name another revision") from error
        if not isinstance(value, dict):
            raise Refused(f"{self.repo}'s {name} is no JSON object", advice="name another revision")
        return dict(printable_in(value))

    def close(self) -> None:
        if "_client" in self.__dict__:
            self._client.close()


def _digest(sibling: Mapping[str, Any]) -> str | None:
    """A large file's sha256, from what the description says of it; of small ones it knows git's own digest only."""
    lfs = sibling.get("lfs")
    return str(lfs["sha256"]) if isinstance(lfs, Mapping) and lfs.get("sha256") else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _siblings(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files of an answer, but for names that hold commands to a terminal: no engine loads such a file."""
    listed = answer.get("siblings")
    named = [s for s in listed if isinstance(s, dict) and s.get("rfilename")] if isinstance(listed, list) else []
    return [s for s in named if isinstance(name := s["rfilename"], str) and printable(name) == name]


def _elements(answer: Mapping[str, Any]) -> dict[str, int]:
    counted = answer.get("safetensors")
    by_type = counted.get("parameters") if isinstance(counted, dict) else None
    return {name_of(kind): _count(n) for kind, n in by_type.items()} if isinstance(by_type, dict) else {}


def _count(value: Any) -> int:
    """A size or number of things; 0 for what is none."""
    return value if isinstance(value, int) and 0 < value < LARGEST_BYTES else 0


def _stored(found: Description, files: tuple[File, ...]) -> Stored:
    """The files' own size is the surest total: headers are a hundred-thousandth of it."""
    size = sum(file.bytes for file in weights_among(files))
    return Stored(elements=found.elements, bytes=size or None, exact=False)


def _of_folder(record: Mapping[str, Any], found: Description, files: tuple[File, ...], identifier: str) -> ModelFacts:
    rows = record["tensors"]
    tensors = [Tensors(module=m, dtype=str(d), elements=int(n), bytes=int(b)) for m, d, n, b in rows or ()]
    return facts_of(
        dict(record["config"]),
        identifier=identifier,
        commit=found.commit,
        tensors=tensors,
        parameters=int(record["parameters"]),
        files=files,
        stored=_stored(found, files),
        side=record.get("side"),
    )


def _of_gguf(record: Mapping[str, Any], commit: str, files: tuple[File, ...], identifier: str) -> ModelFacts:
    rows = record["tensors"]
    tensors = None if rows is None else tuple(Tensor(str(n), str(d), int(e), int(b)) for n, d, e, b in rows)
    return facts_of_gguf(
        gguf.Header(dict(record["metadata"]), tensors), identifier=identifier, commit=commit, files=files
    )
