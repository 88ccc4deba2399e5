"""The prepare phase: the engine's environment and the model, at the same time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from provisioners.contract import Host
from recipes.errors import HostCommandFailed
from runners.engine import Installation, find_failure
from runners.events import Advanced, Listener, Noted
from runners.lines import LineBuffer
from runners.masking import Mask
from runners.models import HubModel
from runners.plan import ONHOST, Plan


@dataclass(frozen=True)
class Prepared:
    """What lies ready on the host."""

    python: str
    """The Python of the engine's environment."""
    onhost: Path
    model_path: str


@dataclass(frozen=True)
class _Log:
    """Where the commands' lines are kept."""

    file: IO[bytes]
    mask: Mask

    def keep(self, line: bytes) -> str:
        """Write the line without its secrets; returns it so."""
        masked = self.mask.line(line)
        self.file.write(masked + b"\n")
        self.file.flush()
        return masked.decode("utf-8", "replace").rstrip()


async def prepare(
    plan: Plan, host: Host, env: Mapping[str, str], log_path: Path, mask: Mask, emit: Listener
) -> Prepared:
    """Install and download. What the commands print is kept in the log, but for secrets. Raises HostCommandFailed."""
    onhost = await host.provide(ONHOST)
    with log_path.open("ab") as file:
        log = _Log(file, mask)
        try:
            async with asyncio.TaskGroup() as group:
                engine = group.create_task(_engine(plan, host, env, onhost, log, emit))
                model = group.create_task(_model(plan, host, env, onhost, log, emit))
        except* HostCommandFailed as failures:
            raise failures.exceptions[0] from None
    return Prepared(engine.result(), onhost, model.result())


async def _engine(plan: Plan, host: Host, env: Mapping[str, str], onhost: Path, log: _Log, emit: Listener) -> str:
    installation, name = plan.installation(), plan.environment_name(host.python_tag)
    if installation is None or name is None:
        return host.python
    directory = host.cache_dir / "engines" / name
    request = await host.write("install.json", json.dumps(_request(installation, host.python, onhost)))
    lines: list[str] = []

    def heard(line: str) -> None:
        lines.append(line)
        emit(Advanced("prepare", f"{plan.engine.name} {plan.engine_version}: {line[:120]}"))

    argv = [host.python, str(onhost / "install_engine.py"), str(directory), str(request)]
    status = await run(host, argv, env, heard, log)
    if status != 0:
        failure = find_failure("\n".join(lines[-200:]), _INSTALL_FAILURES, log_name="install.log")
        raise HostCommandFailed(
            f"{plan.engine.name} {plan.engine_version} could not be installed: {failure.cause}",
            advice=failure.advice,
        )
    emit(Noted("prepare", lines[-1].partition(":")[0] if lines else "installed"))
    return str(directory / "bin" / "python")


async def _model(plan: Plan, host: Host, env: Mapping[str, str], onhost: Path, log: _Log, emit: Listener) -> str:
    if plan.model.hub:
        folder = await _download(plan.model.hub, plan.recipe.model.path, host, env, onhost, log, emit)
        return plan.model.loaded_from(folder)
    if plan.model.path:
        return str(await host.provide(plan.model.path))
    return ""


async def _download(
    hub: HubModel,
    hf_home: str | None,
    host: Host,
    env: Mapping[str, str],
    onhost: Path,
    log: _Log,
    emit: Listener,
) -> Path:
    files = [{"name": file.name, "bytes": file.bytes} for file in hub.files]
    content = {"repo": hub.repo, "revision": hub.commit, "files": files, "hf_home": hf_home}
    request = await host.write("fetch.json", json.dumps(content))
    said: dict[str, Any] = {}

    def heard(line: str) -> None:
        if line.startswith("{"):
            said.update(json.loads(line))
        if progress := said.pop("progress", None):
            emit(
                Advanced("prepare", f"{hub.repo}: {progress['bytes'] / 1e6:,.1f} of {progress['total'] / 1e6:,.1f} MB")
            )

    status = await run(host, [host.python, str(onhost / "fetch_model.py"), str(request)], env, heard, log)
    if "path" in said:
        emit(Noted("prepare", f"{hub.repo} @ {hub.commit[:7]}, {hub.bytes / 1e6:,.1f} MB"))
        return Path(said["path"])
    error = said.get("error") or {
        "message": f"the download ended with exit status {status}",
        "advice": "see install.log",
    }
    raise HostCommandFailed(error["message"], advice=error["advice"])


async def run(host: Host, argv: Sequence[str], env: Mapping[str, str], heard: Callable[[str], None], log: _Log) -> int:
    """Run a command to its end; each line that it prints is kept and heard. Returns its exit status."""
    buffer = LineBuffer()

    def read(block: bytes) -> None:
        for line in buffer.feed(block):
            heard(log.keep(line))

    process = await host.start(argv, env=env, on_output=read)
    return await process.wait()


def _request(installation: Installation, python: str, onhost: Path) -> dict[str, Any]:
    steps = [
        {"argv": [part.replace("{onhost}", str(onhost)) for part in step.argv], "env": dict(step.env)}
        for step in installation.steps
    ]
    return {"python": python, "steps": steps, "check": list(installation.check)}


_INSTALL_FAILURES = (
    (
        r"No matching distribution found for \S+",
        "check engine.version; see which releases there are at the package index",
    ),
    (r"No solution found when resolving dependencies[\s\S]{0,300}", "check engine.version"),
    (r"cannot write [^\n]*", "set XDG_CACHE_HOME to a folder that you may write to"),
    (r"No space left on device", "free some disk, or set XDG_CACHE_HOME to a larger one"),
    (r"ensurepip is not available[^\n]*", "install the venv module: apt-get install python3-venv"),
    (r"(?:Temporary failure in name resolution|Network is unreachable|Connection refused)[^\n]*", "check the network"),
)
