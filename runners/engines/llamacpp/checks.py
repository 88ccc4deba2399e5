"""Whether llama.cpp would start with these flags on this machine: findings, each with its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from provisioners.contract import Finding
from runners.case import Assessment, Case, Memory
from runners.engines.llamacpp.memory import (
    CUDA_CONTEXT_GIB,
    FIT_MARGIN_GIB,
    GIB,
    Context,
    Layout,
    Use,
    context_of,
    kv_bytes,
    layout,
    on_gpus,
)
from runners.engines.llamacpp.options import CacheType, Options, wrong_numbers

BASIS = "llama.cpp's own buffers, as in the release of xllamacpp 2026.10.11549"
_LONGEST = 2**21
"""Tokens up to which a longer context is looked for."""
_RAM_CLEARLY = 1.1
"""RAM is needed by others too, and weights are read through the page cache: only well beyond it is a refusal."""
_RAM_ALMOST = 0.9
_OLDEST_CAPABILITY, _NATIVE, _TRANSLATES_SINCE = (5, 0), frozenset({(8, 6), (8, 9), (12, 0)}), (12, 8)
"""Of xllamacpp's build for CUDA 12.8, as onhost/cuda_xllamacpp.py installs it; see there."""
_KEPT_PROMPTS = 100
"""Prompts of idle slots that a run of some length leaves in RAM; each keeps its keys and values."""


def assess(case: Case) -> Assessment:
    """Pure; for the tested release."""
    options, model = Options.of(case.spec), case.model
    findings = [*_build(case), *_flags(case)]
    if any(finding.code == "capability" for finding in findings):
        case = replace(case, machine=replace(case.machine, accelerator=None, count=0))
    findings += [*_form(case), *_parallelism(case), *_cache_types(case, options), *_trained_context(case, options)]
    if model.form != "gguf" or not model.layers or options.slots < 1:
        return Assessment(findings=tuple(findings))
    plan = layout(model, options, case.machine)
    findings += _on_gpu(case, options, plan) if plan.gpu else []
    findings += _in_ram(case, options, plan)
    memory = _memory(case, options, plan)
    if not any(finding.level == "block" for finding in findings):
        findings.append(_room(memory, options, plan))
    return Assessment(findings=tuple(findings), memory=memory)


def _flags(case: Case) -> Iterator[Finding]:
    for key, least in wrong_numbers(case.spec.args).items():
        value = repr(case.spec.args[key])
        told = value if len(value) <= 40 else f"{value[:40]}…"
        wanted = "a whole number" if least is None else f"a whole number from {least} on"
        yield Finding(
            level="block",
            code="flag",
            message=f"engine.args.{key} is {told}, and llama.cpp wants {wanted}",
            path=f"engine.args.{key}",
        )


def _build(case: Case) -> Iterator[Finding]:
    """Whether the build that is installed computes on this accelerator."""
    accelerator = case.machine.accelerator
    if accelerator is None:
        return
    capability = accelerator.compute_capability
    if accelerator.vendor != "nvidia" or (capability and capability < _OLDEST_CAPABILITY):
        yield Finding(
            level="warn",
            code="capability",
            message=f"no build of xllamacpp that recipe installs computes on {accelerator.name}: the CPU does the work",
            path="resources.accelerators",
        )
        return
    cuda = tuple(map(int, case.machine.cuda.split("."))) if case.machine.cuda else None
    if cuda and capability and cuda < _TRANSLATES_SINCE and capability not in _NATIVE:
        yield Finding(
            level="block",
            code="cuda",
            message=f"xllamacpp's build for CUDA 12.8 has no machine code for {accelerator.name}, and the driver of the"
            f" machine (CUDA {case.machine.cuda}) cannot translate its PTX",
            quote="the provided PTX was compiled with an unsupported toolchain",
            path="resources.accelerators",
        )


