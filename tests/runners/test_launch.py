"""How an engine's end is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runners import registry
from runners.client import Endpoint
from runners.launch import Running
from runners.masking import Mask
from runners.telemetry import EngineLog

OUT_OF_MEMORY = b"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"


@pytest.mark.parametrize(
    ("status", "log", "message", "advice"),
    [
        (1, OUT_OF_MEMORY, "exit status 1: CUDA out of memory", "larger GPU"),
        (-9, b"loading\n", "killed by signal 9 (SIGKILL)", "memory ran out"),
        (-9, OUT_OF_MEMORY, "killed by signal 9 (SIGKILL): CUDA out of memory", "larger GPU"),
        (-11, b"loading\n", "killed by signal 11 (SIGSEGV)", "engine.log"),
        (-37, b"", "killed by signal 37 (a real-time signal)", "engine.log"),
    ],
)
def test_the_end_of_an_engine_has_a_cause_and_an_advice(
    tmp_path: Path, status: int, log: bytes, message: str, advice: str
) -> None:
    engine = registry.engine("vllm")
    kept = EngineLog(tmp_path / "engine.log", engine, Mask())
    kept.feed(log)
    plan = cast("Any", SimpleNamespace(engine=engine))
    failed = Running(Endpoint("http://127.0.0.1:1", "m"), None, kept, plan)._failed(status)
    kept.close()
    assert message in failed.message
    assert advice in failed.advice
