"""A model's facts from its config.json, and from what is known of its files: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runners.modelfacts import blocks, storage
from runners.modelfacts import fields as names
from runners.modelfacts.clean import name_of, printable_in, reckonable
from runners.modelfacts.decoder import decoder as build
from runners.modelfacts.decoder import layer_count
from runners.modelfacts.facts import Experts, File, Layers, ModelFacts, Module, Quantization, Source, Tensors
from runners.modelfacts.families import FAMILIES
from runners.modelfacts.fields import CONFIG, Fields, Origin, type_defaults
from runners.modelfacts.quantization import quantization_of
from runners.modelfacts.structure import Attention, Block, LatentAttention, MoE, Recurrent
from runners.modelfacts.vision import vision_elements
from runners.modelfacts.weightfiles import weights_among
from runners.modelfacts.weights import Weight, weights_of

_INNER = ("text_config", "llm_config", "language_config", "thinker_config", "decoder")
_AGREE = 0.005
"""A sum that differs less than this share from what is stored is taken as right: prediction heads, buffers, padding."""
_PREDICTING = 0.05
"""The largest share of a checkpoint that layers for predicting further tokens take."""
_NO_WEIGHTS = (
    "No weights that an engine would load are there: the size that they would have is computed from config.json."
)
_NO_HEADS = "The config does not say how many attention heads there are, or how wide: what a token keeps is not known."
_PREDICTING_TYPES = frozenset({"qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"})


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What is known of the weights' storage without their headers."""

    elements: Mapping[str, int] = field(default_factory=dict)
    """By type, as the Hub counts them (safetensors.parameters)."""
    bytes: int | None = None
    """Of all tensors together, as an index or the files' sizes say."""
    exact: bool = True
    """False where the bytes are the files' own, with their headers."""

    @property
    def total_bytes(self) -> int | None:
        if self.bytes:
            return self.bytes
        return sum(storage.bytes_of(dtype, count) for dtype, count in self.elements.items()) or None


def facts_of(
    config: Mapping[str, Any],
    *,
    identifier: str,
    commit: str | None = None,
    tensors: Sequence[Tensors] = (),
    parameters: int = 0,
    files: Sequence[File] = (),
    stored: Stored | None = None,
    side: Mapping[str, Any] | None = None,
    origin: Origin = CONFIG,
) -> ModelFacts:
    """The facts. Raises Refused for a config that is damaged.

    `tensors` and `parameters` are the files' headers' own, if they were read; else sizes are computed, and compared
    with what is `stored`. `side` is hf_quant_config.json. `origin` says where the config was read.
    """
    config, side = printable_in(config), printable_in(side)
    usable, unusable = reckonable(config)
    text, outer = language_model(config, origin)
    known = text.model_type in FAMILIES and bool(text.size(*names.HIDDEN)) and bool(layer_count(text))
    quantization = quantization_of(config, side)
    shape = build(text, tied=_outer_tied(config, text))
    dtype = _dtype(config, text)
    architecture = _architecture(config)
    kept, unkept = _kept_by(shape.blocks, text)
    notes = [*unusable, *shape.unknown, *unkept]
    if not known:
        notes.append(_unknown(text, architecture))
    multimodal = _multimodal(config, outer)
    if tensors:
        sized = _Sized(tuple(tensors), parameters, "headers")
    else:
        confirmed = known and shape.exact
        sized = _sized(
            list(weights_of(shape)),
            quantization,
            storage.stored_name(dtype),
            stored or Stored(),
            confirmed=confirmed,
            predicts=_predicts(text),
            multimodal=multimodal,
            vision=vision_elements(config, outer, shape.hidden) if multimodal else None,
        )
    without = bool(files) and not tensors and not (stored and stored.bytes) and not weights_among(files)
    notes += [_NO_WEIGHTS] if without else sized.notes
    return ModelFacts(
        identifier=identifier,
        commit=commit,
        architecture=architecture,
        model_type=outer,
        known=known,
        hidden_size=shape.hidden,
        intermediate_size=blocks.intermediate(text, FAMILIES["llama"]) if known else text.size(*names.FEED_FORWARD),
        layer_count=len(shape.blocks),
        heads=text.size_at(0, *names.HEADS),
        kv_heads=blocks.kv_heads_of(text),
        head_dim=blocks.head_dim(text),
        vocab_size=shape.vocabulary,
        tied=shape.tied,
        max_positions=text.size(*names.POSITIONS) or None,
        dtype=dtype,
        layers=kept,
        experts=_experts(shape.blocks),
        quantization=quantization,
        multimodal=multimodal,
        tensors=sized.tensors,
        weights_from=sized.source,
        files=tuple(files),
        config=usable,
        assumptions=tuple(notes),
        parameters=sized.parameters,
    )


