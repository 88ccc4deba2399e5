"""What a release does where the recipe is silent: engine generation, batch sizes, block size, CUDA graphs.

engine/arg_utils.py (create_engine_config, _set_default_args_v1, get_batch_defaults), config/scheduler.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from provisioners.accelerators import Accelerator
from runners.case import Case
from runners.engines.vllm import releases
from runners.engines.vllm.flags import Flags
from runners.engines.vllm.lengths import Length
from runners.engines.vllm.precision import Precision
from runners.engines.vllm.releases import Release
from runners.modelfacts.facts import ModelFacts

GIB = 2**30
_V0_SEQUENCES = 256
_LARGE_GIB, _LARGER_GIB = 70, 160


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A launch with every default filled in."""

    release: Release
    v1: bool
    """The engine that was rewritten in 0.8; before and on old accelerators the first one."""
    flags: Flags
    precision: Precision
    length: Length
    tp: int
    pp: int
    dp: int
    utilization: float
    max_num_seqs: int
    max_num_batched_tokens: int
    chunked: bool
    block_size: int
    graphs: bool
    """CUDA graphs are captured."""
    batches_in_flight: int
    cpu: bool = False

    @property
    def max_model_len(self) -> int:
        return self.length.tokens


def settle(case: Case, flags: Flags, precision: Precision, length: Length, release: Release) -> Settings:
    """Every value that memory depends on."""
    accelerator = case.machine.accelerator
    v1 = runs_v1(case.model, flags, accelerator, precision, release)
    batched, sequences, chunked = _batch(case.model, flags, accelerator, length, release, v1=v1)
    graphs = not flags.enforce_eager and accelerator is not None
    if graphs and str(flags.compilation.get("cudagraph_mode", "")).upper() == "NONE":
        graphs = False
    if precision.quantization == "bitsandbytes" and release < releases.BITSANDBYTES_IN_PARALLEL:
        graphs = False
    default = 0.92 if release >= releases.UTILIZATION_092 else 0.9
    return Settings(
        release=release,
        v1=v1,
        flags=flags,
        precision=precision,
        length=length,
        tp=flags.tensor_parallel_size,
        pp=flags.pipeline_parallel_size,
        dp=flags.data_parallel_size,
        utilization=default if flags.gpu_memory_utilization is None else flags.gpu_memory_utilization,
        max_num_seqs=sequences,
        max_num_batched_tokens=batched,
        chunked=chunked,
        block_size=flags.block_size or _block_size(case.model, accelerator, release),
        graphs=graphs,
        batches_in_flight=_in_flight(flags, release, cpu=accelerator is None),
        cpu=accelerator is None,
    )


def runs_v1(
    model: ModelFacts, flags: Flags, accelerator: Accelerator | None, precision: Precision, release: Release
) -> bool:
    """Whether the second engine runs: by release, by environment, and where it fell back to the first (0.8 to 0.10)."""
    asked = flags.env.get("VLLM_USE_V1")
    if release >= releases.ONLY_V1:
        return True
    if asked is not None or release < releases.V1_DEFAULT:
        return asked == "1" and release >= Release((0, 6, 4))
    capability = (accelerator.compute_capability if accelerator else None) or (9, 0)
    if capability < (8, 0) and release < releases.VOLTA_AND_TURING_IN_V1:
        return False
    if release < Release((0, 9, 0)):
        if precision.quantization == "gguf" or precision.compute == "float32" or flags.cpu_offload_gb:
            return False
        if flags.num_scheduler_steps > 1 or (flags.enable_lora and release < Release((0, 8, 3))):
            return False
        if flags.pipeline_parallel_size > 1 or precision.quantization == "bitsandbytes":
            return release >= Release((0, 8, 3)) and flags.pipeline_parallel_size == 1
    fp8_cache = (flags.kv_cache_dtype or "auto") != "auto"
    if fp8_cache and capability[0] != 9 and release < Release((0, 10, 0)):
        return False
    recurrent = any(layers.mixer == "recurrent" for layers in model.layers)
    return not (recurrent and release < Release((0, 10, 0)))


