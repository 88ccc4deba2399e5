"""Whether transformers would start with these flags on this machine, and answer: findings, each with its own words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from provisioners.contract import Finding
from runners.case import Assessment, Case, Memory
from runners.engines.transformers.memory import (
    GIB,
    Need,
    activation_bytes,
    computes_float8,
    kv_per_token,
    need,
    paged_tokens,
    tokens_one_by_one,
)
from runners.engines.transformers.options import MAX_REQUESTS, Options, dtype_of
from runners.modelfacts.facts import ModelFacts
from runners.pytorch import ITEM_BYTES, OUT_OF_MEMORY, oldest_capability

BASIS = "transformers 5.23: from_pretrained, DynamicCache, PagedAttentionMemoryHandler"
_UNKNOWN_REQUEST_TOKENS = 2048
"""The prompt for which room is kept where no workload says how long its requests are."""
_FULL_REQUEST_TOKENS = 4096
"""Requests of this size, or of all that the model takes, should fit."""
_BFLOAT16_SINCE = (8, 0)
_BLOCK_OF_NF4 = 64
_RAM_CLEARLY, _RAM_ALMOST = 1.1, 0.9
_LONGEST = 2**20
# What each method of stored weights needs that is not installed, as the library says it.
_LIBRARIES = {
    "gptq": "Loading a GPTQ quantized model requires optimum (`pip install optimum`)",
    "awq": "Loading an AWQ quantized model requires gptqmodel. Please install it with `pip install gptqmodel`",
    "compressed-tensors": "Using `compressed_tensors` quantized models requires compressed-tensors>=0.15.0",
    "torchao": "Loading an torchao quantized model requires torchao library (`pip install torchao`)",
    "fp_quant": "Using `fp_quant` quantization requires fp_quant: `pip install fp_quant`",
    "hqq": "A valid HQQ version (>=0.2.1) is not available.",
}
_LOADED = frozenset({"bitsandbytes", "fp8", "mxfp4"})


def assess(case: Case, torch: str) -> Assessment:
    """Pure; for the tested release."""
    options, model = Options.of(case.spec), case.model
    findings = [*_form(case), *_asked(case), *_quantization(case, options)]
    if case.machine.accelerator and options.device != "cpu":
        findings += [*_capability(case, torch), *_dtype(case, options)]
    if model.form != "folder" or not model.tensors:
        return Assessment(findings=tuple(findings))
    longest = case.demand.longest_request_tokens if case.demand else _default_request(model)
    found = need(model, options, case.machine, longest, stages=case.spec.pipeline_parallel_size)
    memory = _memory(case, options, found)
    on_gpu = case.machine.accelerator is not None and options.device != "cpu"
    findings += _on_gpu(case, options, found, memory) if on_gpu else _in_ram(case, options, found)
    if not any(finding.level == "block" or finding.code == "kv-cache" for finding in findings):
        findings.append(_room(options, memory))
    return Assessment(findings=tuple(findings), memory=memory)


def _default_request(model: ModelFacts) -> int:
    return min(model.max_positions or _UNKNOWN_REQUEST_TOKENS, _UNKNOWN_REQUEST_TOKENS)


def _form(case: Case) -> Iterator[Finding]:
    model = case.model
    if model.form != "folder":
        yield _block(
            "architecture",
            "transformers serve is given a folder of safetensors here, and this model is one GGUF file",
            path="model",
            suggestion="--set engine.name=llamacpp",
        )
    elif not model.known:
        yield Finding(
            level="warn",
            code="architecture",
            message=f"recipe does not know the architecture {model.architecture or model.model_type}; transformers may"
            " refuse it",
            quote=f"model type `{model.model_type}` but Transformers does not recognize this architecture",
            path="model",
        )


def _asked(case: Case) -> Iterator[Finding]:
    spec = case.spec
    for name in ("tensor_parallel_size", "data_parallel_size"):
        if (size := getattr(spec, name)) > 1:
            yield _block(
                "parallelism",
                f"transformers serve has no {name.replace('_', ' ')} ({size}); pipeline_parallel_size spreads layers"
                " over GPUs",
                path=f"engine.{name}",
                suggestion=f"--set engine.{name}=1",
                numbers={name: size},
            )
    if spec.expose:
        yield _block(
            "exposed",
            "transformers serve asks for no key, so its port is not opened to the internet",
            path="engine.expose",
            suggestion="--set engine.expose=false",
        )


def _quantization(case: Case, options: Options) -> Iterator[Finding]:
    path, stored, wanted = "engine.args.quantization", case.model.quantization, options.quantization
    if wanted not in (None, "bnb-4bit", "bnb-8bit"):
        quote = f"Unsupported quantization method: '{wanted}'. Must be 'bnb-4bit' or 'bnb-8bit'."
        yield _block("quantization", f"engine.args.quantization {wanted} is not one of its two", path=path, quote=quote)
    if options.dtype and options.dtype not in ITEM_BYTES:
        quote = f"Unsupported dtype: '{options.dtype}'. Must be 'auto' or a valid torch dtype"
        yield _block("dtype", f"engine.args.dtype {options.dtype} is no type", path="engine.args.dtype", quote=quote)
    if stored and wanted:
        message = (
            f"the model is stored as {stored.method}; engine.args.quantization is for models that are not quantized"
        )
        yield Finding(level="warn", code="quantization", message=message, path=path)
    elif stored and stored.method in _LIBRARIES:
        message = f"the weights are stored as {stored.method}, whose library is not among what is installed"
        yield _block("quantization", message, path="model", quote=_LIBRARIES[stored.method])
    elif stored and stored.method not in _LOADED:
        message = f"the weights are stored as {stored.method}; transformers may know it only with another library"
        yield Finding(level="warn", code="quantization", message=message, path="model")
    elif stored and stored.method == "fp8" and not computes_float8(case.machine):
        message = "8-bit floats become bfloat16 while loading here: twice the memory, and no faster"
        quote = "FP8 quantized models is only supported on GPUs with compute capability >= 8.9"
        yield Finding(level="warn", code="quantization", message=message, quote=quote, path="model")
    if wanted == "bnb-4bit" and case.machine.accelerator is None:
        odd = [size for size in (case.model.hidden_size, case.model.intermediate_size) if size % _BLOCK_OF_NF4]
        if odd:
            message = f"on the CPU, bnb-4bit needs sizes in blocks of {_BLOCK_OF_NF4}, and this model has {odd[0]}"
            yield _block("quantization", message, path=path, quote="is invalid for input of size")


def _capability(case: Case, torch: str) -> Iterator[Finding]:
    accelerator = case.machine.accelerator
    capability = accelerator.compute_capability if accelerator else None
    if accelerator and accelerator.vendor != "nvidia":
        yield _block(
            "capability",
            f"PyTorch from PyPI computes on NVIDIA's GPUs, and {accelerator.name} is none",
            path="resources.accelerators",
            quote="Found no NVIDIA driver on your system",
        )
    elif accelerator and capability and capability < oldest_capability(torch):
        has, oldest = ".".join(map(str, capability)), ".".join(map(str, oldest_capability(torch)))
        yield _block(
            "capability",
            f"{accelerator.name} has compute capability {has}, and PyTorch {torch} has kernels from {oldest} on",
            path="resources.accelerators",
            quote="no kernel image is available for execution on the device",
        )


def _dtype(case: Case, options: Options) -> Iterator[Finding]:
    accelerator = case.machine.accelerator
    capability = accelerator.compute_capability if accelerator else None
    if accelerator and capability and capability < _BFLOAT16_SINCE and dtype_of(options, case.model) == "bfloat16":
        yield Finding(
            level="warn",
            code="dtype",
            message=f"{accelerator.name} has no bfloat16 (compute capability {capability[0]}.{capability[1]}): PyTorch"
            " emulates it, several times slower than float16",
            suggestion="--set engine.args.dtype=float16",
            path="engine.args.dtype",
        )


def _on_gpu(case: Case, options: Options, found: Need, memory: Memory) -> Iterator[Finding]:
    accelerator = case.machine.accelerator
    assert accelerator is not None
    doubt, numbers = memory.uncertainty_gib, _numbers(found)
    name = f"{accelerator.name} ({found.usable:.1f} GiB)"
    kind = options.quantization or dtype_of(options, case.model)
    room = found.usable - found.weights - found.other
    if found.spilled > doubt * found.places and options.quantization:
        yield _block(
            "weights",
            f"{found.spilled:.1f} GiB of {kind} weights would be left in RAM, where bitsandbytes does not compute",
            path="resources.accelerators",
            quote="Some modules are dispatched on the CPU or the disk.",
            numbers=numbers,
        )
    elif found.spilled > 0:
        message = f"{found.spilled:.1f} GiB of weights stay in RAM with device auto, and cross the bus for each token"
        yield Finding(level="warn", code="weights", message=message, numbers=numbers, path="resources.accelerators")
    elif room < -doubt:
        yield _block(
            "weights",
            f"{found.weights:.2f} GiB of weights in {kind} do not fit on {name}",
            path="resources.accelerators",
            quote=OUT_OF_MEMORY,
            numbers=numbers,
        )
    elif room < doubt:
        message = (
            f"{found.weights:.2f} GiB of weights in {kind} leave {max(room, 0):.2f} GiB of {name}: it may not load"
        )
        yield Finding(
            level="warn",
            code="weights",
            message=message,
            numbers=numbers,
            quote=OUT_OF_MEMORY,
            path="resources.accelerators",
        )
    else:
        message = f"{found.weights:.2f} GiB in {kind} on {name}"
        yield Finding(level="ok", code="weights", message=message, numbers=numbers)
    if room >= -doubt or found.spilled > 0:
        yield from _requests(case, options, found, memory)


def _requests(case: Case, options: Options, found: Need, memory: Memory) -> Iterator[Finding]:
    """Whether the longest request has room: keys, values, and its prompt's forward pass."""
    longest = case.demand.longest_request_tokens if case.demand else 0
    wanted = longest or min(memory.max_model_len, _FULL_REQUEST_TOKENS)
    if options.batching and memory.kv_tokens == 0:
        yield _block(
            "kv-cache",
            "no memory is left for the paged cache of continuous batching",
            path="engine.args.cb_max_batch_tokens",
            quote="Invalid values: max_batch_tokens",
            numbers=_numbers(found),
        )
        return
    if options.batching:
        short = (wanted - memory.kv_tokens) * memory.kv_bytes_per_token / GIB
    else:
        # The forward pass of the prompt was counted for the longest request already.
        short = (wanted * found.kv_bytes_per_token + found.kv_bytes_fixed) / GIB - found.left
    if found.spilled > 0 or short <= -memory.uncertainty_gib:
        return
    yield Finding(
        # With device auto layers may move to RAM instead.
        level="block" if longest and short > memory.uncertainty_gib and not found.automatic else "warn",
        code="kv-cache",
        message=f"the weights leave room for requests of about {memory.longest_that_fits:,} tokens"
        + (f", and the longest has {longest:,}" if longest else f" of the model's {memory.max_model_len:,}"),
        numbers={**_numbers(found), "kv_tokens": memory.kv_tokens, "longest_that_fits": memory.longest_that_fits},
        quote=OUT_OF_MEMORY,
        path="workload.chunk_size" if longest else "resources.accelerators",
    )


