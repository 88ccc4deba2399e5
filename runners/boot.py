"""The jobs that make a machine ready, as data: the machine starts them at boot, or the client where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from provisioners.contract import Boot, BootJob, Host
from runners.environments import ONHOST, named_files
from runners.models import HubModel
from runners.plan import Plan
from runners.travel import installation

INSTALL, FETCH, DRIVER = "install", "fetch", "driver"
_FETCHING = ("fetch_model.py", "install_engine.py")
_SAMPLER = "sample_"
"""It is brought by itself as soon as the machine is reached; a start command has little room."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things lie on a machine."""

    python: str
    work: str
    cache: str
    place: Callable[[str], str]
    own_engines: bool
    """Whether its Python may hold an engine that its image brought along."""

    @classmethod
    def of(cls, host: Host) -> Places:
        return cls(
            python=host.python,
            work=str(host.work_dir),
            cache=str(host.cache_dir),
            place=host.place,
            own_engines=False,
        )

    @property
    def onhost(self) -> str:
        return f"{self.work}/onhost"


AT_BOOT = Places(
    python="{python}", work="{work}", cache="{cache}", place=lambda path: f"{{place:{path}}}", own_engines=True
)
"""Placeholders, which the machine itself fills in."""


def boot_of(plan: Plan, places: Places, env: Mapping[str, str]) -> Boot:
    """The installation and the download of a run, and a driver's environment, which go on at the same time."""
    files = {f"onhost/{path.name}": path.read_text(encoding="utf-8") for path in _scripts(plan)}
    jobs = []
    if request := _install_request(plan, places):
        files["install.json"] = json.dumps(request)
        directory = f"{places.cache}/engines/{plan.environment}"
        script = f"{places.onhost}/install_engine.py"
        jobs.append(BootJob(name=INSTALL, argv=(places.python, script, directory, f"{places.work}/install.json")))
    if plan.model.hub:
        files["fetch.json"] = json.dumps(_fetch_request(plan.model.hub, plan.recipe.model.path, places))
        jobs.append(_fetch_job(places))
    if plan.recipe.workload.where == "host":
        directory, request = installation(places.python)
        files["driver.json"] = json.dumps(request)
        script = f"{places.onhost}/install_engine.py"
        where = (f"{places.cache}/{directory}", f"{places.work}/driver.json")
        jobs.append(BootJob(name=DRIVER, argv=(places.python, script, *where)))
    return Boot(files=files, jobs=tuple(jobs), env=env)


def fetch_boot(hub: HubModel, path: str | None, env: Mapping[str, str]) -> Boot:
    """The download alone, as a machine does it at its start. `path`: where the recipe stores the model, if it says."""
    request = json.dumps(_fetch_request(hub, path, AT_BOOT))
    scripts = {f"onhost/{name}": (ONHOST / name).read_text(encoding="utf-8") for name in _FETCHING}
    return Boot(files={**scripts, "fetch.json": request}, jobs=(_fetch_job(AT_BOOT),), env=env)


def _fetch_job(places: Places) -> BootJob:
    argv = (places.python, f"{places.onhost}/fetch_model.py", f"{places.work}/fetch.json")
    return BootJob(name=FETCH, argv=argv)


def _scripts(plan: Plan) -> list[Path]:
    """What the machine needs of onhost/: the scripts, and the files that an installation names."""
    installation = plan.installation()
    named = {name for step in installation.steps for name in named_files(step)} if installation else set()
    scripts = (path for path in ONHOST.glob("[a-z]*.py") if not path.name.startswith(_SAMPLER))
    return sorted([*scripts, *(ONHOST / name for name in named if not name.endswith(".py"))])


def _install_request(plan: Plan, places: Places) -> dict[str, Any] | None:
    installation = plan.installation()
    if installation is None:
        return None
    steps = [
        {"argv": [part.replace("{onhost}", places.onhost) for part in step.argv], "env": dict(step.env)}
        for step in installation.steps
    ]
    request: dict[str, Any] = {"python": places.python, "steps": steps, "check": list(installation.check)}
    if places.own_engines and installation.package:
        name, release = installation.package
        check = f"from importlib.metadata import version; import sys; sys.exit(version({name!r}) != {release!r})"
        request["present"] = [places.python, "-c", check]
    return request


def _fetch_request(hub: HubModel, where: str | None, places: Places) -> dict[str, Any]:
    library = f"huggingface_hub=={version('huggingface-hub')}"
    pip = ["{env}/bin/python", "-m", "pip", "install", "--disable-pip-version-check", library]
    environment = {
        "directory": f"{places.cache}/tools/{library.replace('==', '-')}-{{python_tag}}",
        "python": places.python,
        "steps": [{"argv": pip, "env": {}}],
        "check": ["{env}/bin/python", "-c", "import huggingface_hub"],
    }
    return {
        "repo": hub.repo,
        "revision": hub.commit,
        "files": [{"name": file.name, "bytes": file.bytes} for file in hub.files],
        "hf_home": places.place(where) if where else (f"{places.cache}/huggingface" if places.own_engines else None),
        "environment": environment,
    }