def _form(case: Case) -> Iterator[Finding]:
    model = case.model
    if model.form != "gguf":
        yield Finding(
            level="block",
            code="architecture",
            message="llama.cpp loads GGUF files, and this model is a folder of safetensors",
            suggestion="name a repository with a .gguf file, or another engine",
            quote="error loading model",
            path="model",
        )
    elif not model.known:
        yield Finding(
            level="warn",
            code="architecture",
            message=f"recipe does not know the architecture {model.architecture or 'of this file'};"
            " llama.cpp may refuse it",
            quote=f"error loading model: unknown model architecture: '{model.architecture}'",
            path="model",
        )


def _parallelism(case: Case) -> Iterator[Finding]:
    for name in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if (size := getattr(case.spec, name)) > 1:
            yield Finding(
                level="block",
                code="parallelism",
                message=f"llama.cpp has no {name.replace('_', ' ')} ({size}): it spreads a model over all GPUs that it"
                " sees, by engine.args.split_mode (layer or row) and tensor_split",
                suggestion=f"--set engine.{name}=1",
                numbers={name: size},
                path=f"engine.{name}",
            )


def _cache_types(case: Case, options: Options) -> Iterator[Finding]:
    keys, values = options.key_type, options.value_type
    for flag, kind in (("cache_type_k", keys), ("cache_type_v", values)):
        if not kind.known:
            message = (
                f"engine.args.{flag} {kind.name} is no type of a KV cache: f32, f16, bf16, q8_0, q5_1, q5_0, q4_1, q4_0"
            )
            yield _quantization(message, f"unrecognized arguments: --{flag.replace('_', '-')} {kind.name}", flag)
    if values.block > 1 and not options.flash_attention:
        message = f"the V cache is {values.name}, and flash attention is off"
        yield _quantization(message, "quantized V cache requires flash_attn to be enabled", "flash_attn")
    for letter, kind, sizes in (
        ("k", keys, {layers.key_dim for layers in case.model.layers}),
        ("v", values, {layers.value_dim for layers in case.model.layers}),
    ):
        for size in sorted(sizes):
            if size % kind.block:
                yield _uneven(letter, kind, size)


def _uneven(letter: str, kind: CacheType, size: int) -> Finding:
    block = f"{kind.name} with block size {kind.block}"
    return _quantization(
        f"a {kind.name} cache holds blocks of {kind.block}, and this model's heads have {size} elements",
        f"{letter.upper()} cache type {block} does not divide n_embd_head_{letter}={size}",
        f"cache_type_{letter}",
    )


def _quantization(message: str, quote: str, flag: str) -> Finding:
    return Finding(level="block", code="quantization", message=message, quote=quote, path=f"engine.args.{flag}")


def _trained_context(case: Case, options: Options) -> Iterator[Finding]:
    trained = case.model.max_positions
    if options.slots < 1 or not trained:
        return
    context = context_of(options, case.model)
    if context.stream > trained:
        what = "all slots together" if options.unified else "each slot"
        yield Finding(
            level="warn",
            code="max-model-len",
            message=f"the context of {what} is {context.stream:,} tokens, and the model was trained on {trained:,}:"
            f" a request may have {context.slot:,}, the rest of the cache is of no use"
            + (" to it" if options.unified else ""),
            suggestion=f"--set engine.args.{options.context_key}={trained * options.streams}"
            if not options.unified
            else "",
            numbers={"n_ctx_seq": context.stream, "n_ctx_train": trained, "n_ctx_slot": context.slot},
            quote=f"n_ctx_seq ({context.stream}) > n_ctx_train ({trained}) -- possible training context overflow",
            path=f"engine.args.{options.context_key}",
        )