def _in_ram(case: Case, options: Options, found: Need) -> Iterator[Finding]:
    ram_gib = case.machine.ram_gib
    if ram_gib is None:
        return
    longest = case.demand.longest_request_tokens if case.demand else _default_request(case.model)
    kv = (longest * found.kv_bytes_per_token + found.kv_bytes_fixed) / GIB
    total = found.weights + found.other + found.activation + kv
    kind, rest = dtype_of(options, case.model), total - found.weights
    parts = f"{found.weights:.2f} GiB of weights in {kind}, {rest:.2f} for a request"
    level = "block" if total > _RAM_CLEARLY * ram_gib else "warn" if total > _RAM_ALMOST * ram_gib else "ok"
    if level == "block":
        yield _block(
            "ram",
            f"{parts}: the machine has {ram_gib:.1f} GiB of RAM",
            path="resources.memory",
            numbers=_numbers(found),
        )
    else:
        yield Finding(
            level="warn" if level == "warn" else "ok",
            code="ram",
            message=f"{parts}, of {ram_gib:.1f} GiB of RAM",
            numbers=_numbers(found),
        )


def _room(options: Options, memory: Memory) -> Finding:
    how = f"up to {memory.slots} requests at once" if options.batching else "requests are answered one by one"
    return Finding(
        level="ok",
        code="kv-cache",
        message=f"{memory.kv_tokens:,} tokens; {how}",
        numbers={"kv_tokens": memory.kv_tokens, "slots": memory.slots},
    )


