"""A provisioner double: it rents nothing, counts what it is asked for, and stumbles where it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from provisioners.contract import (
    Bill,
    Boot,
    Clearance,
    Finding,
    Forward,
    Gone,
    Host,
    Lease,
    Observed,
    Offer,
    Order,
    Output,
    Process,
    Release,
)
from recipes.load import LoadedRecipe
from recipes.spec import Recipe, Resources
from runners.engines.openai import OpenAIEndpoint
from runners.models import ModelSource
from runners.plan import Plan
from runners.text.tokens import TokenCounter
from runners.workloads.summarize import Summarize

TOKENIZER = Path(__file__).parents[2] / "recipes" / "models" / "lead" / "tokenizer.json"
COUNTER = TokenCounter.from_path(TOKENIZER)
COMMAND = "double end it"

Trouble = BaseException | Callable[[], Awaitable[None]]
"""What happens instead of, or before, the usual: it is raised, or awaited."""


async def stumble(trouble: Trouble | None) -> None:
    if isinstance(trouble, BaseException):
        raise trouble
    if trouble is not None:
        await trouble()


async def hang() -> None:
    await asyncio.Event().wait()


@dataclass
class ProvisionerDouble:
    """Implements Provisioner. `trouble` is by the name of the method, its host's `ready_for` and `fetch` included."""

    trouble: dict[str, Trouble] = field(default_factory=dict)
    release: Release = field(default_factory=lambda: Gone("it is not listed any more"))
    calls: list[str] = field(default_factory=list)
    on_call: Callable[[str], None] = lambda name: None
    name: str = "double"
    billable: bool = True
    secrets: tuple[str, ...] = ()
    at_once: bool = True
    observed: Observed = field(default_factory=lambda: Observed(state="running"))
    orders: list[Order] = field(default_factory=list)

    async def asked(self, name: str) -> None:
        self.calls.append(name)
        self.on_call(name)
        await stumble(self.trouble.get(name))

    async def offers(self, resources: Resources) -> list[Offer]:
        return [Offer(provider=self.name, id="one")]

    async def catalogue(self, *, cloud: str | None = None, accelerator: str | None = None) -> list[Offer]:
        return []

    def installed(self, environment: str) -> bool | None:
        return None

    def stored(self, repo: str, commit: str) -> bool | None:
        return None

    async def create(self, order: Order, clearance: Clearance) -> Lease:
        self.orders.append(order)
        await self.asked("create")
        return replace(order.lease, id="id-1")

    async def observe(self, lease: Lease) -> Observed:
        await self.asked("observe")
        return self.observed

    async def host(self, lease: Lease) -> Host:
        await self.asked("host")
        return HostDouble(self)

    async def destroy(self, lease: Lease, *, patience_s: float = 60.0) -> Release:
        await self.asked("destroy")
        return self.release

    async def owned(self, owner: str) -> list[Lease]:
        return []

    async def bill(self, lease: Lease) -> Bill | None:
        return None

    def login(self, lease: Lease) -> Sequence[str] | None:
        return None

    def command_to_end(self, lease: Lease) -> str:
        return COMMAND


@dataclass
class HostDouble:
    """A host on which nothing is ever started: the engine runs elsewhere."""

    provisioner: ProvisionerDouble
    work_dir: Path = Path("work")
    cache_dir: Path = Path("cache")
    python: str = "python"
    python_tag: str = "tag"
    key: str = "the key of the double"
    notes: tuple[str, ...] = ()
    clock_offset_s = 0.0

    async def start(
        self, name: str, argv: Sequence[str], *, env: Mapping[str, str], on_output: Output, counts: bool = False
    ) -> Process:
        raise NotImplementedError

    async def ready_for(self, boot: Boot) -> None:
        await self.provisioner.asked("ready_for")

    async def write(self, name: str, text: str) -> Path:
        raise NotImplementedError

    async def provide(self, path: Path) -> Path:
        return path

    def bear_silence(self, seconds: float | None = None) -> None:
        pass

    async def fetch(self, pattern: str, into: Path) -> list[Path]:
        await self.provisioner.asked("fetch")
        return [into / pattern]

    async def free_port(self) -> int:
        raise NotImplementedError

    def place(self, path: str) -> str:
        return path

    async def forward(self, port: int) -> Forward:
        raise NotImplementedError

    async def close(self) -> None:
        pass


def plan_of(
    provisioner: ProvisionerDouble,
    folder: Path,
    url: str,
    *,
    name: str = "test",
    price: float | None = 1.0,
    storage: float = 0.0,
    limits: Mapping[str, Any] | None = None,
    findings: Sequence[Finding] = (),
) -> Plan:
    """A plan for one small text in the folder, against an endpoint that runs already."""
    text = folder / "a.txt"
    text.write_text("The first sentence. The second sentence.", encoding="utf-8")
    recipe = Recipe.model_validate(
        {
            "name": name,
            "model": {"served_name": "double"},
            "engine": {"name": "openai", "url": url},
            "workload": {"inputs": [str(text)], "prompt": "{{ prompt }}", "retries": 0, "tokenizer": str(TOKENIZER)},
            "limits": limits or {},
            "collect": ["kept.txt"],
        }
    )
    workload = Summarize()
    prepared = workload.prepare(recipe, COUNTER)
    return Plan(
        loaded=LoadedRecipe(recipe, folder / "test.yaml", "name: test\n", {}, "digest", f"recipe up {name}"),
        provisioner=provisioner,
        engine=OpenAIEndpoint(),
        workload=workload,
        model=ModelSource("double", TOKENIZER),
        offers=(Offer(provider="double", id="one", price_usd_per_h=price, storage_usd_per_h=storage),),
        findings=tuple(findings),
        prepared=prepared,
        estimate=workload.estimate(prepared),
    )
