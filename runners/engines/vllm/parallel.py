"""Tensor, pipeline and expert parallelism: which sizes a model's shapes allow, in vLLM's own words.

config.py, verify_with_parallel_config; distributed/utils.py, divide; models/llama.py; layers/quantization/*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from provisioners.contract import Finding
from runners.case import Case
from runners.engines.vllm import releases
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.releases import Release
from runners.modelfacts.facts import ModelFacts

VOCABULARY_PADDING = 64
"""layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE."""
_LARGEST_TRIED = 16
_MARLIN_N, _MARLIN_K = 64, 128
_PATH = "engine.tensor_parallel_size"


def parallelism(case: Case, flags: Flags, release: Release, method: str | None) -> list[Finding]:
    """What the flags and the model's shapes say of each other, worst first."""
    model, tp = case.model, flags.tensor_parallel_size
    ranks = "GPUs" if case.machine.accelerator else "processes"
    found = list(_tensor(model, tp, _valid(model), ranks))
    if not found:
        found += _quantized_shards(model, flags, release, method)
    found += _product(case, flags)
    found += _pipeline(model, flags, release)
    found += _experts(model, flags, release)
    if (
        method == "bitsandbytes"
        and release < releases.BITSANDBYTES_IN_PARALLEL
        and (tp > 1 or flags.pipeline_parallel_size > 1)
    ):
        quote = "BitAndBytes quantization with TP or PP is not supported yet."
        found.append(_block("quantization", f"vLLM {release} runs bitsandbytes on one GPU only", quote, path=_PATH))
    if not found and tp > 1:
        found.append(_ok(model, tp, ranks))
    return found


