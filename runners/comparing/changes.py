"""What differs between groups: in their recipes as they were resolved, and in what they met."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from runners.comparing.groups import Group
from runners.comparing.metrics import Result
from runners.comparing.places import at

_ASIDE = frozenset({"name", "description", "tags", "metrics"})
"""What changes nothing of a run."""
_INPUTS, _PROMPT = "workload.inputs", "workload.prompt"
_FILES = frozenset({_INPUTS, _PROMPT, "workload.tokenizer", "workload.traffic.prompts", "model.path"})
"""Paths on the machine that began the run: where they lie changes nothing, what they hold does."""
_LONGEST = 60
ABSENT = "–"


@dataclass(frozen=True)
class Change:
    """Something that is not the same in all groups."""

    path: str
    values: tuple[Any, ...]
    """Of each group, in their order; None where it is not set."""

    @property
    def told(self) -> tuple[str, ...]:
        """The values as people read them; of long texts their length and digest."""
        return tuple(map(value_told, self.values))

    def row(self) -> dict[str, Any]:
        return {"path": self.path, "values": list(self.values), "told": list(self.told)}


def recipe_changes(groups: Sequence[Group]) -> tuple[Change, ...]:
    """What differs in resolved.json. Empty where one of them has none, or where all are alike."""
    trees = [group.resolved for group in groups]
    if any(tree is None for tree in trees):
        return ()
    flat = [_comparable(dict(leaves(tree or {}))) for tree in trees]
    paths = dict.fromkeys(path for one in flat for path in one)
    found = [Change(path, tuple(one.get(path) for one in flat)) for path in paths]
    changed = [change for change in found if not _alike(change)]
    return (*changed, *_contents(groups, [change.path for change in changed]))


def circumstances(groups: Sequence[Group]) -> tuple[Change, ...]:
    """What differs besides the recipe: of each group what its runs met, several where they differ among themselves."""
    changes = []
    for name, read in _CIRCUMSTANCES.items():
        values = [dict.fromkeys(read(result) for result in group.results) for group in groups]
        if len({frozenset(own) for own in values}) > 1:
            changes.append(Change(name, tuple(_one_or_several(list(own)) for own in values)))
    return tuple(changes)


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path; a list of plain values is one value, one of mappings goes by number."""
    for key, value in tree.items():
        path = f"{above}{key}"
        if not above and key in _ASIDE:
            continue
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}.")
        elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
            yield from leaves({str(i): each for i, each in enumerate(value)}, f"{path}.")
        elif value not in ([], None):
            yield path, value


def value_told(value: Any) -> str:
    """A value on one line."""
    if value is None:
        return ABSENT
    if isinstance(value, str):
        text = value
    elif isinstance(value, list | tuple) and all(isinstance(each, str | int | float) for each in value):
        text = ", ".join(map(str, value))
    else:
        text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST and "\n" not in text:
        return text
    return f"{len(text):,} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _comparable(flat: dict[str, Any]) -> dict[str, Any]:
    """With files by their name and folder: the machines that runs were begun on have them elsewhere."""
    return {path: _shortened(value) if path in _FILES else value for path, value in flat.items()}


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if not isinstance(value, str) or not value.startswith("/") or "\n" in value:
        return value
    return str(PurePath(*PurePath(value).parts[-2:]))


def _alike(change: Change) -> bool:
    first = change.values[0]
    return all(value == first and type(value) is type(first) for value in change.values)


def _contents(groups: Sequence[Group], told: Sequence[str]) -> Iterator[Change]:
    """Texts that differ under the same names, as far as the runs say by which digest."""
    for path, name, words in ((_INPUTS, "inputs_digest", "texts"), (_PROMPT, "prompt_digest", "text")):
        digests = [at(group.newest, "workload", name) for group in groups]
        if path not in told and None not in digests and len(set(digests)) > 1:
            yield Change(path, tuple(f"{words} {digest[:8]}" for digest in digests))


def _one_or_several(values: Sequence[Any]) -> Any:
    return values[0] if len(values) == 1 else [ABSENT if value is None else value for value in values]


def _version(name: str) -> Callable[[Result], Any]:
    return lambda result: at(result, "versions", name)


_CIRCUMSTANCES: Mapping[str, Callable[[Result], Any]] = {
    "provider": lambda r: at(r, "offer", "provider"),
    "accelerator": lambda r: at(r, "offer", "accelerator"),
    "accelerators": lambda r: at(r, "offer", "count"),
    "CPUs": lambda r: at(r, "offer", "cpus"),
    "offer": lambda r: at(r, "offer", "id"),
    "region": lambda r: at(r, "offer", "region"),
    "spot": lambda r: at(r, "offer", "spot"),
    "price $/h": lambda r: at(r, "cost", "price_usd_per_h"),
    "model": lambda r: at(r, "model", "identifier"),
    "model commit": lambda r: at(r, "model", "commit"),
    "engine": lambda r: at(r, "engine", "name"),
    "engine version": lambda r: at(r, "engine", "version"),
    "recipe version": _version("gpu-recipe"),
    "Python": _version("python"),
    "platform": _version("platform"),
    "git commit": lambda r: (at(r, "git_commit") or "")[:12] or None,
    "measured at": lambda r: at(r, "throughput", "measured_at"),
    "through": lambda r: at(r, "throughput", "through"),
}