def _batch(
    model: ModelFacts, flags: Flags, accelerator: Accelerator | None, length: Length, release: Release, *, v1: bool
) -> tuple[int, int, bool]:
    """max_num_batched_tokens, max_num_seqs, and whether long prompts are cut in chunks."""
    if not v1:
        return _batch_v0(model, flags, length, release)
    chunked = flags.enable_chunked_prefill is not False
    tokens, sequences = _defaults_v1(flags, accelerator, release)
    if flags.performance_mode == "throughput":
        tokens, sequences = 2 * tokens, 2 * sequences
    batched = flags.max_num_batched_tokens
    asked = flags.max_num_seqs or sequences
    if batched is None:
        batched = tokens if chunked else max(length.tokens, tokens)
        if release >= releases.BATCH_BY_LENGTH:
            batched = min(batched, asked * length.tokens)
    if flags.max_num_seqs is None and release >= Release((0, 10, 2)):
        asked = min(asked, batched)
    return batched, asked, chunked


def _defaults_v1(flags: Flags, accelerator: Accelerator | None, release: Release) -> tuple[int, int]:
    if accelerator is None:
        workers = flags.tensor_parallel_size * flags.pipeline_parallel_size
        return 2048 * workers, 128 * workers
    name, memory = accelerator.name.lower(), accelerator.usable_gib
    if release < releases.BATCH_BY_MEMORY:
        hopper = "h100" in name or "h200" in name
        return (8192 if hopper else 2048), 1024
    if release >= releases.BATCH_16384_FROM_160_GIB and memory >= _LARGER_GIB:
        return 16384, 1024
    small = ("a100" in name and release >= releases.A100_IS_SMALL) or (
        "gb10" in name and release >= Release((0, 33, 0))
    )
    return (8192, 1024) if memory >= _LARGE_GIB and not small else (2048, 256)


def _batch_v0(model: ModelFacts, flags: Flags, length: Length, release: Release) -> tuple[int, int, bool]:
    sequences = flags.max_num_seqs or _V0_SEQUENCES
    chunked = flags.enable_chunked_prefill
    if chunked is None:
        windowed = bool(model.text_config.get("sliding_window")) and model.model_type not in {"qwen2", "qwen3"}
        chunked = (
            release >= releases.LONG_CONTEXT_IS_CHUNKED
            and length.tokens > 32768
            and not (windowed or flags.speculative or flags.enable_lora)
            and not (model.multimodal and release >= Release((0, 6, 0)))
            and not (any(layers.mixer == "mla" for layers in model.layers) and release >= Release((0, 7, 3)))
        )
    if flags.max_num_batched_tokens:
        return flags.max_num_batched_tokens, sequences, chunked
    if chunked and flags.num_scheduler_steps == 1:
        tokens = 2048 if release >= releases.CHUNK_2048 else 768 if release < Release((0, 4, 2)) else 512
    else:
        tokens = max(length.tokens, 2048)
    if model.multimodal and release >= Release((0, 6, 0)):
        tokens = max(tokens, 5120 if release >= Release((0, 6, 3)) else 4096)
    return tokens, sequences, chunked


def _block_size(model: ModelFacts, accelerator: Accelerator | None, release: Release) -> int:
    """16, but for multi-head latent attention, whose kernels want 64 (FlashMLA) or 128 (CUTLASS), and for the CPU."""
    latent = any(layers.mixer == "mla" for layers in model.layers)
    if accelerator is None:
        return 16 if latent or release < Release((0, 10, 0)) else 128
    if not latent or release < releases.MLA_LATENT:
        return 16
    generation = (accelerator.compute_capability or (0, 0))[0]
    if model.config.get("index_topk"):
        return 64
    if generation == 10 and release >= Release((0, 9, 2)):
        return 128 if release < Release((0, 18, 0)) else 32
    return 64 if generation in {9, 10} and release >= Release((0, 8, 0)) else 16


def _in_flight(flags: Flags, release: Release, *, cpu: bool) -> int:
    """Batches that are under way at once (config/vllm.py, max_concurrent_batches)."""
    stages = flags.pipeline_parallel_size
    if cpu or release < releases.ASYNC_SCHEDULING or flags.async_scheduling is False or flags.speculative:
        return stages
    return stages + 1