def padded_vocabulary(model: ModelFacts) -> int:
    return -(-model.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING


def _block(
    code: str,
    message: str,
    quote: str,
    *,
    suggestion: str = "",
    path: str = _PATH,
    numbers: Mapping[str, int] | None = None,
) -> Finding:
    return Finding(
        level="block", code=code, message=message, quote=quote, suggestion=suggestion, path=path, numbers=numbers or {}
    )


def _valid(model: ModelFacts) -> list[int]:
    return [size for size in range(1, _LARGEST_TRIED + 1) if not any(_obstacles(model, size))]


_ONE_HOST = 8
"""GPUs that the largest machines on offer have."""


def _listed(sizes: list[int]) -> str:
    *rest, last = sizes
    return f"{', '.join(map(str, rest))} or {last}" if rest else str(last)


def _obstacles(model: ModelFacts, tp: int) -> Iterator[tuple[str, str]]:
    """What each would say: (what does not divide, vLLM's words)."""
    if model.heads % tp:
        yield (
            f"{model.heads} attention heads",
            f"Total number of attention heads ({model.heads}) must be divisible by tensor parallel size ({tp}).",
        )
        return
    vocabulary = padded_vocabulary(model)
    if vocabulary % tp:
        yield f"a vocabulary of {vocabulary} (padded)", f"{vocabulary} is not divisible by {tp}"
    kv = model.kv_heads
    if kv and not _is_latent(model) and (kv % tp if kv >= tp else tp % kv):
        # models/llama.py asserts without a word; the line is what its traceback shows.
        line = "self.total_num_kv_heads % tp_size" if kv >= tp else "tp_size % self.total_num_kv_heads"
        yield f"{kv} key/value heads", f"assert {line} == 0"
    if model.intermediate_size and model.intermediate_size % tp and not model.experts:
        yield (
            f"an intermediate size of {model.intermediate_size}",
            f"{model.intermediate_size} is not divisible by {tp}",
        )


def _is_latent(model: ModelFacts) -> bool:
    return any(layers.mixer == "mla" for layers in model.layers)


def _tensor(model: ModelFacts, tp: int, valid: list[int], ranks: str) -> Iterator[Finding]:
    for what, quote in _obstacles(model, tp) if model.heads else ():
        sizes = [size for size in valid if size <= 2 * tp] or valid
        of_one_host = [size for size in valid if 1 < size <= _ONE_HOST] or valid
        yield Finding(
            level="block",
            code="tensor-parallel",
            message=f"{what} cannot be split over {tp} {ranks}; {_listed(of_one_host)} can be used",
            suggestion=f"engine.tensor_parallel_size: {sizes[-1]}",
            numbers={
                "tensor_parallel_size": tp,
                "heads": model.heads,
                "kv_heads": model.kv_heads,
                "valid": ", ".join(map(str, valid)),
            },
            quote=quote,
            path=_PATH,
        )
        return


def _ok(model: ModelFacts, tp: int, ranks: str) -> Finding:
    kv = max(1, model.kv_heads // tp)
    return Finding(
        level="ok",
        code="tensor-parallel",
        message=f"{model.heads} attention heads over {tp} {ranks}: {model.heads // tp} each, with {kv} key/value "
        + ("head" if kv == 1 else "heads"),
        numbers={
            "tensor_parallel_size": tp,
            "heads": model.heads,
            "kv_heads": model.kv_heads,
            "heads_per_gpu": model.heads // tp,
            "kv_heads_per_gpu": kv,
        },
    )


def _product(case: Case, flags: Flags) -> Iterator[Finding]:
    """Sizes that stand in engine.args, where nobody else counts them."""
    asked = flags.tensor_parallel_size * flags.pipeline_parallel_size * flags.data_parallel_size
    if asked == case.accelerators_needed or not case.machine.accelerator or asked <= case.machine.count:
        return
    yield _block(
        "parallelism",
        f"engine.args ask for {asked} GPUs; the machine has {case.machine.count}",
        f"World size ({asked}) is larger than the number of available GPUs ({case.machine.count}) in this node.",
        suggestion=f"resources.accelerators with :{asked}, and engine.tensor_parallel_size instead of the flag",
        path="engine.args",
        numbers={"asked": asked, "count": case.machine.count},
    )


def _pipeline(model: ModelFacts, flags: Flags, release: Release) -> Iterator[Finding]:
    stages = flags.pipeline_parallel_size
    if stages == 1 or not model.layer_count:
        return
    path = "engine.pipeline_parallel_size"
    if release < Release((0, 5, 1)):
        quote = (
            f"Total number of hidden layers ({model.layer_count}) must be divisible by pipeline parallel size "
            f"({stages})."
            if model.layer_count % stages
            else "Pipeline parallelism is not supported yet."
        )
        yield _block("pipeline-parallel", f"vLLM {release} has no pipeline parallelism", quote, path=path)
    elif stages > model.layer_count:
        message = f"{model.layer_count} layers cannot make {stages} stages"
        yield _block("pipeline-parallel", message, f"{model.layer_count=}", path=path)


def _experts(model: ModelFacts, flags: Flags, release: Release) -> Iterator[Finding]:
    tp = flags.tensor_parallel_size
    path = "engine.args.enable_expert_parallel"
    if flags.enable_expert_parallel and not model.experts and release >= releases.EXPERTS_IN_PARALLEL:
        quote = "Number of experts in the model must be greater than 0 when expert parallelism is enabled."
        yield _block("expert-parallel", "the model has no experts to spread", quote, path=path)
    if model.experts and not flags.enable_expert_parallel:
        size = model.experts.intermediate_size
        if tp > model.experts.count:
            quote = f"Tensor parallel size {tp} is greater than the number of experts {model.experts.count}."
            yield _block("tensor-parallel", f"{model.experts.count} experts cannot be spread over {tp} GPUs", quote)
        elif size % tp:
            message = f"experts of size {size} cannot be split over {tp} GPUs"
            yield _block("tensor-parallel", message, "assert intermediate_size % self.tp_size == 0")


def _quantized_shards(model: ModelFacts, flags: Flags, release: Release, method: str | None) -> Iterator[Finding]:
    """A rank's part of each matrix must hold whole groups or blocks of the quantization."""
    quantization, tp = model.quantization, flags.tensor_parallel_size
    if quantization is None or not model.intermediate_size or tp == 1:
        return
    suggestion = "a smaller tensor_parallel_size, with pipeline_parallel_size for the rest"
    if model.experts and flags.enable_expert_parallel:
        return
    whole = model.experts.intermediate_size if model.experts else model.intermediate_size
    part = whole // tp
    numbers = {"input_size_per_partition": part, "tensor_parallel_size": tp}
    if quantization.block and (part % quantization.block[1] or part % quantization.block[0]):
        out, into = quantization.block
        quote = (
            f"The output_size of gate's and up's weight = {part} is not divisible by weight quantization "
            f"block_n = {out}."
            if model.experts
            else f"Weight input_size_per_partition = {part} is not divisible by weight quantization block_k = {into}."
        )
        message = f"{whole} over {tp} GPUs is {part}, which is no multiple of the quantization's blocks of {into}"
        yield _block("quantization-shards", message, quote, suggestion=suggestion, numbers=numbers)
        return
    group = quantization.group_size or 0
    if (
        method not in {"awq", "gptq", "awq_marlin", "gptq_marlin", "auto_awq", "auto_gptq"}
        or group <= 0
        or model.experts
    ):
        return
    if part % group:
        message = f"{whole} over {tp} GPUs is {part}, which is no multiple of the quantization's groups of {group}"
        yield _block(
            "quantization-shards",
            message,
            _group_quote(method, part, group, release, flags),
            suggestion=suggestion,
            numbers={**numbers, "group_size": group},
        )
    elif method == "gptq_marlin" and (part % _MARLIN_K or part % _MARLIN_N):
        quote = (
            f"Weight input_size_per_partition = {part} is not divisible by min_thread_k = {_MARLIN_K}. Consider "
            "reducing tensor_parallel_size or running with --quantization gptq."
        )
        yield _block("quantization-shards", f"{part} is no multiple of Marlin's {_MARLIN_K}", quote, numbers=numbers)


def _group_quote(method: str, part: int, group: int, release: Release, flags: Flags) -> str:
    aligned = (
        "The input size is not aligned with the quantized weight shape. This can be caused by too large tensor "
        "parallel size."
    )
    if method in {"awq", "auto_awq", "awq_marlin"} or release < Release((0, 4, 2)) or flags.quantization == "gptq":
        return aligned
    return (
        f"Weight input_size_per_partition = {part} is not divisible by group_size = {group}.Consider reducing "
        "tensor_parallel_size or running with --quantization gptq."
    )
