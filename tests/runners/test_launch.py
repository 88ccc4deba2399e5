"""How an engine is believed to be ready, and how its end is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from provisioners.masking import Mask
from runners import registry
from runners.client import Endpoint, open_transport
from runners.launch import Running, until_ready
from runners.telemetry import EngineLog
from tests.emulators.drives import plan_over
from tests.emulators.engine import EngineDouble, Refuse

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


def test_an_endpoint_that_others_keep_busy_is_asked_again(tmp_path: Path) -> None:
    plan = plan_over(tmp_path, {"a": "A text."}, workload={"retries": 2})
    engine = EngineDouble(faults={1: Refuse(429, retry_after="0"), 2: Refuse(503, retry_after="0")})

    async def main() -> None:
        async with asyncio.timeout(30), engine, open_transport() as transport:
            log = EngineLog(tmp_path / "engine.log", plan.engine, Mask())
            endpoint = Endpoint(engine.url, "double", base=f"{engine.url}/v1")
            await until_ready(Running(endpoint, None, log, plan), transport)
            log.close()

    asyncio.run(main())
    assert [asked.prompt for asked in engine.asked] == ["Hello"] * 3
