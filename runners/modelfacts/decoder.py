"""From a config's fields to the whole decoder: its layers, embedding and head."""

from __future__ import annotations

from runners.modelfacts import blocks
from runners.modelfacts import fields as names
from runners.modelfacts.families import FAMILIES, Family
from runners.modelfacts.fields import Fields
from runners.modelfacts.structure import Block, Decoder

_UNFAMILIAR = Family(exact=False)


def decoder(fields: Fields, *, tied: bool | None = None) -> Decoder:
    """The decoder that a (text) config describes; `tied` is what an outer config says of the embeddings."""
    family = FAMILIES.get(fields.model_type, _UNFAMILIAR)
    hidden = fields.size(*names.HIDDEN)
    norm = hidden * (2 if family.norm_bias else 1)
    return Decoder(
        hidden=hidden,
        vocabulary=fields.size(*names.VOCABULARY),
        blocks=tuple(_block(fields, family, layer) for layer in range(fields.layers())),
        tied=is_tied(fields, family) if tied is None else tied,
        positions=_positions(fields, family) * hidden,
        embedding=fields.size("word_embed_proj_dim") or hidden,
        final_norms=(norm if family.final_norm else 0) + (norm if family.embedding_norm else 0),
        head_bias=blocks.is_set(fields, family.head_bias),
        exact=family.exact,
    )


def _block(fields: Fields, family: Family, layer: int) -> Block:
    return blocks.block(fields, family, layer)


def _positions(fields: Fields, family: Family) -> int:
    """Rows of a learned table of positions."""
    if fields.model_type == "mpt":
        alibi = fields.inner("attn_config").flag("alibi") or fields.inner("attn_config").flag("rope")
        return 0 if alibi else fields.size(*names.POSITIONS)
    return 0 if family.positions is None else fields.size(*names.POSITIONS) + family.positions


def is_tied(fields: Fields, family: Family) -> bool:
    if (stated := fields.config.get("tie_word_embeddings")) is not None:
        return bool(stated)
    return family.tied if family.tied is not None else fields.flag("tie_word_embeddings")
