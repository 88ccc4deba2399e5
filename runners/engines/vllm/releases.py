"""vLLM's releases: which one a text names, and what changed with which, each as a named boundary.

Read in vLLM's own sources, release by release (0.2.1 to 0.33.0); the file and function stand beside each boundary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

OLDEST, NEWEST = (0, 2, 0), (0, 33, 99)
"""The releases whose sources these rules were read in."""


@dataclass(frozen=True, order=True)
class Release:
    """A release number; what stands behind the third part (post1, rc1, +cpu) changes no rule."""

    number: tuple[int, int, int]

    @property
    def known(self) -> bool:
        return OLDEST <= self.number <= NEWEST

    def __str__(self) -> str:
        return ".".join(map(str, self.number))


def release(text: str) -> Release | None:
    """The release that a version names; None if it names none (a branch, a commit)."""
    match = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text.strip())
    return Release((int(match[1]), int(match[2]), int(match[3] or 0))) if match else None


def _since(major: int, minor: int, patch: int = 0) -> Release:
    return Release((major, minor, patch))


HEALTH_PAGE = _since(0, 2, 2)
"""The server answers /health (entrypoints/openai/api_server.py); before, its list of models is the first answer."""

# --- memory: worker/worker.py and v1/worker/gpu_worker.py ------------------------------------------------------------
RESERVED_COUNTS = _since(0, 2, 5)
"""The device's free memory is measured after the profiling run, so that PyTorch's cached blocks count as used."""
CONTEXT_IS_OUTSIDE = _since(0, 3, 0)
"""The use before the model (the CUDA context) is subtracted again."""
PEAK_COUNTS_AGAIN = _since(0, 6, 4)
"""PyTorch's peak of allocated bytes plus all that is not PyTorch's, the context included."""
INCREASE_COUNTS_V0 = _since(0, 6, 5)
"""V0: only what grew since the worker began (utils.memory_profiling)."""
INCREASE_COUNTS_V1 = _since(0, 9, 1)
"""V1: the same; from here on it refuses when less is free at the start than it is to use."""
GRAPHS_ARE_SUBTRACTED = _since(0, 20, 0)
"""The memory of CUDA graphs is estimated and taken off the KV cache (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS)."""
UTILIZATION_092 = _since(0, 20, 0)
"""gpu_memory_utilization is 0.92 by default; 0.9 before (config/cache.py)."""

# --- defaults: engine/arg_utils.py, config/scheduler.py ------------------------------------------------------------
LONG_CONTEXT_IS_CHUNKED = _since(0, 5, 4)
"""Chunked prefill by default above 32768 tokens."""
CHUNK_2048 = _since(0, 6, 5)
"""max_num_batched_tokens with chunked prefill: 768 in 0.4.1, 512 before this one, 2048 from it."""
V1_DEFAULT = _since(0, 8, 0)
BATCH_BY_MEMORY = _since(0, 8, 5)
"""V1's batch sizes depend on the accelerator's memory (70 GiB) instead of its name (H100, H200)."""
A100_IS_SMALL = _since(0, 9, 0)
"""An A100 gets the smaller defaults in spite of its memory."""
ONLY_V1 = _since(0, 11, 0)
BATCH_BY_LENGTH = _since(0, 11, 1)
"""max_num_batched_tokens ≤ max_num_seqs × max_model_len, and max_num_seqs ≤ max_num_batched_tokens."""
BATCH_16384_FROM_160_GIB = _since(0, 28, 0)
ASYNC_SCHEDULING = _since(0, 14, 0)
"""Two batches are under way at once."""

# --- KV cache: v1/core/kv_cache_utils.py -----------------------------------------------------------------------------
CAPACITY_IS_CHECKED = _since(0, 2, 7)
"""A cache smaller than max_model_len is refused (engine/llm_engine.py)."""
HYBRID_CACHE = _since(0, 9, 1)
"""Layers that keep less than the whole sequence get groups of their own."""
CAPACITY_BY_CONCURRENCY = _since(0, 21, 0)
"""The log's tokens are the concurrency at max_model_len times max_model_len."""
IN_FLIGHT_TOKENS_COUNT = _since(0, 26, 0)
"""Sliding windows also hold what is under way in other batches."""
ONE_BLOCK_IS_RESERVED = _since(0, 29, 0)
"""The check leaves out the block that stands for nothing."""
MLA_LATENT = _since(0, 7, 1)
"""Multi-head latent attention stores the latent vector; before, all heads' keys and values, padded to 256."""

# --- lengths: config.py, _get_and_verify_max_len ---------------------------------------------------------------------
ALLOW_LONG = _since(0, 5, 4)
MODEL_MAX_LENGTH_WINS = _since(0, 8, 3)
YARN_DOES_NOT_SCALE = _since(0, 30, 0)
"""The config's own length already includes yarn's factor."""
LONGROPE_STARTS_SHORT = _since(0, 11, 1)
"""Without max_model_len, a longrope model gets its original length."""
GEMMA3_DOES_NOT_SCALE = _since(0, 8, 0)
ALWAYS_SCALES = _since(0, 12, 0)
"""Every config has rope_parameters, so that the derived length is printed as a float."""
WARNS_OF_NAN = _since(0, 10, 2)
"""The refusal's text speaks of nan and out-of-bounds."""

# --- parallelism: config.py, verify_with_parallel_config -------------------------------------------------------------
BITSANDBYTES_IN_PARALLEL = _since(0, 6, 2)
"""bitsandbytes with tensor or pipeline parallelism."""
EXPERTS_IN_PARALLEL = _since(0, 7, 3)

# --- precision: config.py, _get_and_verify_dtype; platforms/cuda.py --------------------------------------------------
AUTO_DTYPE_FALLS_BACK = _since(0, 9, 0)
"""dtype auto takes what the accelerator knows instead of failing."""
VOLTA_AND_TURING_IN_V1 = _since(0, 10, 1)
"""Before, V1 fell back to V0 below compute capability 8.0."""

# --- what the wheels are built for: their torch pins, and torch's own pins of CUDA (package metadata on PyPI) --------
_CUDA = (
    ((0, 2, 0), "11.8"),  # torch 2.0.1
    ((0, 2, 2), "12.1"),  # torch 2.1 to 2.4
    ((0, 6, 4), "12.4"),  # torch 2.5.1, 2.6.0
    ((0, 9, 0), "12.6"),  # torch 2.7.0
    ((0, 10, 1), "12.8"),  # torch 2.8.0 to 2.10.0
    ((0, 20, 0), "13.0"),  # torch 2.11.0 and newer
)


def cuda_needed(version: str) -> str | None:
    """The CUDA, as major.minor, that a release's torch is built for."""
    number = release(version)
    found = [cuda for since, cuda in _CUDA if number and number.number >= since]
    return found[-1] if found else None
