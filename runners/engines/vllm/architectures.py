"""Which release has which architecture: architectures.csv, from each release's registry of models.

model_executor/models/registry.py (before 0.6.3 models/__init__.py, before 0.2.3 model_executor/model_loader.py):
resolve_model_cls, _raise_for_unsupported; model_loader/utils.py: resolve_transformers_fallback.
"""

from __future__ import annotations

from collections.abc import Sequence

from provisioners.contract import Finding
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.engines.vllm.spans import Span, spans
from runners.modelfacts.facts import ModelFacts

_NO_FALLBACK_UNTIL = Release((0, 7, 0))
"""Since the release after it, Transformers' own code runs what vLLM has no code for, if it is written for that."""
_FALLBACK_SAYS_SO_UNTIL = Release((0, 9, 2))
_SAYS_WHEN_IT_WENT = Release((0, 11, 0))


def architecture_findings(model: ModelFacts, flags: Flags, number: Release, *, certain: bool) -> list[Finding]:
    """One finding if this release has none of the model's architectures, or if nobody knows.

    `certain` is whether the recipe's release is one that the table was made from.
    """
    names = _architectures(model, flags)
    if not names or model.form == "gguf":
        return [_unknown(model)] if not model.known else []
    table = spans("architectures")
    whys = [table[name].why_not(number) if name in table else _NEVER for name in names]
    if None in whys:
        return [] if model.known else [_unknown(model)]
    span, why = table.get(names[0], Span()), whys[0]
    said = f"{names[0]} {why}"
    if certain and number <= _NO_FALLBACK_UNTIL:
        return [
            Finding(
                level="block",
                code="architecture",
                message=f"vLLM {number} does not have the model's architecture: {said}",
                suggestion="another engine.version" if names[0] in table else "another model or engine",
                quote=_not_supported(names),
                path="engine.version",
            )
        ]
    return [
        Finding(
            level="warn",
            code="architecture",
            message=f"vLLM {number} may not run the model: {said}, and only if Transformers' own code for it suits "
            "vLLM does that run instead, more slowly",
            suggestion="another engine.version" if names[0] in table else "",
            quote=_words(names, span, number),
            path="engine.version" if names[0] in table else "model",
        )
    ]


_NEVER = "is in no release that recipe knows"


def _architectures(model: ModelFacts, flags: Flags) -> list[str]:
    """As the config states them, or the recipe in its place."""
    stated = flags.hf_overrides.get("architectures") or model.config.get("architectures") or [model.architecture]
    return [name for name in stated if isinstance(name, str) and name] if isinstance(stated, list | tuple) else []


def _words(names: Sequence[str], span: Span, number: Release) -> str:
    if number <= _FALLBACK_SAYS_SO_UNTIL:
        return f"{names[0]} has no vLLM implementation and the Transformers implementation is not compatible with vLLM."
    if span.gone_since and number >= max(span.gone_since, _SAYS_WHEN_IT_WENT):
        return f"Model architecture {names[0]} was supported in vLLM until"
    return _not_supported(names)


def _not_supported(names: Sequence[str]) -> str:
    return f"Model architectures {list(names)} are not supported for now. Supported architectures:"


def _unknown(model: ModelFacts) -> Finding:
    name = model.architecture or model.model_type or "this architecture"
    return Finding(
        level="warn",
        code="architecture",
        message=f"recipe does not know {name}: its shapes are assumed",
        path="model",
    )
