"""A stack of things over the engine double, through the real Automation API."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from tests.conftest import eventually
from tests.emulators.pulumi import ROOT

Program = Callable[[], None]
GZIP = 31
"""What zlib calls the format."""


@dataclass(frozen=True)
class Bench:
    """Where the things are, and what the engine keeps of them."""

    folder: Path
    env: dict[str, str]
    stacks: dict[str, automation.Stack] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, env: dict[str, str]) -> Bench:
        world = folder / "world"
        world.mkdir()
        (folder / "work").mkdir()
        return cls(folder, {**env, "THINGS_WORLD": str(world), "PYTHONPATH": str(ROOT)})

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def world(self) -> Path:
        return Path(self.env["THINGS_WORLD"])

    def stack(self, program: Program, name: str = "main") -> automation.Stack:
        if name not in self.stacks:
            self.stacks[name] = automation.create_or_select_stack(name, "proj", program, opts=self.options)
        self.stacks[name].workspace.program = program
        return self.stacks[name]

    @property
    def options(self) -> automation.LocalWorkspaceOptions:
        """Every stack has the same folder, so that the command finds it there too."""
        return automation.LocalWorkspaceOptions(work_dir=str(self.work))

    def up(self, program: Program, name: str = "main", **options: Any) -> automation.UpResult:
        return self.stack(program, name).up(**options)

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """The command by itself, in the stack's folder."""
        return subprocess.run(
            ["pulumi", *arguments],
            cwd=self.work,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def state(self, name: str = "main") -> dict[str, Any]:
        file = Path(self.env["PULUMI_BACKEND_URL"].removeprefix("file://")) / f".pulumi/stacks/proj/{name}.json"
        latest: dict[str, Any] = json.loads(file.read_text())["checkpoint"].get("latest", {})
        return latest

    def kept(self, name: str = "main") -> dict[str, dict[str, Any]]:
        """The things in the state by name, without the stack and the engine's own."""
        resources = self.state(name).get("resources", [])
        return {one["urn"].rsplit("::", 1)[1]: one for one in resources if "dynamic" in one["type"]}

    def calls(self) -> list[tuple[str, dict[str, Any]]]:
        """What the providers were asked, in the order."""
        file = self.world / "calls"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def told(self, *kinds: str) -> list[str]:
        """`create a`, `delete b`, …: the calls of these kinds since the last time this was asked."""
        found = [f"{what} {props['name']}" for what, props in self.calls() if what in (kinds or CHANGES)]
        (self.world / "calls").unlink(missing_ok=True)
        return found

    def things(self) -> list[str]:
        """Names of what exists."""
        return sorted(file.name.split("-")[0] for file in self.world.iterdir() if "-" in file.name)


CHANGES = ("create", "update", "delete")


def failure(stack: automation.Stack, act: str = "up", *, heard: Callable[[str], Any] | None = None) -> str:
    """What the command said and how it ended."""
    with pytest.raises(automation.CommandError) as failed:
        getattr(stack, act)(on_output=heard)
    return str(failed.value)


def everything_below(folder: Path) -> bytes:
    """All that was written there, for a search of what must not be; of Pulumi's own logs what they say."""
    return b"\n".join(_unpacked(file.read_bytes()) for file in sorted(folder.rglob("*")) if file.is_file())


def _unpacked(written: bytes) -> bytes:
    """Also of a file that was not written to its end."""
    return zlib.decompressobj(GZIP).decompress(written) if written.startswith(b"\x1f\x8b") else written


def let_go(gate: Path) -> None:
    """Who waits at the pipe, or is about to, goes on. Fails if nobody comes."""

    def opened() -> int | None:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None  # a call is written down before it waits

    with os.fdopen(eventually(opened, what="somebody at the pipe"), "w") as stream:
        stream.write("go")


def pipe(folder: Path, name: str) -> Path:
    """A named pipe: who reads it waits until somebody writes."""
    os.mkfifo(folder / name)
    return folder / name
