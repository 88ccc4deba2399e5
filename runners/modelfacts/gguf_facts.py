"""A model's facts from a GGUF file's header."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from runners.modelfacts import gguf
from runners.modelfacts.clean import name_of, printable_in
from runners.modelfacts.config import Stored, facts_of
from runners.modelfacts.facts import File, ModelFacts, Module, Quantization, Tensors
from runners.modelfacts.gguf_config import config_of, origin_of

_BITS = {"Q2": 2, "Q3": 3, "Q4": 4, "Q5": 5, "Q6": 6, "Q8": 8, "IQ1": 1, "IQ2": 2, "IQ3": 3, "IQ4": 4, "MXFP4": 4}
_UNQUANTIZED = frozenset({"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"})


def facts_of_gguf(
    header: gguf.Header, *, identifier: str, commit: str | None = None, files: Sequence[File] = ()
) -> ModelFacts:
    """The facts. Where the header was too long to read on, sizes are the file's, spread by arithmetic."""
    metadata = printable_in(header.metadata)
    config = config_of(metadata)
    size = sum(file.bytes for file in files)
    facts = facts_of(
        config,
        identifier=identifier,
        commit=commit,
        tensors=_summed(header),
        parameters=sum(tensor.elements for tensor in header.tensors or ()),
        files=files,
        stored=Stored(bytes=size, exact=False) if header.tensors is None else None,
        origin=origin_of(metadata, files[0].name if files else identifier),
    )
    if header.tensors is not None:
        facts = replace(facts, tied=not any(tensor.name == "output.weight" for tensor in header.tensors))
    return replace(
        facts,
        form="gguf",
        architecture=name_of(metadata.get("general.architecture")),
        config=metadata,
        quantization=_quantization(facts.tensors),
        assumptions=tuple(
            note for note in facts.assumptions if header.tensors is not None or "in proportion" not in note
        ),
    )


def _summed(header: gguf.Header) -> tuple[Tensors, ...]:
    elements: Counter[tuple[Module, str]] = Counter()
    sizes: Counter[tuple[Module, str]] = Counter()
    for tensor in header.tensors or ():
        key = (gguf.module_of(tensor.name), tensor.dtype)
        elements[key] += tensor.elements
        sizes[key] += tensor.bytes
    return tuple(
        Tensors(module=module, dtype=dtype, elements=count, bytes=sizes[module, dtype])
        for (module, dtype), count in elements.items()
    )


def _quantization(tensors: Sequence[Tensors]) -> Quantization | None:
    """By the type that most weights have."""
    counted: Counter[str] = Counter()
    for one in tensors:
        counted[one.dtype] += one.elements
    if not counted:
        return Quantization(method="gguf")
    kind = counted.most_common(1)[0][0]
    if kind in _UNQUANTIZED:
        return None
    return Quantization(method="gguf", bits=_BITS.get(kind.split("_")[0]), raw={"type": kind})
