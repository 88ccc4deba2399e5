"""Hugging Face transformers' own server, `transformers serve`: any model that the library knows, on GPUs or the CPU.

It knows neither a name under which a model is served nor a key: requests name the path that it was started with, and it
listens on loopback only.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from runners.case import Assessment, Case, Memory
from runners.engine import Engine, Installation, Launch, LaunchRequest, Step, flags
from runners.engines.transformers import checks
from runners.engines.transformers.explains import EXPLAINS
from runners.engines.transformers.pace import pace
from runners.pace import EnginePace
from runners.pytorch import OUT_OF_MEMORY, cpu_build, cuda_of

TORCH = "2.13.0"
"""What the tested release was run with."""


class Transformers(Engine):
    name = "transformers"
    default_version = "5.23.0"
    metrics_path = None
    asks_for_key = False
    reserved = frozenset({"host", "port", "force_model", "non_blocking"})
    explains = EXPLAINS
    changes = (("engine.args.dtype=float16",),)
    patterns = (
        (rf"{OUT_OF_MEMORY}[^\n]*", "choose a larger GPU, a smaller dtype, or engine.args.quantization: bnb-4bit"),
        (r"No such option:? [^\n│]*", "transformers serve does not know the flag; remove it from engine.args"),
        (r"Unsupported (?:dtype|quantization method|attention implementation): [^\n]*", "see engine.args"),
        (r"Memory footprint \d+ is more than available memory \d+", "lower cb_num_blocks or cb_max_batch_tokens"),
        (r"Invalid values: max_batch_tokens[^\n]*", "no memory is left for the paged cache; lower cb_max_batch_tokens"),
        (r"Some modules are dispatched on the CPU or the disk\.", "a quantized model must be on GPUs as a whole"),
        (
            r"Loading an? \w+ quantized model requires [^\n]*",
            "choose a model that is not quantized, or bnb-4bit for it",
        ),
        (r"Using `[\w-]+` quant\w+ (?:models? )?requires [^\n]*", "choose a model that is not quantized"),
        (r"model type `[^`]+` but Transformers does not recognize[^\n]*", "choose a newer engine.version"),
        (r"The NVIDIA driver on your system is too old[^\n]*", "choose a machine with a newer driver"),
        (r"no kernel image is available for execution on the device", "choose a newer GPU"),
        (r"Server is pinned to '[^\n]*", "requests must name the model by the path that the engine was started with"),
        (r"(?:\w+\.)*LocalEntryNotFoundError[^\n]*", "the model is not on the machine; check model"),
    )

    def installation(self, version: str, *, accelerated: bool) -> Installation:
        python = "{env}/bin/python"
        pip = (python, "-m", "pip", "install", "--disable-pip-version-check")
        library = Step((*pip, f"transformers[serving]=={version}", f"torch=={TORCH}", "bitsandbytes"))
        steps = (library,) if accelerated else (cpu_build(python, TORCH), library)
        check = (python, "-c", "import fastapi, torch, transformers.cli.serve")
        # An image's own transformers may lack what serving needs, so it is no reason to install nothing.
        return Installation(steps, check)

    def launch(self, request: LaunchRequest) -> Launch:
        """As a module; loopback only, for it asks for no key."""
        spec = request.spec
        argv = (
            *(request.python, "-m", "transformers.cli.transformers", "serve", request.model_path),
            *("--host", "127.0.0.1", "--port", request.port),
            *_device(request),
            *flags(spec.args),
        )
        env = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_UPDATE_CHECK": "1", "PYTHONUNBUFFERED": "1"}
        if not request.accelerated:
            # More threads than free cores wait for each other: measured 15 times slower on two busy cores.
            env["OMP_NUM_THREADS"] = "1"
        return Launch(argv, env)

    def served_name(self, model_path: str, identifier: str) -> str:
        """Requests must name the model exactly as it was named at the start."""
        return model_path

    def assess(self, case: Case) -> Assessment:
        return checks.assess(case, TORCH)

    def pace(self, case: Case, memory: Memory | None) -> EnginePace:
        return pace(case, memory)

    def quantizations(self, version: str) -> Mapping[str, Mapping[str, JsonValue]]:
        return {
            "bitsandbytes 8 bit": {"quantization": "bnb-8bit"},
            "bitsandbytes 4 bit": {"quantization": "bnb-4bit"},
        }

    def cuda(self, version: str) -> str | None:
        return cuda_of(TORCH)

    def install_gb(self, version: str, *, accelerated: bool) -> float | None:
        return 7.5 if accelerated else 1.4


def _device(request: LaunchRequest) -> tuple[str, ...]:
    """On GPUs the whole model goes to one, or, as pipeline stages, to all; what does not fit must not land in RAM."""
    if not request.accelerated or any(key.replace("-", "_") == "device" for key in request.spec.args):
        return ()
    return ("--device", "auto" if request.spec.pipeline_parallel_size > 1 else "cuda")


PLUGIN = Transformers()
