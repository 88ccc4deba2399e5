"""Runs that are repetitions of each other, and their figures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from runners.comparing.bootstrap import Interval, interval_of_median, middle_of
from runners.comparing.metrics import Metric, Result


@dataclass(frozen=True)
class Left:
    """A run that is not counted, and why."""

    run_id: str
    why: str


@dataclass(frozen=True)
class Estimate:
    """A figure over the runs of a group that have it."""

    values: tuple[float, ...]
    """In the order of the runs."""
    median: float

    @cached_property
    def interval(self) -> Interval | None:
        """Of the median; None for a single run."""
        return interval_of_median(self.values)

    @property
    def count(self) -> int:
        return len(self.values)

    def row(self) -> dict[str, Any]:
        bounds = self.interval
        return {
            "n": self.count,
            "median": self.median,
            "low": bounds.low if bounds else None,
            "high": bounds.high if bounds else None,
            "confidence": round(bounds.level, 4) if bounds else None,
            "values": list(self.values),
        }


@dataclass(frozen=True, kw_only=True)
class Group:
    """Completed runs of one recipe with one engine's release on one kind of machine."""

    results: tuple[Result, ...]
    """The newest first; at least one."""
    left_out: tuple[Left, ...] = ()
    resolved: Mapping[str, Any] | None = None
    """resolved.json of the newest run, where there is one."""
    letter: str = "A"
    label: str = ""
    """The recipe's name, and what else tells this group from the others."""
    _kept: dict[str, Estimate | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def newest(self) -> Result:
        return self.results[0]

    @property
    def run_ids(self) -> tuple[str, ...]:
        return tuple(result["run_id"] for result in self.results)

    @property
    def recipe(self) -> str:
        return str(self.newest["recipe"])

    @property
    def digest(self) -> str:
        return str(self.newest["recipe_digest"])

    @cached_property
    def variant(self) -> Mapping[str, Any]:
        """What a matrix set, by path."""
        return dict(self.newest.get("variant") or {})

    @property
    def machine(self) -> str:
        """2 × NVIDIA A100 80GB PCIe (runpod); 8 CPUs (local)."""
        offer = self.newest.get("offer") or {}
        gpus = f"{offer.get('count')} × {offer['accelerator']}" if offer.get("accelerator") else None
        what = gpus or (f"{offer['cpus']} CPUs" if offer.get("cpus") else "")
        return f"{what} ({offer.get('provider', '?')})".strip()

    @property
    def engine(self) -> str:
        engine = self.newest.get("engine") or {}
        return " ".join(filter(None, (engine.get("name"), engine.get("version"))))

    def estimate(self, metric: Metric) -> Estimate | None:
        """None where no run has the figure."""
        if metric.key not in self._kept:
            values = tuple(value for result in self.results if (value := metric.of(result)) is not None)
            found = Estimate(values, middle_of(values)) if values else None
            self._kept[metric.key] = found
        return self._kept[metric.key]

    def median(self, metric: Metric) -> float | None:
        found = self.estimate(metric)
        return found.median if found else None

    def row(self) -> dict[str, Any]:
        return {
            "letter": self.letter,
            "label": self.label,
            "recipe": self.recipe,
            "base": base_of(self.recipe, self.variant),
            "recipe_digest": self.digest,
            "variant": dict(self.variant),
            "machine": self.machine,
            "engine": self.engine,
            "model": (self.newest.get("model") or {}).get("identifier"),
            "runs": list(self.run_ids),
            "left_out": [{"run_id": left.run_id, "why": left.why} for left in self.left_out],
        }


def why_left_out(result: Result) -> str | None:
    """Why a run is no repetition of others, if it is none."""
    outcome = result.get("outcome") or {}
    if outcome.get("status") != "completed":
        error = f": {outcome['error']}" if outcome.get("error") else ""
        return f"{outcome.get('status', 'unknown')}{error}"
    if result.get("taken_over") or (result.get("requests") or {}).get("resumed"):
        return "went on from the answers of an earlier run, so its time and cost are not those of the whole work"
    if (result.get("lease") or {}).get("adopted"):
        return "was taken over from a client that died, so its figures are not of the whole work"
    return None


def kind_of(result: Result) -> tuple[Any, ...]:
    """Equal for runs that are repetitions of each other, if their texts are: recipe, model, engine and machine."""
    offer, engine, model = (result.get(name) or {} for name in ("offer", "engine", "model"))
    machine = tuple(offer.get(name) for name in ("provider", "id", "accelerator", "count", "cpus", "spot"))
    made_by = (engine.get("name"), engine.get("version"), model.get("identifier"), model.get("commit"))
    return (result.get("recipe_digest"), *made_by, *machine)


def _texts_of(result: Result) -> tuple[Any, Any] | None:
    """Digests of what was read and asked; None where the run does not say."""
    workload = result.get("workload") or {}
    digest = workload.get("inputs_digest")
    return None if digest is None else (digest, workload.get("prompt_digest"))


def groups_of(
    results: Iterable[Result], *, resolved: Mapping[str, Mapping[str, Any]] | None = None, alone: bool = False
) -> list[Group]:
    """The results as groups, in the order in which their first one comes; each with its letter and label.

    `resolved` holds resolved.json by run. `alone`: every run is a group of its own, however it ended. Runs that are no
    repetitions are left out, and named in the group of their recipe; a recipe that has no other has no group.
    """
    found: dict[tuple[Any, ...], dict[Any, list[Result]]] = {}
    left: dict[str, list[Left]] = {}
    for i, result in enumerate(results):
        why = None if alone else why_left_out(result)
        if why is None:
            kind = found.setdefault((i,) if alone else kind_of(result), {})
            kind.setdefault(_texts_of(result), []).append(result)
        else:
            left.setdefault(str(result.get("recipe_digest")), []).append(Left(str(result["run_id"]), why))
    groups = []
    for kept in (same for kind in found.values() for same in _by_texts(kind)):
        newest = tuple(sorted(kept, key=lambda result: str(result["started_at"]), reverse=True))
        texts = next((resolved[r["run_id"]] for r in newest if r["run_id"] in resolved), None) if resolved else None
        out = left.pop(str(newest[0].get("recipe_digest")), ())
        groups.append(Group(results=newest, left_out=tuple(out), resolved=texts))
    return named(groups)


def _by_texts(kind: dict[Any, list[Result]]) -> list[list[Result]]:
    """Apart by what was read; runs that do not say are taken to have read what the only others did."""
    if None in kind and len(kind) == 2:
        return [[result for same in kind.values() for result in same]]
    return list(kind.values())


def named(groups: Sequence[Group]) -> list[Group]:
    """The groups with letters in their order, and labels that tell them apart."""
    labels = [group.recipe for group in groups]
    for tell in _TELLERS:
        words: dict[str, set[str]] = {}
        for group, label in zip(groups, labels, strict=True):
            words.setdefault(label, set()).add(tell(group))
        labels = [
            f"{label} {tell(group)}" if len(words[label]) > 1 else label
            for group, label in zip(groups, labels, strict=True)
        ]
    return [
        replace(group, letter=letter_of(i), label=label)
        for i, (group, label) in enumerate(zip(groups, labels, strict=True))
    ]


_TELLERS: tuple[Callable[[Group], str], ...] = (
    lambda group: group.machine,
    lambda group: group.engine,
    lambda group: group.digest[:8],
    lambda group: group.run_ids[0],
)


def letter_of(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    before, here = divmod(number, 26)
    return (letter_of(before - 1) if before else "") + chr(ord("A") + here)


def base_of(result_name: str, variant: Mapping[str, Any]) -> str:
    """The name of the recipe whose matrix made this run: without what the matrix added to it (NAME.axis-value…)."""
    if not variant:
        return result_name
    first = next(iter(variant)).rpartition(".")[2]
    mark = re.sub(r"[^A-Za-z0-9._-]+", "-", f".{first}-")
    before, found, _ = result_name.partition(mark)
    return before if found else result_name


def axes_of(groups: Iterable[Group]) -> tuple[str, ...]:
    """The paths that the groups' matrix sets, in its order."""
    return tuple(dict.fromkeys(path for group in groups for path in group.variant))


def short_axes(axes: Sequence[str]) -> Iterator[str]:
    """The last word of each path, or all of it where two end alike."""
    last = [path.rpartition(".")[2] for path in axes]
    yield from (word if last.count(word) == 1 else path for path, word in zip(axes, last, strict=True))
