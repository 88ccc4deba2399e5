"""The model and the engine's environment against the disks that they are put on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from provisioners.contract import Finding, Offer
from recipes.spec import Volume
from recipes.units import GIB
from runners.preflight.question import Question

_GB = 10**9
_SURELY = 0.75
"""Share of an engine's size that is certain: what installing takes differs by platform and release."""
_RESERVED_GB = 1.0
"""Logs, the agent, a package manager's cache: what a run writes besides."""


@dataclass(frozen=True)
class _Load:
    """What comes onto one disk, in 10⁹ bytes."""

    name: Literal["disk", "volume"]
    has_gb: float
    model_gb: float
    engine_gb: float
    path: str

    @property
    def needed_gb(self) -> float:
        return self.model_gb + self.engine_gb


def findings(question: Question, offer: Offer) -> Iterator[Finding]:
    """Whether everything that will be written has room. On a machine of one's own it may lie there already."""
    for load in _loads(question, offer):
        parts = [f"{load.model_gb:.1f} GB model"] if load.model_gb or not question.volume_grows_by else []
        if load.engine_gb:
            parts.append(f"{load.engine_gb:.1f} GB {question.engine.known_as}")
        what = " + ".join(parts)
        numbers = {"needed_gb": round(load.needed_gb, 2), "available_gb": round(load.has_gb, 2)}
        if load.needed_gb + _RESERVED_GB <= load.has_gb:
            message = f"{what} of {_where(load, question)}"
            yield Finding(level="ok", code=load.name, message=message, numbers=numbers)
            continue
        short = load.model_gb + _SURELY * load.engine_gb > load.has_gb
        yield Finding(
            level="block" if short and (question.billable or question.downloads) else "warn",
            code=load.name,
            message=f"{what} {'do' if len(parts) > 1 else 'does'} not fit the {_where(load, question)}",
            suggestion=_remedy(load, question),
            numbers=numbers,
            quote="No space left on device",
            path=load.path,
        )


def _where(load: _Load, question: Question) -> str:
    left = " left on the" if load.name == "volume" and question.volume_grows_by else ""
    return f"{load.has_gb:.0f} GB{left} {load.name}"


def _remedy(load: _Load, question: Question) -> str:
    if load.name == "volume" and question.volume_grows_by:
        return f"make it larger: {question.volume_grows_by}"
    if question.billable:
        return f"give the {load.name} more"
    return "free some of it, unless the files are there already"


def _loads(question: Question, offer: Offer) -> Iterator[_Load]:
    """A mounted volume takes the caches too; the model, unless its path lies elsewhere."""
    model_gb = question.download_bytes / _GB
    engine_gb = 0.0 if _in_image(question) else question.engine_gb(offer)
    volume = next(iter(question.recipe.resources.volumes), None)
    on_volume = volume is not None and _lies_on(question.recipe.model.path, volume)
    has_gb = volume.size / _GB if volume is not None and volume.size is not None else question.volume_free_gb
    if has_gb is not None and not (question.volume_grows_by and not (model_gb or engine_gb)):
        yield _Load("volume", has_gb, model_gb if on_volume else 0.0, engine_gb, "resources.volumes")
    asked = question.recipe.resources.disk_size if question.billable else None
    disk_gib = asked / GIB if asked else offer.disk_gib
    if disk_gib is None or (volume is not None and on_volume):
        return
    engine_here = 0.0 if volume is not None else engine_gb
    if model_gb or engine_here:
        yield _Load("disk", disk_gib * GIB / _GB, model_gb, engine_here, "resources.disk_size")


def _in_image(question: Question) -> bool:
    """Whether the image's name promises the engine."""
    return question.engine.name in (question.recipe.resources.image or "").casefold()


def _lies_on(path: str | None, volume: Volume) -> bool:
    return path is None or PurePosixPath(path).is_relative_to(volume.path)
