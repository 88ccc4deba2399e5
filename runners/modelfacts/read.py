"""A model's facts from what lies on this machine: a folder in the format of transformers, or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recipes.errors import Refused
from runners.modelfacts import gguf, safetensors
from runners.modelfacts.clean import printable, printable_in
from runners.modelfacts.config import Stored, facts_of, language_model
from runners.modelfacts.decoder import layer_count
from runners.modelfacts.facts import File, ModelFacts
from runners.modelfacts.gguf_facts import facts_of_gguf
from runners.modelfacts.quantization import quantization_of
from runners.modelfacts.safetensors import LENGTH_BYTES, Tensor

INDEX = "model.safetensors.index.json"
SIDE_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json")
_LONGEST_JSON = 100_000_000
LARGEST_BYTES = 10**15
"""No model takes more."""


def facts_in(path: Path, *, identifier: str | None = None) -> ModelFacts:
    """The facts of a folder or GGUF file on this machine. Raises Refused for what is missing or damaged."""
    name = identifier or path.name
    if path.is_dir():
        return _of_folder(path, name)
    with path.open("rb") as file:

        def fetch(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        header = gguf.read_header(fetch, str(path))
    return facts_of_gguf(header, identifier=name, files=(File(printable(path.name), path.stat().st_size),))


def _of_folder(path: Path, identifier: str) -> ModelFacts:
    config = printable_in(read_object(path / "config.json"))
    stored = _stored(path)
    tensors = [tensor for file in (() if stored else _weight_files(path)) for tensor in header_of(file)]
    side = next((printable_in(read_object(path / name)) for name in SIDE_FILES if (path / name).is_file()), None)
    return facts_from(
        config,
        tensors,
        identifier=identifier,
        side=side,
        files=_files(path),
        stored=stored,
    )


def facts_from(
    config: Mapping[str, Any],
    tensors: Iterable[Tensor],
    *,
    identifier: str,
    commit: str | None = None,
    side: Mapping[str, Any] | None = None,
    files: tuple[File, ...] = (),
    stored: Stored | None = None,
) -> ModelFacts:
    """The facts of a config and the headers' tensors; without any, of what is stored."""
    listed = list(tensors)
    layers = layer_count(language_model(config)[0])
    return facts_of(
        config,
        identifier=identifier,
        commit=commit,
        tensors=safetensors.summed(listed, layers),
        parameters=safetensors.parameters_of(listed, quantization_of(config, side)),
        files=files,
        stored=stored,
        side=side,
    )


def header_of(file: Path) -> list[Tensor]:
    """The tensors of a safetensors file; its data may be missing. Raises Refused."""
    with file.open("rb") as opened:
        length = safetensors.header_length(opened.read(LENGTH_BYTES), str(file))
        header = opened.read(length)
    if len(header) < length:
        raise Refused(
            f"{file} is cut off: its header should be {length:,} bytes long, and {len(header):,} are there",
            advice="fetch the file again",
        )
    return safetensors.tensors_in(header, str(file))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object. Raises Refused."""
    try:
        if path.stat().st_size > _LONGEST_JSON:
            raise Refused(f"{path} is too large for what it should be", advice="fetch it again")
        found = json.loads(path.read_text(encoding="utf-8") or "{}")
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: no JSON object: {error}", advice="fetch it again") from error
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", advice="name another folder in model.path") from error
    if not isinstance(found, dict):
        raise Refused(f"{path}: no JSON object", advice="fetch it again")
    return found


def _weight_files(path: Path) -> list[Path]:
    """The safetensors files that an engine loads: those of the index, else all but a second copy of the weights."""
    found = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    if named := _indexed(path):
        return [file for file in found if file.name in named]
    return [file for file in found if not file.name.startswith(("consolidated", "adapter"))] or found


def _indexed(path: Path) -> set[str]:
    """The files that an index lists."""
    listed = read_object(path / INDEX).get("weight_map") if (path / INDEX).is_file() else None
    return {str(name) for name in listed.values()} if isinstance(listed, Mapping) else set()


def _stored(path: Path) -> Stored | None:
    """A total, where the headers cannot tell it: files that an index lists are not all here, or have no headers."""
    if any(not (path / name).is_file() for name in _indexed(path)):
        metadata = read_object(path / INDEX).get("metadata")
        total = metadata.get("total_size") if isinstance(metadata, Mapping) else None
        return Stored(bytes=int(total)) if isinstance(total, int | float) and 0 < total < LARGEST_BYTES else None
    if any(path.glob("*.safetensors")):
        return None
    size = sum(file.stat().st_size for file in path.glob("*.bin") if file.name != "training_args.bin")
    return Stored(bytes=size, exact=False) if size else None


def _files(path: Path) -> tuple[File, ...]:
    return tuple(File(printable(file.name), file.stat().st_size) for file in sorted(path.iterdir()) if file.is_file())
