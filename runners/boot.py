"""The jobs that make a machine ready, as data: the machine starts them at boot, or the client where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from provisioners.contract import Boot, BootJob, Host
from recipes.spec import digest_of
from runners.engine import Step
from runners.plan import Plan

ONHOST = Path(__file__).parent / "onhost"
INSTALL, FETCH = "install", "fetch"


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
    """The installation and the download of a run, which go on at the same time."""
    files = {f"onhost/{path.name}": path.read_text(encoding="utf-8") for path in _scripts(plan)}
    jobs = []
    if request := _install_request(plan, places):
        files["install.json"] = json.dumps(request)
        directory = f"{places.cache}/engines/{environment_name(plan)}"
        script = f"{places.onhost}/install_engine.py"
        jobs.append(BootJob(name=INSTALL, argv=(places.python, script, directory, f"{places.work}/install.json")))
    if request := _fetch_request(plan, places):
        files["fetch.json"] = json.dumps(request)
        argv = (places.python, f"{places.onhost}/fetch_model.py", f"{places.work}/fetch.json")
        jobs.append(BootJob(name=FETCH, argv=argv))
    return Boot(files=files, jobs=tuple(jobs), env=env)


def environment_name(plan: Plan) -> str:
    """The folder of the engine's environment: the same as long as the same would be installed into it.

    `{python_tag}` in it is replaced on the machine.
    """
    installation = plan.installation()
    assert installation is not None
    steps = [[list(step.argv), dict(step.env), _content(step)] for step in installation.steps]
    content = digest_of([steps, list(installation.check)])
    return f"{plan.engine.name}-{plan.engine_version}-{content[:8]}-{{python_tag}}"


def _scripts(plan: Plan) -> list[Path]:
    """What the machine needs of onhost/: the scripts, and the files that an installation names."""
    installation = plan.installation()
    named = {name for step in installation.steps for name in _named(step)} if installation else set()
    return sorted([*ONHOST.glob("[a-z]*.py"), *(ONHOST / name for name in named if not name.endswith(".py"))])


def _named(step: Step) -> list[str]:
    return [part.removeprefix("{onhost}/") for part in step.argv if part.startswith("{onhost}/")]


def _content(step: Step) -> list[str]:
    """The content of the files that a step reads."""
    return [(ONHOST / name).read_text(encoding="utf-8") for name in _named(step)]


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


def _fetch_request(plan: Plan, places: Places) -> dict[str, Any] | None:
    hub = plan.model.hub
    if hub is None:
        return None
    where = plan.recipe.model.path
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
