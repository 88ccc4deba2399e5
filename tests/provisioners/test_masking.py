"""A secret is in no file and on no screen, also where an engine or an endpoint repeats it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from provisioners.masking import Mask
from runners import registry
from runners.telemetry import EngineLog
from tests.conftest import Command
from tests.emulators.engine import EngineDouble, Refuse

SECRET = "s3cr3t-v4lue-of-somebody"
TOKENIZER = Path(__file__).parents[2] / "recipes/models/lead/tokenizer.json"


def test_every_secret_is_masked_the_longest_first() -> None:
    mask = Mask(["abcd", "abcdefgh", "", "xy"])
    assert mask("abcdefgh abcd xy") == "*** *** xy"
    assert mask.line(b"\xff abcd") == b"\xff ***"


def test_an_engines_log_is_whole_but_for_secrets(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    log = EngineLog(path, registry.engine("vllm"), Mask([SECRET]))
    whole = f"key={SECRET}\nError: {SECRET} again, and no newline".encode()
    for i in range(0, len(whole), 7):  # blocks end anywhere
        log.feed(whole[i : i + 7])
    assert "Error: *** again" in log.tail()
    log.close()
    assert path.read_text() == "key=***\nError: *** again, and no newline"


@pytest.mark.real
def test_an_endpoint_that_repeats_its_key_gives_it_to_no_file(recipe: Command) -> None:
    async def drive() -> tuple[int, str]:
        refusal = Refuse(401, f"the key Bearer {SECRET} is not known here")
        async with EngineDouble(faults=dict.fromkeys(range(1, 50), refusal)) as double:
            engine = f"engine={{name: openai, url: '{double.url}/v1', api_key_env: MY_KEY}}"
            settings = ["--set", engine, "--set", "secrets=[MY_KEY]", "--set", f"workload.tokenizer={TOKENIZER}"]
            ended = await asyncio.to_thread(recipe, "up", "local-smoke", *settings, env={"MY_KEY": SECRET})
            return ended.returncode, ended.stdout + ended.stderr

    code, said = asyncio.run(drive())
    assert code == 6
    assert "the key Bearer *** is not known here" in said
    assert SECRET not in said
    for path in recipe.home.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
