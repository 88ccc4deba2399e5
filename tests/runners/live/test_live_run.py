"""How a run stands, and live.json."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from provisioners.masking import Mask
from recipes.ranges import Range
from runners.clock import Clock
from runners.events import (
    Advanced,
    Driven,
    Interrupted,
    LeaseChanged,
    Noted,
    PhaseEnded,
    PhaseStarted,
    RunStarted,
    Sampled,
    Warned,
)
from runners.live import LIVE, LiveRun
from runners.live.file import LiveFile
from runners.ongoing.overview import overview
from tests.runners.ongoing.states import NOW, found, state

SECRET = "hf_abcdefghijklmnop"
DRIVEN = Driven(
    done=50,
    expected=100,
    level=1,
    documents_done=1,
    documents=3,
    prompt_tokens_per_s=900.0,
    output_tokens_per_s=90.0,
    running=4.0,
    waiting=0.0,
    kv_usage=0.5,
    usd=0.2,
)


def plan() -> Any:
    """What a LiveRun asks a plan for."""
    phase = SimpleNamespace(name="release", seconds=Range(1, 2, 3))
    return SimpleNamespace(
        recipe=SimpleNamespace(name="smoke", tags=["a"], limits=SimpleNamespace(max_cost=1.0)),
        model=SimpleNamespace(identifier="lead"),
        engine=SimpleNamespace(name="llamacpp"),
        engine_version="1",
        provisioner=SimpleNamespace(name="local"),
        offers=(SimpleNamespace(accelerator=None, count=0, region=None),),
        forecast=SimpleNamespace(phases=(phase,)),
        mask=Mask([SECRET]),
    )


@pytest.fixture
def run(tmp_path: Path) -> LiveRun:
    clock = Clock()
    clock.price_usd_per_h, clock.storage_usd_per_h = 3.6, 0.4
    clock.leased()
    live = LiveRun(plan(), SimpleNamespace(run_id=tmp_path.name, path=tmp_path), clock)  # type: ignore[arg-type]
    for event in (
        RunStarted("smoke", "smoke", str(tmp_path), 1.0, "2026-11-21T16:12:00+00:00"),
        PhaseEnded("plan", 0.1, 0.0, True, "3 documents"),
        PhaseStarted("provision"),
        LeaseChanged("recipe-smoke", "created"),
        Noted("provision", "A100 ×2"),
        PhaseEnded("provision", 60.0, 0.06, True),
        PhaseStarted("drive"),
    ):
        live.heard(event)
    return live


def test_it_says_what_the_phases_did_and_what_the_present_one_does(run: LiveRun) -> None:
    run.heard(Advanced("drive", "5 of 7"))
    document = run.document()
    assert [(phase["name"], phase["note"]) for phase in document["phases"]] == [
        ("plan", "3 documents"),
        ("provision", "A100 ×2"),
    ]
    assert (document["phase"]["name"], document["phase"]["doing"]) == ("drive", "5 of 7")
    assert (document["billing"], document["usd_per_h"], document["max_cost_usd"]) == (True, 4.0, 1.0)
    run.heard(LeaseChanged("recipe-smoke", "gone", "absent twice"))
    assert run.document()["billing"] is False


def test_how_far_the_drive_is_says_when_it_ends_and_what_it_costs_then(run: LiveRun) -> None:
    run.answers = 50
    run.heard(DRIVEN)
    document = run.document()
    assert document["driven"]["done"] == 50
    assert run.phase is not None
    elapsed_s = (datetime.fromisoformat(document["at"]) - run.phase[1]).total_seconds()
    assert document["left_s"] == pytest.approx(elapsed_s + 2, abs=0.1), "as long again as half took, and letting go"
    assert document["usd_at_end"] == pytest.approx(document["usd"] + 4.0 * document["left_s"] / 3600, abs=1e-4)
    run.heard(Interrupted("SIGINT", second=False))
    stopped = run.document()
    assert (stopped["left_s"], stopped["usd_at_end"], stopped["stopping"]) == (None, None, {"now": False})


def test_counters_become_rates_and_a_lost_gpu_is_remembered(run: LiveRun) -> None:
    for second in range(4):
        at = f"2026-11-21T05:00:0{second}.000+00:00"
        row = {
            "at": at,
            "source": "engine",
            "prompt_tokens_total": 100.0 * second,
            "output_tokens_total": 10.0 * second,
        }
        run.heard(Sampled(row))
    run.heard(Sampled({"at": at, "source": "lost", "gpu": 1, "uuid": "x", "why": "GPU is lost"}))
    document = run.document()
    assert document["rates"]["prompt_tokens_per_s"] == [100, 100, 100]
    assert document["samples"]["engine"]["output_tokens_total"] == 30.0
    assert document["lost_gpus"] == [{"index": 1, "why": "GPU is lost"}]


def test_whatever_repeats_a_secret_it_is_not_told(run: LiveRun) -> None:
    run.heard(Warned("drive", f"401 for {SECRET}"))
    run.heard(Noted("drive", f"with {SECRET}"))
    run.heard(PhaseEnded("drive", 1.0, 0.1, False))
    run.heard(PhaseStarted("collect"))
    run.heard(Advanced("collect", f"from {SECRET}"))
    run.heard(Sampled({"at": "2026-11-21T05:00:00+00:00", "source": "lost", "gpu": 0, "why": SECRET}))
    text = json.dumps(run.document())
    assert SECRET not in text
    assert "401 for ***" in text


def test_the_reader_takes_what_is_written(run: LiveRun) -> None:
    run.heard(DRIVEN)
    written = json.loads(json.dumps(run.document()))
    (shown,) = overview(state(found(live=written), at=NOW))["runs"]
    assert (shown["model"], shown["phase"]["name"], shown["driven"]["expected"]) == ("lead", "drive", 100)


def test_the_file_is_there_while_it_goes_on_and_says_when_it_was_written(run: LiveRun, wait_until: Any) -> None:
    file, path = LiveFile(run, every_s=0.02), run.folder.path / LIVE

    async def going_on() -> None:
        file.heard(PhaseStarted("drive"))
        first = json.loads(path.read_text())
        while json.loads(path.read_text())["at"] == first["at"]:
            await asyncio.sleep(0.005)
        file.close()

    asyncio.run(asyncio.wait_for(going_on(), 30))
    assert list(run.folder.path.iterdir()) == []


def test_many_events_at_once_are_not_many_writes(run: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    document = run.document

    def counted() -> dict[str, Any]:
        nonlocal written
        written += 1
        return document()

    monkeypatch.setattr(run, "document", counted)
    monkeypatch.setattr("runners.live.file.time", SimpleNamespace(monotonic=lambda: 1000.0))  # all at one instant
    file = LiveFile(run, every_s=60)

    async def short_run() -> None:
        for _ in range(1000):
            file.heard(PhaseStarted("drive"))
            file.heard(DRIVEN)
        assert written == 1
        while written == 1:
            await asyncio.sleep(0.005)
        file.close()

    asyncio.run(asyncio.wait_for(short_run(), 30))
    assert written == 2, "what came too soon after the first is written a little later"


def test_a_full_disk_is_nobodys_business(run: LiveRun, monkeypatch: pytest.MonkeyPatch) -> None:
    file = LiveFile(run)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "no space")))
        file.heard(PhaseStarted("drive"))
    assert not (run.folder.path / LIVE).exists()
    LiveFile(run).heard(PhaseStarted("drive"))
    assert (run.folder.path / LIVE).exists(), "with room again it is there"
    file.close()


def test_without_a_loop_it_is_written_when_something_happens(run: LiveRun) -> None:
    file = LiveFile(run)
    file.heard(PhaseStarted("drive"))
    assert json.loads((run.folder.path / LIVE).read_text())["phase"]["name"] == "drive"
    file.close()