def language_model(config: Mapping[str, Any], origin: Origin = CONFIG) -> tuple[Fields, str]:
    """The language model's part of a config, and the model type of the whole."""
    outer = name_of(config.get("model_type"))
    part, kind = config, outer
    for _ in range(3):
        key = next((key for key in _INNER if isinstance(part.get(key), Mapping) and part[key]), None)
        if key is None:
            break
        kind = str(name_of(part[key].get("model_type")) or type_defaults().get(kind, {}).get(key) or kind)
        part = part[key]
    inner = next((types[key] for key in _INNER if (types := type_defaults().get(kind, {})).get(key)), None)
    # Some write the language model's fields beside the others.
    own = inner if inner and any(part.get(name) for name in names.HIDDEN) else kind
    return Fields(part, own, origin=origin), outer


def layers_of(found: Iterable[Block]) -> tuple[Layers, ...]:
    """The layers that keep something, alike ones together, in the order in which they first come."""
    counted: Counter[Layers] = Counter()
    for one in found:
        counted.update(kept for mixer in one.mixers if (kept := _kept(mixer)) is not None)
    return tuple(
        Layers(**{**{name: getattr(kind, name) for name in kind.__dataclass_fields__}, "count": count})
        for kind, count in counted.items()
    )


def _kept_by(found: Sequence[Block], text: Fields) -> tuple[tuple[Layers, ...], tuple[str, ...]]:
    """The layers that keep something, and what is not known of them. Raises Refused for attention without heads."""
    layers = layers_of(found)
    heads = [mixer.heads for one in found for mixer in one.mixers if not isinstance(mixer, Recurrent)]
    if heads and not any(heads) and text.gives(*names.HEADS):
        raise text.origin.refusal("num_attention_heads", "is 0, and the model's layers attend")
    sized = tuple(one for one in layers if one.elements_per_token or one.state_elements)
    return sized, (_NO_HEADS,) if layers and not sized else ()


def _kept(mixer: Attention | LatentAttention | Recurrent) -> Layers | None:
    match mixer:
        case Attention() if not mixer.keeps:
            return None
        case Attention():
            return Layers(
                count=1,
                mixer=mixer.reach,
                kv_heads=mixer.kv_heads,
                key_dim=mixer.head_dim,
                value_dim=mixer.values,
                window=mixer.window,
            )
        case LatentAttention():
            return Layers(
                count=1,
                mixer="mla",
                kv_heads=1,
                key_dim=mixer.nope_dim + mixer.rope_dim,
                value_dim=mixer.value_dim,
                latent_dim=mixer.kv_rank + mixer.rope_dim,
            )
        case Recurrent():
            return Layers(count=1, mixer="recurrent", state_elements=mixer.state)


def _experts(found: Sequence[Block]) -> Experts | None:
    mixtures = [part for one in found if isinstance(part := one.feed_forward, MoE)]
    if not mixtures:
        return None
    first = mixtures[0]
    return Experts(
        count=first.count,
        per_token=first.per_token,
        intermediate_size=first.intermediate,
        layers=len(mixtures),
        shared_intermediate_size=first.shared,
    )


@dataclass(frozen=True)
class _Sized:
    tensors: tuple[Tensors, ...]
    parameters: int
    source: Source
    notes: tuple[str, ...] = ()


def _sized(
    weights: Sequence[Weight],
    quantization: Quantization | None,
    dtype: str,
    stored: Stored,
    *,
    confirmed: bool,
    predicts: bool,
    multimodal: bool,
    vision: int | None,
) -> _Sized:
    """The weights by arithmetic; what is stored beyond them is for further tokens or vision, or it is said.

    `confirmed`: the arithmetic is exact for this family, so that it needs no more than a total that agrees.
    """
    total_bytes = stored.total_bytes
    dtype, counted = _in_stored_type(weights, quantization, dtype, stored)
    parameters = sum(weight.elements for weight in weights)
    total = _bytes(counted)
    seeing = (vision or 0) * storage.bytes_of(dtype, 1)
    if vision and (not total_bytes or abs(total + seeing - total_bytes) <= _AGREE * total_bytes):
        counted["vision", dtype] += vision
        parameters, total, multimodal = parameters + vision, _bytes(counted), False
    beyond = (total_bytes or 0) - total
    if not total_bytes:
        notes = [] if confirmed else ["How much the weights take is what the config gives, and nothing confirms it."]
        if multimodal:
            notes.append("The size of the part that sees or hears is not known; only the language model is counted.")
        return _Sized(_tensors(counted), parameters, "arithmetic", tuple(notes))
    if confirmed and abs(beyond) <= _AGREE * total_bytes:
        return _Sized(_tensors(counted), parameters, "arithmetic")
    source: Source = "index" if stored.exact else "sizes"
    predicting = _predicting_bytes(weights, quantization, dtype) if predicts and confirmed else 0
    if predicting and not multimodal and 0 < beyond < _PREDICTING * total_bytes:
        counted["mtp", dtype] += beyond // storage.bytes_of(dtype, 1)
        return _Sized(_tensors(counted), parameters, "arithmetic")
    if multimodal and 0 < beyond < total_bytes / 2:
        if predicting:
            predicting = max(0, beyond - seeing) if seeing else predicting if predicting < beyond else 0
        elements = (beyond - predicting) // storage.bytes_of(dtype, 1)
        counted["vision", dtype] += elements
        counted["mtp", dtype] += predicting // storage.bytes_of(dtype, 1)
        return _Sized(_tensors(counted), parameters + elements, source)
    note = (
        f"The stored weights take {total_bytes:,} bytes, and the config gives {total:,}: "
        "their parts are in proportion to what the config gives."
    )
    return _Sized(_spread(counted, total, total_bytes, dtype), parameters, source, (note,))