def _on_gpu(case: Case, options: Options, plan: Layout) -> Iterator[Finding]:
    accelerator, use = case.machine.accelerator, plan.gpu
    assert accelerator is not None
    assert use is not None
    left, doubt = accelerator.usable_gib - use.total, _uncertainty_gib(use)
    numbers = _numbers(use, accelerator.usable_gib)
    name = f"{accelerator.name} ({accelerator.usable_gib:.1f} GiB)"
    if plan.layers_on_gpu < plan.layers and options.gpu_layers is None and left >= 0:
        yield Finding(
            level="warn",
            code="weights",
            message=f"{plan.layers_on_gpu} of {plan.layers} layers fit on {case.machine.count or 1} × {name} with this"
            " context; the others compute on the CPU, many times slower",
            numbers={**numbers, "layers_on_gpu": plan.layers_on_gpu, "layers": plan.layers},
            path="resources.accelerators",
        )
    elif left < doubt:
        without_kv = use.total - use.kv
        enough_for_weights = without_kv <= accelerator.usable_gib
        yield Finding(
            level="block" if left < -doubt else "warn",
            code="kv-cache" if enough_for_weights else "weights",
            message=f"the fullest {name} would hold {use.weights:.2f} GiB of weights, {use.kv:.2f} of KV cache,"
            f" {use.compute + use.other:.2f} for computing: {abs(left):.2f} GiB "
            + ("too much" if left < 0 else "to spare"),
            numbers=numbers,
            quote="failed to allocate buffer for kv cache" if enough_for_weights else "unable to allocate CUDA0 buffer",
            path=f"engine.args.{options.context_key}" if enough_for_weights else "resources.accelerators",
        )
    else:
        yield Finding(
            level="ok",
            code="weights",
            message=f"{_parts(use)} on the fullest {name}",
            numbers=numbers,
        )


def _in_ram(case: Case, options: Options, plan: Layout) -> Iterator[Finding]:
    ram_gib, use = case.machine.ram_gib, plan.host
    if ram_gib is None:
        return
    numbers = _numbers(use, ram_gib)
    parts = _parts(use)
    if _allocated_gib(use) > ram_gib:
        quote, level = "failed to allocate buffer for kv cache", "block"
    else:
        quote = ""
        level = "block" if use.total > _RAM_CLEARLY * ram_gib else "warn" if use.total > _RAM_ALMOST * ram_gib else "ok"
    if level == "ok":
        kept = _kept_gib(case, options, plan)
        if use.total + kept > ram_gib:
            yield _prompts_kept(use, kept, ram_gib, numbers)
            return
        yield Finding(level="ok", code="ram", message=f"{parts}, of {ram_gib:.1f} GiB of RAM", numbers=numbers)
        return
    yield Finding(
        level="block" if level == "block" else "warn",
        code="ram",
        message=f"{parts} make {use.total:.1f} GiB, and the machine has {ram_gib:.1f} GiB of RAM",
        suggestion=_shorter(case, options, plan) if use.kv > use.weights else "",
        numbers=numbers,
        quote=quote,
        path=f"engine.args.{options.context_key}" if use.kv > use.weights else "resources.memory",
    )


def _kept_gib(case: Case, options: Options, plan: Layout) -> float:
    """What the prompt cache grows to: it takes the keys and values of a slot whenever another prompt needs it."""
    if case.demand is None:
        return 0.0
    per_token = kv_bytes(case.model, options, plan.context) / plan.context.total / GIB
    return min(options.prompt_cache_gib, _KEPT_PROMPTS * case.demand.mean_request_tokens * per_token)


def _prompts_kept(use: Use, kept: float, ram_gib: float, numbers: Mapping[str, float | int | str]) -> Finding:
    return Finding(
        level="warn",
        code="ram",
        message=f"{use.total:.1f} GiB at the start, and prompts of idle slots may fill {kept:.1f} GiB more of"
        f" {ram_gib:.1f} GiB of RAM",
        suggestion="--set engine.args.cache_ram=0",
        numbers={**numbers, "prompt_cache_gib": round(kept, 3)},
        path="engine.args.cache_ram",
    )


def _shorter(case: Case, options: Options, plan: Layout) -> str:
    """What to set where the context is too long for the machine; nothing if no context would be short enough."""
    tokens = min(_longest(case, options), plan.context.stream) * options.streams
    return f"--set engine.args.{options.context_key}={tokens}" if tokens else ""


def _allocated_gib(use: Use) -> float:
    """What must be in RAM; weights are mapped from the file, and its pages may come and go."""
    return use.kv + use.compute + use.other


def _parts(use: Use) -> str:
    return f"{use.weights:.2f} GiB of weights, {use.kv:.2f} of KV cache, {use.compute + use.other:.2f} for computing"


