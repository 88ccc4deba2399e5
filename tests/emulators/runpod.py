"""An emulated RunPod in a process of its own, for tests that kill its clients."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provisioners.contract import Site
from recipes.load import load
from runners import registry
from runners.rehearsal import engine_image, overrides

ROOT = Path(__file__).parents[2]
MODEL = "model={builtin: lead}"
ENGINE = "engine={name: llamacpp, args: {ctx_size: 4096, parallel: 2, threads: 1}}"
SIZES = {"chunk_size": 448, "chunk_overlap": 32, "max_tokens": 96, "temperature": 0, "prompt": "builtin:summarize"}
SMALL = [
    part
    for text in (MODEL, ENGINE, "secrets=[]", *(f"workload.{name}={value}" for name, value in SIZES.items()))
    for part in ("--set", text)
]
"""What makes a recipe of the catalogue one for an emulated pod."""


async def smoke_image(site: Site) -> Path:
    """The folder of programs of an image that ships the engine."""
    (smoke,) = load("local-smoke", plugins=registry.installed(), cwd=ROOT)
    (loaded,) = load("local-smoke", overrides=overrides(smoke), plugins=registry.installed(), cwd=ROOT)
    return await engine_image(loaded, site)


@dataclass(frozen=True)
class RunPod:
    """Asks the emulator's ledger, and makes things go wrong."""

    url: str
    key: str
    root: Path
    pace: float = 1.0
    """How many times the usual one its clients' patience is."""

    @property
    def env(self) -> dict[str, str]:
        """What makes a process its client."""
        return {"RECIPE_RUNPOD_URL": self.url, "RUNPOD_API_KEY": self.key, "RECIPE_RUNPOD_PACE": str(self.pace)}

    def ledger(self) -> list[dict[str, Any]]:
        """Every pod that ever was."""
        pods: list[dict[str, Any]] = self._ask("ledger")["pods"]
        return pods

    def creates(self) -> dict[str, list[str]]:
        """How each create of a name was answered."""
        requests: dict[str, list[str]] = self._ask("ledger")["create_outcomes"]
        return requests

    def volumes(self) -> list[dict[str, Any]]:
        """Every network volume that ever was."""
        found: list[dict[str, Any]] = self._ask("ledger")["volumes"]
        return found

    def volume_creates(self) -> dict[str, list[str]]:
        """How each request for a volume was answered, by the name that it asked for."""
        requests: dict[str, list[str]] = self._ask("ledger")["volume_outcomes"]
        return requests

    @property
    def billing_volumes(self) -> list[str]:
        return [volume["id"] for volume in self.volumes() if volume["billing"]]

    def writes(self) -> list[str]:
        """Every request so far that may have changed something."""
        asked: dict[str, int] = self._ask("requests")
        return [request for request in asked if not request.startswith("GET ")]

    @property
    def billing(self) -> list[str]:
        return [pod["name"] for pod in self.ledger() if pod["billing"]]

    def order_pod(self, name: str, volume_id: str) -> None:
        """A pod that mounts a volume, as somebody else would ask for it."""
        body = {
            "name": name,
            "image": "image",
            "gpu": {"id": "NVIDIA A40", "count": 1},
            "cloud": "SECURE",
            "disk": 20,
            "ports": ["22/tcp"],
            "args": "sleep 1000",
            "mounts": {"network": [{"volumeId": volume_id, "path": "/workspace"}]},
        }
        self._send(f"{self.url}/pods", body)

    def delete_volume(self, volume_id: str) -> None:
        """As somebody would by hand."""
        self._send(f"{self.url}/network-volumes/{volume_id}", None, method="DELETE")

    def delete_pod(self, pod_id: str) -> None:
        """As somebody would by hand."""
        self._send(f"{self.url}/pods/{pod_id}", None, method="DELETE")

    def inject(self, **faults: Any) -> None:
        self._ask("faults", faults)

    def mishap(self, what: str) -> None:
        """Something happens to every pod that there is."""
        for pod in self.ledger():
            if not pod["gone"]:
                self._ask(f"pods/{pod['id']}/{what}", {})

    def processes(self) -> dict[str, dict[str, str]]:
        """By pod: what runs in it."""
        return {pod["id"]: self._ask(f"pods/{pod['id']}")["processes"] for pod in self.ledger() if not pod["gone"]}

    def _ask(self, page: str, body: dict[str, Any] | None = None) -> Any:
        return self._send(self.url.removesuffix("/v2") + f"/rehearsal/{page}", body)

    def _send(self, address: str, body: dict[str, Any] | None, *, method: str | None = None) -> Any:
        request = urllib.request.Request(
            address,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            text = response.read()
        return json.loads(text) if text else None


@contextmanager
def emulated(root: Path, *, image: Path | None = None, pace: float = 1.0, **faults: Any) -> Iterator[RunPod]:
    """While entered, a RunPod on loopback; its pods end with it."""
    command = [sys.executable, "-m", "provisioners.rehearsal", "--root", str(root), "--faults", json.dumps(faults)]
    command += ["--image-path", str(image)] if image else []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield RunPod(said["url"], said["key"], root, pace)
    finally:
        process.terminate()
        process.wait(150)
