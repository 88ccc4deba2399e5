"""The endpoint through OpenAI's own client: what it finds is told, and a load that is over soon is not disturbed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from provisioners.masking import Mask
from runners import openai_check
from runners.checking import EndpointCheck, checking, unlisted
from runners.client import Endpoint, open_transport
from runners.launch import Running
from runners.openai_check import check
from runners.telemetry import EngineLog
from tests.conftest import SilentServer, eventually
from tests.emulators.drives import plan_over
from tests.emulators.parrot import Parrot, parrot


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow machine imports for long; what is checked here is no time limit."""
    monkeypatch.setattr("runners.checking._PATIENCE_S", 120.0)
    monkeypatch.setattr("runners.checking._LOOK_S", 60.0)


def test_models_and_a_token() -> None:
    with parrot(models=["a", "b"]) as bird:
        assert check(f"{bird.url}/v1", None, "a", "chat") == {"models": ["a", "b"], "error": None}
        assert check(f"{bird.url}/v1", None, "a", "completions")["error"] is None
        assert [(path, body["max_tokens"]) for path, body in bird.heard] == [
            ("/v1/chat/completions", 1),
            ("/v1/completions", 1),
        ]


def test_what_is_refused_is_told_in_the_servers_words() -> None:
    with parrot(template=False) as bird:
        assert "chat template" in check(f"{bird.url}/v1", None, "double", "chat")["error"]
    with parrot(key="right") as bird:
        assert "invalid key" in check(f"{bird.url}/v1", "wrong", "double", "chat")["error"]


@pytest.mark.parametrize(("names", "told"), [(["a"], False), ([], False), (["b", "c"], True)])
def test_a_model_that_is_not_listed_is_told(names: list[str], told: bool) -> None:
    assert bool(unlisted("a", names)) is told


def checked(tmp_path: Path, bird: Parrot, *, load_s: float, ours: bool = False) -> list[str]:
    """The warnings of a check around a load that lasts so long, or until there is one."""
    plan = plan_over(tmp_path, {"a": "Text."}, url=f"{bird.url}/v1", workload={"api": "chat"})
    warnings: list[str] = []

    async def main() -> None:
        log = EngineLog(tmp_path / "engine.log", plan.engine, Mask(["right"]))
        endpoint = Endpoint(bird.url, "double", bird.key and "right")
        running = Running(endpoint, None, log, plan)
        async with open_transport() as transport, checking(plan, transport, warnings.append) as check:
            if ours:
                await check.prepare()  # as where recipe starts the engine
            await check.before_load(running)
            end = time.monotonic() + load_s
            while time.monotonic() < end and not warnings:
                await asyncio.sleep(0.02)
        log.close()

    asyncio.run(main())
    return warnings


def test_of_an_engine_of_ours_the_verdict_comes_before_the_load(tmp_path: Path) -> None:
    with parrot(template=False) as bird:
        (warning,) = checked(tmp_path, bird, load_s=0, ours=True)
    assert warning.startswith("OpenAI's client cannot use the endpoint as it is: chat: ")


def test_a_load_that_is_over_soon_is_not_disturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(EndpointCheck, "prepare", lambda self: begun.append(self))
    with parrot(models=["other"]) as bird:
        (warning,) = checked(tmp_path, bird, load_s=0)
        assert "does not list double, but other" in warning
        assert (begun, bird.heard) == ([], [])


def test_beside_a_longer_load_the_endpoint_is_checked_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runners.checking.WORTH_IT_S", 0.0)
    with parrot(template=False, key="right") as bird:
        warnings = checked(tmp_path, bird, load_s=120)
    assert ["chat template" in warning for warning in warnings] == [True]


def test_a_check_that_cannot_be_made_keeps_nothing_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.checking.sys.executable", str(tmp_path / "none"))
    with parrot() as bird:
        assert checked(tmp_path, bird, load_s=0, ours=True) == []


def test_who_checks_ends_with_whoever_asked(silent: SilentServer) -> None:
    """A client that was killed waits for no answer."""
    process = subprocess.Popen(
        [sys.executable, "-P", openai_check.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    question = {"url": f"{silent.url}/v1", "key": None, "model": "double", "api": "chat"}
    process.stdin.write(json.dumps(question) + "\n")
    process.stdin.flush()
    eventually(silent.is_asked, what="the question")
    assert process.communicate(timeout=60)[0] == "", "it did not wait for an answer"
