"""llama.cpp's own HTTP server, from the xllamacpp wheel: the embedded default."""

from __future__ import annotations

import re

from recipes.spec import Recipe
from runners.case import Assessment, Case, Memory
from runners.engine import (
    KEY_VARIABLE,
    NUMBER,
    Engine,
    EngineSample,
    Installation,
    Launch,
    LaunchRequest,
    LogSample,
    Step,
    flags,
    series_sums,
)
from runners.engines.llamacpp import checks
from runners.engines.llamacpp.explains import EXPLAINS
from runners.engines.llamacpp.memory import padded
from runners.engines.llamacpp.options import Options
from runners.engines.llamacpp.pace import pace
from runners.pace import EnginePace

_TIMING = re.compile(rf"\b(prompt eval|eval) time =.*?\(.*?({NUMBER}) tokens per second\)")
_SIZING = """
c ctx_size n_ctx np parallel n_parallel b batch_size n_batch ub ubatch_size n_ubatch t threads n_threads tb
threads_batch ngl gpu_layers n_gpu_layers ts tensor_split sm split_mode mg main_gpu fit fit_params kvu kv_unified
cache_ram cache_ram_mib kv_offload no_kv_offload mmap no_mmap mlock numa cont_batching cache_prompt metrics slots
log_verbosity verbose timeout threads_http
"""


class LlamaCpp(Engine):
    name = "llamacpp"
    title = "llama.cpp"
    default_version = "2026.10.11549"
    model_form = "gguf"
    reserved = frozenset({"model", "alias", "host", "port", "api_key", "hostnames", "api_keys"})
    sizing = frozenset(_SIZING.split())
    context_flag = "ctx_size"
    explains = EXPLAINS
    patterns = (
        (r"unrecognized arguments: .*", "remove it from engine.args, or write it as llama-server does"),
        (r"gguf_init_from_file.*|invalid magic.*", "the file is no GGUF model, or is cut off"),
        (r"failed to allocate buffer for kv cache.*", "lower engine.args.ctx_size or engine.args.parallel"),
        (r"quantized V cache requires flash_attn.*", "remove engine.args.flash_attn, or choose cache_type_v: f16"),
        (r"[KV] cache type \w+ with block size \d+ does not divide.*", "choose cache_type_k and cache_type_v: f16"),
        (
            r"unable to allocate \w+ buffer.*",
            "lower engine.args.n_gpu_layers, or choose a larger GPU or a smaller file",
        ),
        (r"cudaMalloc failed: out of memory.*", "lower engine.args.ctx_size, or choose a larger GPU or a smaller file"),
        (r"couldn't bind HTTP server socket.*", "another process has the port; run again"),
        (r"error loading model.*", "check that model names a GGUF file of a supported architecture"),
    )

    def installation(self, version: str, *, accelerated: bool) -> Installation:
        python = "{env}/bin/python"
        pip = (python, "-m", "pip", "install", "--disable-pip-version-check", f"xllamacpp=={version}")
        steps = [Step(pip)]
        if accelerated:
            steps.append(Step((python, "{onhost}/cuda_xllamacpp.py", version)))
        return Installation(tuple(steps), (python, "-c", "import xllamacpp"), package=("xllamacpp", version))

    def launch(self, request: LaunchRequest) -> Launch:
        argv = (
            request.python,
            str(request.onhost / "serve_llamacpp.py"),
            *("--model", request.model_path, "--alias", request.served_name),
            *("--host", request.bind, "--port", request.port),
            *flags(request.spec.args),
        )
        return Launch(argv, {KEY_VARIABLE: request.key})

    def context_tokens(self, recipe: Recipe) -> int | None:
        """The context is shared by the slots, and rounded up to 256 tokens for each."""
        options = Options.of(recipe.engine)
        if options.context <= 0 or options.slots < 1:
            return None
        total = padded(options.context)
        return total if options.unified else padded(total // options.slots)

    def assess(self, case: Case) -> Assessment:
        return checks.assess(case)

    def pace(self, case: Case, memory: Memory | None) -> EnginePace:
        return pace(case, memory)

    def cuda(self, version: str) -> str | None:
        """The oldest for which there is a build; see onhost/cuda_xllamacpp.py."""
        return "12.0"

    def install_gb(self, version: str, *, accelerated: bool) -> float | None:
        return 1.5 if accelerated else 0.13

    def metrics(self, text: str) -> EngineSample | None:
        """Its prompt counter leaves out cached tokens, which it counts apart."""
        sums = series_sums(text)
        if "llamacpp:prompt_tokens_total" not in sums:
            return None
        cached = sums.get("llamacpp:prompt_tokens_cached_total", 0.0)
        return EngineSample(
            prompt_tokens_total=sums["llamacpp:prompt_tokens_total"] + cached,
            output_tokens_total=sums.get("llamacpp:tokens_predicted_total"),
            running=sums.get("llamacpp:requests_processing"),
            waiting=sums.get("llamacpp:requests_deferred"),
        )

    def log_line(self, line: str) -> LogSample | None:
        """A finished request's own speed; one line for its prompt and one for its answer."""
        match = _TIMING.search(line)
        if not match or "print_timing" not in line:
            return None
        speed = float(match[2])
        if match[1] == "prompt eval":
            return LogSample(prompt_tokens_per_s=speed, of="request")
        return LogSample(output_tokens_per_s=speed, of="request")


PLUGIN = LlamaCpp()
