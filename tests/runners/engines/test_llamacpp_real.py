"""The real llama.cpp here allocates what planning said: for the model that ships, and for models of other shapes."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from provisioners.accelerators import Machine
from recipes.catalogue import builtin_model
from recipes.spec import Engine as EngineSpec
from runners import registry
from runners.case import Case, Memory
from runners.engine import flags
from runners.environments import ONHOST
from runners.modelfacts.read import facts_in
from tests.runners.engines.environments import python_of
from tests.runners.engines.gguf_shapes import Shape, shape

pytestmark = pytest.mark.real

ENGINE = registry.engine("llamacpp")
GIB, MIB = 2**30, 2**20
GQA = shape(layers=6, hidden=512, inner=1536, heads=8, kv_heads=2, head_dim=64, vocabulary=4000, trained=8192)
WINDOW = shape(
    architecture="gemma3", layers=12, hidden=256, inner=768, heads=4, kv_heads=2, head_dim=64, vocabulary=2000,
    trained=32768, window=512, tied=True, dtype="F16",
)  # fmt: skip
EXPERTS = shape(
    architecture="qwen3moe", layers=6, hidden=256, inner=512, head_dim=64, heads=8, kv_heads=4, trained=4096,
    experts=(16, 4, 384), dtype="Q8_0",
)  # fmt: skip
LARGE = shape(layers=12, hidden=1024, inner=4096, heads=16, kv_heads=16, head_dim=64, vocabulary=8000, dtype="F16")


@pytest.fixture(scope="module")
def python() -> str:
    """The Python of the engine's environment, as a run makes it."""
    return python_of("llamacpp")


@dataclass(frozen=True)
class Seen:
    """What the engine said when it was up, and the RAM that it had then."""

    log: str
    resident_gib: float

    def mib(self, what: str) -> float:
        """The sum of all buffers of a kind, as logged."""
        return sum(float(size) for size in re.findall(rf"{what} buffer size = +([\d.]+) MiB", self.log))


@contextmanager
def started(python: str, model: Path, args: dict[str, Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = [python, str(ONHOST / "serve_llamacpp.py"), "--model", str(model), "--alias", "x", "--port", "0"]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*argv, "--threads", "1", "--verbosity", "4", *flags(args)], stdout=file, stderr=subprocess.STDOUT
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def seen(python: str, model: Path, args: dict[str, Any], folder: Path) -> Seen:
    log = folder / "engine.log"
    with started(python, model, args, log) as process:
        end = time.monotonic() + 240
        # The engine's own last line; its log comes from a thread, later than what is printed.
        while b"init: listening on http" not in (said := log.read_bytes()):
            assert process.poll() is None, said.decode()[-2000:]
            assert time.monotonic() < end
            time.sleep(0.05)
        return Seen(said.decode(), psutil.Process(process.pid).memory_info().rss / GIB)


def planned(model: Path, args: dict[str, Any]) -> Memory:
    spec = EngineSpec(name="llamacpp", args=args)
    case = Case(spec=spec, version="", model=facts_in(model), machine=Machine(cpus=2, ram_gib=24))
    assessment = ENGINE.assess(case)
    assert not [finding for finding in assessment.findings if finding.level == "block"]
    assert assessment.memory
    return assessment.memory


CASES: list[tuple[Shape | None, dict[str, Any]]] = [
    (None, {"ctx_size": 4096, "parallel": 2}),
    (None, {"parallel": 3, "cache_type_k": "q8_0", "cache_type_v": "q4_0"}),
    (GQA, {"ctx_size": 10_000, "parallel": 3}),
    (GQA, {"ctx_size": 8192, "parallel": 4, "kv_unified": True, "flash_attn": "off"}),
    (WINDOW, {"ctx_size": 16384, "parallel": 2}),
    (WINDOW, {"ctx_size": 16384, "parallel": 3, "kv_unified": True, "ubatch_size": 128}),
    (WINDOW, {"ctx_size": 8192, "swa_full": True}),
    (EXPERTS, {"ctx_size": 4096, "cache_type_k": "bf16"}),
    (LARGE, {"ctx_size": 8192, "parallel": 4}),
]


@pytest.mark.parametrize(("model", "args"), CASES)
def test_the_engine_allocates_what_was_planned(
    python: str, tmp_path: Path, model: Shape | None, args: dict[str, Any]
) -> None:
    path = model.write(tmp_path / "model.gguf") if model else builtin_model("lead") / "lead.gguf"
    memory, found = planned(path, args), seen(python, path, args, tmp_path)
    assert memory.kv_gib_per_gpu * 1024 == pytest.approx(found.mib("KV"), abs=0.006 * (found.log.count("KV buffer")))
    assert memory.kv_tokens == int(re.findall(r"llama_context: n_ctx += (\d+)", found.log)[-1])
    assert memory.max_model_len == int(re.findall(r"n_ctx_slot = (\d+)", found.log)[-1])
    assert memory.activation_gib_per_gpu * 1024 == pytest.approx(found.mib("compute"), rel=0.15, abs=2)
    total = memory.usable_gib_per_gpu
    used = memory.weights_gib_per_gpu + memory.activation_gib_per_gpu + memory.other_gib_per_gpu + memory.kv_gib_per_gpu
    assert used < total
    # Compute buffers become resident as far as they are used, which the first long prompt does.
    doubt = 0.1 * used + 0.04
    assert used - memory.activation_gib_per_gpu - doubt < found.resident_gib < used + doubt


@pytest.mark.parametrize(
    ("model", "args"),
    [
        # Three times the RAM for the cache alone, which takes 2,560 bytes a token: no kernel promises that.
        (None, {"ctx_size": 3 * psutil.virtual_memory().total // 2560}),
        (None, {"ctx_size": 2048, "cache_type_v": "q8_0", "flash_attn": "off"}),
        (shape(head_dim=16), {"ctx_size": 2048, "cache_type_k": "q8_0"}),
        (None, {"cache_type_k": "q9"}),
    ],
)
def test_what_is_refused_does_not_start_and_says_what_was_quoted(
    python: str, tmp_path: Path, model: Shape | None, args: dict[str, Any]
) -> None:
    path = model.write(tmp_path / "model.gguf") if model else builtin_model("lead") / "lead.gguf"
    case = Case(
        spec=EngineSpec(name="llamacpp", args=args),
        version="",
        model=facts_in(path),
        machine=Machine(cpus=2, ram_gib=psutil.virtual_memory().total / GIB),
    )
    (block,) = [finding for finding in ENGINE.assess(case).findings if finding.level == "block"]
    log = tmp_path / "engine.log"
    with started(python, path, args, log) as process:
        assert process.wait(timeout=240) != 0
    said = log.read_text(errors="replace")
    assert block.quote
    assert block.quote in said
    assert ENGINE.failure(said).known
