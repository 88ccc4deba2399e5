"""Plans over texts of a test's own, and the drive phase of a plan alone, against the engine double."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from provisioners.masking import Mask
from recipes.spec import Recipe
from runners.client import Endpoint, open_transport
from runners.drive import Measured, drive
from runners.events import Driven, Event
from runners.launch import Running
from runners.plan import Plan
from runners.run_folder import RunFolder
from runners.telemetry import EngineLog, TelemetryFile
from tests.emulators.engine import EngineDouble
from tests.emulators.provisioner import COUNTER, ProvisionerDouble, plan_of

CHUNKED = {"chunk_size": 80, "chunk_overlap": 0, "max_tokens": 64, "temperature": 0, "concurrency": 1, "retries": 0}
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def prose(name: str, sentences: int) -> str:
    """A text of which every sentence differs from all others of all names."""
    return " ".join(
        f"In {name} the {NUMBERS[n % 12]} of part {n // 12} says a thing of its own." for n in range(sentences)
    )


def plan_over(
    folder: Path,
    texts: Mapping[str, str],
    *,
    url: str = "http://127.0.0.1:9/v1",
    provisioner: ProvisionerDouble | None = None,
    workload: Mapping[str, Any] | None = None,
    price: float | None = 1.0,
    **sections: Any,
) -> Plan:
    """A plan that summarises these texts; `workload` and further sections change the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    plan = plan_of(provisioner or ProvisionerDouble(), folder, url, price=price)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    data = plan.recipe.model_dump(mode="json", exclude_none=True)
    inputs = {"inputs": [str(folder / f"{name}.txt") for name in texts]}
    data = {**data, **sections, "workload": {**data["workload"], **CHUNKED, **inputs, **(workload or {})}}
    recipe = Recipe.model_validate(data)
    prepared = plan.workload.prepare(recipe, COUNTER)
    return replace(
        plan,
        loaded=replace(plan.loaded, recipe=recipe),
        prepared=prepared,
        estimate=plan.workload.estimate(prepared),
    )


def driven(plan: Plan, engine: EngineDouble, folder: RunFolder) -> tuple[Measured, list[Driven]]:
    """Drive once; what was measured, and how far it was at each moment. Raises what the drive raises, afterwards."""
    measured, shown = Measured(), []

    def emit(event: Event) -> None:
        if isinstance(event, Driven):
            shown.append(event)

    async def main() -> None:
        async with asyncio.timeout(60), engine, open_transport() as transport:
            log = EngineLog(folder.path / "engine.log", plan.engine, Mask())
            running = Running(Endpoint(engine.url, "double"), None, log, plan)
            try:
                await drive(
                    plan,
                    running,
                    transport,
                    folder,
                    measured,
                    emit,
                    lambda: None,
                    TelemetryFile(folder.path / "telemetry.jsonl"),
                )
            finally:
                log.close()

    asyncio.run(main())
    return measured, shown