def _room(memory: Memory, options: Options, plan: Layout) -> Finding:
    slots = f"{options.slots} slot{'s' if options.slots > 1 else ''}"
    return Finding(
        level="ok",
        code="kv-cache",
        message=f"{memory.kv_tokens:,} tokens in {slots}; a request may have {memory.max_model_len:,}",
        numbers={
            "kv_tokens": memory.kv_tokens,
            "slots": options.slots,
            "max_model_len": memory.max_model_len,
            "kv_gib": round(plan.host.kv if plan.gpu is None else plan.gpu.kv, 3),
        },
    )


def _memory(case: Case, options: Options, plan: Layout) -> Memory:
    use = plan.gpu if plan.gpu and plan.layers_on_gpu else plan.host
    on_gpu = use is plan.gpu
    accelerator = case.machine.accelerator
    have = accelerator.usable_gib if on_gpu and accelerator else case.machine.ram_gib
    usable = use.total if have is None else have
    kv = max(0.0, min(use.kv, usable - use.total + use.kv))
    weights = use.weights
    if not on_gpu and _allocated_gib(use) <= usable:
        # Pages of the file that do not fit stay on disk.
        kv, weights = use.kv, min(weights, usable - _allocated_gib(use))
    context = plan.context
    total = kv_bytes(case.model, options, context)
    per_token = use.kv * GIB / context.total
    whole = kv >= use.kv - 1e-9
    return Memory(
        usable_gib_per_gpu=usable,
        budget_gib_per_gpu=usable,
        weights_gib_per_gpu=weights,
        activation_gib_per_gpu=use.compute,
        other_gib_per_gpu=use.other,
        kv_gib_per_gpu=kv,
        kv_bytes_per_token=per_token,
        kv_tokens=context.total if whole else int(kv * GIB / per_token),
        block_tokens=1,
        max_model_len=context.slot,
        longest_that_fits=_longest(case, options) if total else context.slot,
        max_running=_running(case.demand.longest_request_tokens if case.demand else context.slot, options, context),
        running_at_mean=_running(case.demand.mean_request_tokens if case.demand else context.slot, options, context),
        slots=options.slots,
        uncertainty_gib=_uncertainty_gib(use),
        basis=BASIS,
    )


def _running(tokens: int, options: Options, context: Context) -> int:
    """How many requests of this size run at once."""
    if tokens > context.slot:
        return 0
    return min(options.slots, context.total // tokens) if options.unified and tokens else options.slots


def _longest(case: Case, options: Options) -> int:
    """The longest request of each slot with which all that the recipe wants on GPUs stays there, or in RAM."""
    trained = case.model.max_positions or _LONGEST
    low, high = 0, max(1, trained // 256)
    while low < high:
        middle = (low + high + 1) // 2
        plan = on_gpus(case.model, options, case.machine, middle * 256)
        if _fits(case, plan, options):
            low = middle
        else:
            high = middle - 1
    return min(low * 256, trained)


def _fits(case: Case, plan: Layout, options: Options) -> bool:
    accelerator, ram_gib = case.machine.accelerator, case.machine.ram_gib
    margin = FIT_MARGIN_GIB if options.fit and options.gpu_layers is None else _uncertainty_gib(plan.gpu or plan.host)
    if plan.gpu and accelerator and plan.gpu.total + margin > accelerator.usable_gib:
        return False
    return ram_gib is None or plan.host.total <= _RAM_ALMOST * ram_gib


def _uncertainty_gib(use: Use) -> float:
    """CUDA's own part (±0.25 GiB on a GPU), a tenth of the compute buffer, what alignment adds."""
    return (CUDA_CONTEXT_GIB / 2 if use.other >= CUDA_CONTEXT_GIB else 0.05) + 0.1 * use.compute + 0.005 * use.weights


def _numbers(use: Use, have_gib: float) -> dict[str, float | int | str]:
    return {
        "weights_gib": round(use.weights, 3),
        "kv_gib": round(use.kv, 3),
        "compute_gib": round(use.compute, 3),
        "other_gib": round(use.other, 3),
        "usable_gib": round(have_gib, 3),
    }
