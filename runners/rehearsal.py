"""A recipe's rehearsal: RunPod emulated on loopback, the small model, and the embedded engine in the pod."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioners.contract import Offer, Site
from provisioners.rehearsal.emulator import Emulator
from recipes.errors import HostCommandFailed
from recipes.load import LoadedRecipe
from runners.boot import INSTALL, Places, boot_of
from runners.planning import make_plan

_ACCELERATORS = "A40"
_ALWAYS = (
    "resources.provisioner=runpod",
    "resources.api=rest",
    "secrets=[]",
    "model={builtin: lead}",
    "engine={name: llamacpp, args: {ctx_size: 4096, parallel: 2, threads: 1}}",
    "workload.tokenizer=null",
    "workload.chunk_size=448",
    "workload.chunk_overlap=32",
    "workload.max_tokens=96",
    "workload.temperature=0",
)


def overrides(loaded: LoadedRecipe) -> list[str]:
    """What makes a recipe one for an emulated pod without a GPU: another model and engine, and sizes that suit them."""
    recipe = loaded.recipe
    found = [f"name=rehearsal-{recipe.name}"[:80], *_ALWAYS]
    if recipe.resources.accelerators is None:
        found.append(f"resources.accelerators={_ACCELERATORS}")
    if recipe.resources.use_spot:
        found.append("resources.use_spot=false")
    if any(volume.stack or volume.name for volume in recipe.resources.volumes):
        own = ", ".join(f"{{path: {json.dumps(volume.path)}, size: 10GB}}" for volume in recipe.resources.volumes)
        found.append(f"resources.volumes=[{own}]")  # what lies on the real account is not there
    return found


def stood_in(loaded: LoadedRecipe) -> list[str]:
    """What of the real account a rehearsal cannot show, and what stood in for it: one sentence each."""
    resources = loaded.recipe.resources
    own = "the pod had a disk of its own instead"
    said = []
    if resources.provisioner != "runpod":
        said.append(f"provisioner {resources.provisioner}: the pod was rented at an emulated RunPod directly")
    for volume in resources.volumes:
        if volume.stack:
            said.append(f"stack {volume.stack}: {own}; `recipe plan` looks at the stack itself")
        elif volume.name:
            said.append(f"volume {volume.name}: {own}")
    return said


@dataclass(frozen=True)
class Stage:
    """The emulator while it is up."""

    emulator: Emulator
    env: dict[str, str]
    """What makes this process a client of it."""

    def account(self) -> dict[str, Any]:
        """What the emulator's ledger says at the end."""
        pods = self.emulator.ledger.entries()
        usd = round(sum(pod.usd for pod in pods), 6)
        return {"pods": len(pods), "billing": sum(pod.billing for pod in pods), "usd": usd}


@asynccontextmanager
async def stage(loaded: LoadedRecipe, site: Site, *, time_scale: float) -> AsyncIterator[Stage]:
    """An emulated RunPod whose images bring the engine along. Raises NoMachine without sshd."""
    image = await engine_image(loaded, site)
    site.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="emulator-", dir=site.home) as root:
        async with Emulator(Path(root), time_scale=time_scale, image_path=image) as emulator:
            yield Stage(emulator, {"RECIPE_RUNPOD_URL": emulator.url, "RUNPOD_API_KEY": emulator.key})


async def engine_image(loaded: LoadedRecipe, site: Site) -> Path:
    """The folder of programs of an image that ships the engine: its environment on this machine, made once."""
    nothing_asked = Offer(provider="runpod", id="rehearsal")
    plan = await make_plan(loaded, os.environ, leased=nothing_asked)
    with tempfile.TemporaryDirectory() as folder:
        places = Places(
            python=sys.executable, work=folder, cache=str(site.cache), place=lambda path: path, own_engines=False
        )
        boot = boot_of(plan, places, {})
        for name, text in boot.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        job = next(job for job in boot.jobs if job.name == INSTALL)
        process = await asyncio.create_subprocess_exec(
            *job.argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
    lines = said.decode("utf-8", "replace").splitlines()
    if process.returncode != 0:
        raise HostCommandFailed(
            f"the engine for the rehearsal could not be installed: {lines[-1] if lines else 'no word'}",
            advice="see whether recipe up local-smoke works",
        )
    return Path(json.loads(lines[-1])["python"]).parent
