"""Whether vLLM would start with a recipe's flags, and how many requests it would then hold."""

from __future__ import annotations

from provisioners.contract import Finding
from runners.case import Assessment, Case
from runners.engines.vllm import cpu, memory
from runners.engines.vllm.accepted import flag_findings
from runners.engines.vllm.architectures import architecture_findings
from runners.engines.vllm.flags import Flags, read_flags
from runners.engines.vllm.lengths import Length, model_length
from runners.engines.vllm.methods import method_findings
from runners.engines.vllm.parallel import parallelism
from runners.engines.vllm.precision import precision, refuses_type
from runners.engines.vllm.releases import NEWEST, OLDEST, Release, release
from runners.engines.vllm.settings import Settings, settle
from runners.engines.vllm.values import value_findings

_PAGED_ATTENTION_V2 = Release((0, 2, 2))
_SHARED_MEMORY = {
    (7, 0): 98304,
    (7, 5): 65536,
    (8, 0): 166912,
    (8, 6): 101376,
    (8, 7): 166912,
    (8, 9): 101376,
    (9, 0): 232448,
}
"""Bytes that one block of threads may have (CUDA C++ Programming Guide, compute capabilities)."""


def assess(case: Case) -> Assessment:
    """vLLM's checks in its own order: shapes, types, lengths, then memory. Pure."""
    flags = read_flags(case.spec)
    number, findings = _release(case.version)
    certain = not findings
    findings += flag_findings(case.spec.args, number, certain=certain)
    values = value_findings(
        case.spec.args,
        number,
        on_gpu=case.machine.accelerator is not None,
        plain_layers=all(layers.mixer != "recurrent" for layers in case.model.layers),
    )
    findings += values
    findings += architecture_findings(case.model, flags, number, certain=certain)
    types = precision(case.model, flags, case.machine.accelerator, number)
    findings += types.findings
    if refused := refuses_type(types.quantization, types.compute, number):
        findings.append(refused)
    findings += method_findings(case.model, flags, types.quantization, number, certain=certain)
    findings += parallelism(case, flags, number, types.quantization)
    length = model_length(case.model, flags, number)
    findings += _length(length)
    settings = settle(case, flags, types, length, number)
    findings += _batch(flags, settings.max_num_batched_tokens, settings.max_num_seqs, length, chunked=settings.chunked)
    findings += [] if length.refusal else _kernel(case, settings)
    findings += _draft(flags)
    if values or not case.model.tensors or not case.model.layers:
        return Assessment(findings=tuple(findings))
    judged, plan = (cpu.judge if settings.cpu else memory.judge)(case, settings)
    return Assessment(findings=(*findings, *judged), memory=plan)


def _release(text: str) -> tuple[Release, list[Finding]]:
    number = release(text)
    if number is not None and number.known:
        return number, []
    newest = Release(NEWEST) if number is None or number.number > NEWEST else Release(OLDEST)
    finding = Finding(
        level="warn",
        code="assumption",
        message=(
            f"{text} is no release number of vLLM; the rules of {_short(newest)} are assumed"
            if number is None
            else f"vLLM {text} is not among the releases that recipe knows; the rules of {_short(newest)} are assumed"
        ),
        path="engine.version",
    )
    return newest, [finding]


def _short(number: Release) -> str:
    return ".".join(map(str, number.number[:2]))


def _length(length: Length) -> list[Finding]:
    if not length.refusal:
        return []
    message = f"max_model_len {length.tokens} is more than the model's own length, {length.derived}"
    return [
        Finding(
            level="warn" if length.overridden else "block",
            code="max-model-len",
            message=message + ("; VLLM_ALLOW_LONG_MAX_MODEL_LEN accepts it" if length.overridden else ""),
            suggestion=f"engine.args.max_model_len: {length.derived}",
            numbers={"max_model_len": length.tokens, "derived": length.derived, "config_field": length.key or ""},
            quote=length.refusal,
            path="engine.args.max_model_len",
        )
    ]


def _batch(flags: Flags, tokens: int, sequences: int, length: Length, *, chunked: bool) -> list[Finding]:
    """config/scheduler.py, _verify_args: only what a recipe states itself can be wrong."""
    quote = ""
    if flags.max_num_batched_tokens and not chunked and tokens < length.tokens:
        quote = (
            f"max_num_batched_tokens ({tokens}) is smaller than max_model_len ({length.tokens}). This effectively "
            "limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. "
            "Please increase max_num_batched_tokens or decrease max_model_len."
        )
    elif (flags.max_num_batched_tokens or flags.max_num_seqs) and tokens < sequences:
        quote = f"max_num_batched_tokens ({tokens}) must be greater than or equal to max_num_seqs ({sequences})."
    if not quote:
        return []
    return [
        Finding(
            level="block",
            code="max-model-len" if tokens < length.tokens and not chunked else "concurrency",
            message=quote.partition(". ")[0],
            numbers={"max_num_batched_tokens": tokens, "max_num_seqs": sequences, "max_model_len": length.tokens},
            quote=quote,
            path="engine.args.max_num_batched_tokens" if flags.max_num_batched_tokens else "engine.args.max_num_seqs",
        )
    ]


def _kernel(case: Case, settings: Settings) -> list[Finding]:
    """The first attention kernel kept a request's scores in shared memory (worker.py, until 0.2.2)."""
    accelerator = case.machine.accelerator
    capability = accelerator.compute_capability if accelerator else None
    held = _SHARED_MEMORY.get(capability) if capability else None
    needed = 4 * settings.max_model_len
    if settings.release >= _PAGED_ATTENTION_V2 or held is None or needed <= held:
        return []
    return [
        Finding(
            level="block",
            code="max-model-len",
            message=f"vLLM {settings.release}'s attention holds at most {held // 4:,} tokens on {accelerator.name}"
            if accelerator
            else "",
            suggestion=f"engine.args.max_model_len: {held // 4}, or a newer engine.version",
            quote=f"vLLM cannot currently support max_model_len={settings.max_model_len} with "
            f"block_size={settings.block_size} on GPU with compute capability {capability} (required shared memory "
            f"{needed + 2048}.0 > available shared memory {held}). This will be fixed in a future release.",
            numbers={"max_model_len": settings.max_model_len, "most": held // 4},
            path="engine.args.max_model_len",
        )
    ]


def _draft(flags: Flags) -> list[Finding]:
    """Drafts by n-grams take nothing; a model does, and its shapes are not looked at."""
    method = str(flags.speculative.get("method") or flags.speculative.get("model") or "")
    if not flags.speculative or method.strip("[]") in {"ngram", "suffix"}:
        return []
    return [
        Finding(
            level="warn",
            code="assumption",
            message=f"what the drafts of {method or 'speculative decoding'} take is not counted: weights and a part of "
            "the cache",
            path="engine.args.speculative_config",
        )
    ]