def _predicting_bytes(weights: Sequence[Weight], quantization: Quantization | None, dtype: str) -> int:
    """About what one layer for further tokens takes: the last layer's weights, and a projection of two states."""
    last = max((weight.name for weight in weights if weight.name.startswith("model.layers.")), key=_number, default="")
    own = [weight for weight in weights if weight.name.startswith(f"model.layers.{_number(last)}.")]
    hidden = next((weight.columns for weight in weights if weight.module == "embedding"), 0)
    return _bytes(_counted(own, quantization, dtype)) + 2 * hidden * hidden * storage.bytes_of(dtype, 1)


def _number(name: str) -> int:
    """A layer's number from a weight's name."""
    part = name.split(".")[2:3]
    return int(part[0]) if part and part[0].isdigit() else -1


def _in_stored_type(
    weights: Sequence[Weight], quantization: Quantization | None, dtype: str, stored: Stored
) -> tuple[str, Counter[tuple[Module, str]]]:
    """Elements by class and type; unquantized weights in the type that most are stored in, whatever the config says."""
    floats = {kind: n for kind, n in stored.elements.items() if kind in ("BF16", "F16", "F32")}
    if floats and quantization is None:
        dtype = max(floats, key=lambda kind: floats[kind])
    total = stored.total_bytes
    counted = _counted(weights, quantization, dtype)
    if total and not floats and quantization is None:
        for kind in ("F32", "F16"):
            other = _counted(weights, quantization, kind)
            if abs(_bytes(other) - total) <= _AGREE * total < abs(_bytes(counted) - total):
                return kind, other
    return dtype, counted


def _counted(weights: Sequence[Weight], quantization: Quantization | None, dtype: str) -> Counter[tuple[Module, str]]:
    counted: Counter[tuple[Module, str]] = Counter()
    for weight in weights:
        for kind, elements in storage.pieces(weight, quantization, dtype):
            counted[weight.module, kind] += elements
    return counted


def _bytes(counted: Mapping[tuple[Module, str], int]) -> int:
    return sum(storage.bytes_of(kind, elements) for (_, kind), elements in counted.items())


def _tensors(counted: Mapping[tuple[Module, str], int]) -> tuple[Tensors, ...]:
    return tuple(
        Tensors(module=module, dtype=kind, elements=elements, bytes=storage.bytes_of(kind, elements))
        for (module, kind), elements in counted.items()
        if elements
    )


def _spread(counted: Mapping[tuple[Module, str], int], total: int, stored: int, plain: str) -> tuple[Tensors, ...]:
    """The stored bytes over the classes, in proportion to the computed ones."""
    if total <= 0:
        size = storage.bytes_of(plain, 1)
        return (Tensors(module="other", dtype=plain, elements=stored // size, bytes=stored),)
    found = []
    left = stored
    for (module, kind), elements in counted.items():
        share = min(left, storage.bytes_of(kind, elements) * stored // total)
        left -= share
        found.append(Tensors(module=module, dtype=kind, elements=elements * stored // total, bytes=share))
    if left:
        found.append(Tensors(module="other", dtype=plain, elements=left // storage.bytes_of(plain, 1), bytes=left))
    return tuple(found)


def _architecture(config: Mapping[str, Any]) -> str:
    stated = config.get("architectures")
    return name_of(stated[0]) if isinstance(stated, list) and stated else ""


def _unknown(text: Fields, architecture: str) -> str:
    name = architecture or text.model_type or "?"
    if not text.size(*names.HIDDEN) or not layer_count(text):
        return f"The config of {name} does not say how large the model is (hidden_size, num_hidden_layers)."
    return (
        f"The architecture {name} ({text.model_type or 'no model_type'}) is not known here: it is taken for one with "
        "full attention in every layer and the usual feed-forward."
    )


def _multimodal(config: Mapping[str, Any], outer: str) -> bool:
    parts = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "visual", "img_processor")
    family = FAMILIES.get(outer)
    return any(config.get(part) for part in parts) or bool(family and family.multimodal)


def _outer_tied(config: Mapping[str, Any], text: Fields) -> bool | None:
    """What the config of the whole says of tied embeddings, where the language model's own says nothing."""
    if text.config is config or text.gives("tie_word_embeddings"):
        return None
    stated = config.get("tie_word_embeddings")
    return None if stated is None else bool(stated)


def _predicts(text: Fields) -> bool:
    """Whether a checkpoint of this kind comes with layers that predict further tokens."""
    stated = text.size("num_nextn_predict_layers", "mtp_num_hidden_layers", "num_mtp_modules")
    return bool(stated) or text.model_type in _PREDICTING_TYPES


def _dtype(config: Mapping[str, Any], text: Fields) -> str | None:
    for place in (text.config, config):
        for key in ("dtype", "torch_dtype"):
            if isinstance(value := place.get(key), str):
                return name_of(value.removeprefix("torch."))
    return None