def _memory(case: Case, options: Options, found: Need) -> Memory:
    on_gpu = case.machine.accelerator is not None and options.device != "cpu"
    model = case.model
    longest_known = model.max_positions or _LONGEST
    if options.batching:
        tokens = paged_tokens(model, options, found, on_gpu=on_gpu)
        fits = min(tokens, longest_known)
    else:
        tokens = tokens_one_by_one(found)
        fits = _longest(case, options, found, longest_known)
    asked = max(1, case.demand.longest_request_tokens if case.demand else min(longest_known, fits))
    mean = max(1, case.demand.mean_request_tokens if case.demand else asked)
    slots = MAX_REQUESTS if options.batching else 1
    return Memory(
        usable_gib_per_gpu=found.usable,
        budget_gib_per_gpu=found.usable,
        weights_gib_per_gpu=found.weights,
        activation_gib_per_gpu=found.activation,
        other_gib_per_gpu=found.other,
        kv_gib_per_gpu=max(0.0, min(found.left, tokens * found.kv_bytes_per_token / GIB)),
        kv_bytes_per_token=found.kv_bytes_per_token,
        kv_tokens=tokens,
        block_tokens=options.page_tokens if options.batching else 1,
        max_model_len=longest_known,
        longest_that_fits=fits,
        max_running=min(slots, tokens // asked) if options.batching else int(asked <= fits),
        running_at_mean=min(slots, tokens // mean) if options.batching else int(mean <= fits),
        slots=slots,
        uncertainty_gib=(0.25 if on_gpu else 0.1) + 0.02 * found.weights,
        basis=BASIS,
    )


def _longest(case: Case, options: Options, found: Need, known: int) -> int:
    """The longest request for which keys, values and its own forward pass have room: both grow with it."""
    item = ITEM_BYTES.get(dtype_of(options, case.model), 2)
    at_all = activation_bytes(case.model, item, 0)
    per_token = activation_bytes(case.model, item, 1) - at_all + found.kv_bytes_per_token
    free = (
        (found.usable - found.weights - found.other) * GIB - at_all - kv_per_token(case.model, item)[1] / found.places
    )
    return max(0, min(known, int(free / per_token))) if per_token else known


def _block(
    code: str,
    message: str,
    *,
    path: str,
    quote: str = "",
    suggestion: str = "",
    numbers: Mapping[str, float | int | str] | None = None,
) -> Finding:
    return Finding(
        level="block", code=code, message=message, suggestion=suggestion, numbers=numbers or {}, quote=quote, path=path
    )


def _numbers(found: Need) -> dict[str, float | int | str]:
    return {
        "weights_gib": round(found.weights, 3),
        "usable_gib": round(found.usable, 3),
        "other_gib": round(found.other, 3),
        "activation_gib": round(found.activation, 3),
    }
