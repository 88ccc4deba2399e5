"""From a config's fields to the whole decoder: its layers, embedding and head."""

from __future__ import annotations

from dataclasses import replace

from runners.modelfacts import blocks, hybrids
from runners.modelfacts import fields as names
from runners.modelfacts.families import FAMILIES, Family
from runners.modelfacts.fields import Fields
from runners.modelfacts.structure import Attention, Block, Decoder

_UNFAMILIAR = Family(exact=False)
_CROSS = "The layers that look at images keep keys and values of the images too, which are not counted."


def decoder(fields: Fields, *, tied: bool | None = None) -> Decoder:
    """The decoder that a (text) config describes; `tied` is what an outer config says of the embeddings."""
    family = FAMILIES.get(fields.model_type, _UNFAMILIAR)
    hidden, count = fields.positive(*names.HIDDEN), layer_count(fields)
    norm = hidden * (2 if family.norm_bias else 1)
    mllama = fields.model_type == "mllama_text_model"
    own_width = fields.size("hidden_size_per_layer_input") if fields.model_type == "gemma4_text" else 0
    return Decoder(
        hidden=hidden,
        vocabulary=fields.size(*names.VOCABULARY),
        blocks=tuple(_block(fields, family, layer, count) for layer in range(count)),
        tied=is_tied(fields, family) if tied is None else tied,
        positions=_positions(fields, family) * hidden,
        embedding=fields.size("word_embed_proj_dim") or hidden,
        extra_rows=8 if mllama else 0,
        final_norms=norm * (_has_final_norm(fields, family) + family.embedding_norm),
        head_bias=blocks.is_set(fields, family.head_bias),
        own_rows=fields.size("vocab_size_per_layer_input") if own_width else 0,
        own_width=own_width,
        exact=family.exact and not fields.flag("use_double_wide_mlp"),
        unknown=(_CROSS,) if mllama else (),
    )


def layer_count(fields: Fields) -> int:
    """As it is said, or as many as are listed."""
    pattern = fields.text("hybrid_override_pattern")
    listed = fields.items("layers_block_type")
    if fields.gives(*names.LAYERS) or not (pattern or listed):
        return fields.layers()
    return fields.as_layers(len(pattern or listed or ()), "the number of listed layers")


def _block(fields: Fields, family: Family, layer: int, count: int) -> Block:
    found = hybrids.block(fields, family, layer) or blocks.block(fields, family, layer)
    if fields.model_type == "mllama_text_model" and layer in (fields.items("cross_attention_layers") or ()):
        mixers = tuple(_crossing(mixer) if isinstance(mixer, Attention) else mixer for mixer in found.mixers)
        return replace(found, mixers=mixers, other=2)
    if layer >= count - fields.size("num_kv_shared_layers") > 0:
        # The last layers use the keys and values of earlier ones.
        mixers = tuple(_borrowing(fields, m) if isinstance(m, Attention) else m for m in found.mixers)
        return replace(found, mixers=mixers)
    return found


def _borrowing(fields: Fields, mixer: Attention) -> Attention:
    """Attention to another layer's keys and values; Gemma 3n's checkpoints hold weights for its own, unused."""
    if fields.model_type == "gemma3n_text":
        return replace(mixer, keeps=False)
    return replace(mixer, keeps=False, projects=False, norms=mixer.norms // 2)


def _crossing(mixer: Attention) -> Attention:
    """Attention to an image: with norms of queries and keys."""
    return replace(mixer, keeps=False, norms=2 * mixer.head_dim)


def _has_final_norm(fields: Fields, family: Family) -> bool:
    return family.final_norm and fields.flag("do_layer_norm_before", default=True)


def _positions(fields: Fields, family: Family) -> int:
    """Rows of a learned table of positions."""
    if fields.model_type == "mpt":
        alibi = fields.inner("attn_config").flag("alibi", default=True) or fields.inner("attn_config").flag("rope")
        return 0 if alibi else fields.size(*names.POSITIONS)
    return 0 if family.positions is None else fields.size(*names.POSITIONS) + family.positions


def is_tied(fields: Fields, family: Family) -> bool:
    if (stated := fields.config.get("tie_word_embeddings")) is not None:
        return bool(stated)
    return family.tied if family.tied is not None else fields.flag("tie_word_embeddings")
