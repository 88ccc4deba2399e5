"""What to mind before a comparison is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from runners.comparing.groups import Group
from runners.comparing.metrics import metric
from runners.comparing.places import at
from runners.comparing.ratios import times
from runners.terminal.words import plural

_FAR = 1.1
_INPUTS = "the inputs differ: $ per document compares different work; $ per M tokens is the fairer figure"


def same_work(groups: Sequence[Group]) -> bool:
    """Whether documents of one group are as much work as those of another, as far as the runs say."""
    return next(_other_work(groups), None) is None


def caveats(groups: Sequence[Group]) -> Iterator[str]:
    """Sentences; none where like is compared with like."""
    yield from _other_work(groups)
    if len(_known(groups, "throughput", "measured_at")) > 1:
        yield "some runs were measured on the host and some by the client: latencies differ by the way between them"
    yield from _other_tokens(groups)
    for group in groups:
        yield from _of_group(group)


def _other_tokens(groups: Sequence[Group]) -> Iterator[str]:
    """Where the same work came to other numbers of tokens, tokens per second are not how soon it was done."""
    tokens = metric("output_tokens")
    known = [(found, group.letter) for group in groups if (found := group.median(tokens))]
    if len(known) > 1 and same_work(groups):
        (least, fewest), (most, many) = min(known), max(known)
        if most > _FAR * least:
            what = f"{many} wrote {times(most / least)} times the output tokens of {fewest} for the same work"
            yield f"{what}: tok/s is not how soon it is done; see phase drive"


def _other_work(groups: Sequence[Group]) -> Iterator[str]:
    kinds = _known(groups, "workload", "kind")
    if len(kinds) > 1:
        yield f"the workloads differ ({', '.join(sorted(kinds))}): $ per document compares different work"
        return
    inputs = _known(groups, "workload", "inputs_digest")
    totals = {f"{at(g.newest, 'documents', 'total')} {at(g.newest, 'documents', 'unit')}s" for g in groups}
    if len(inputs) > 1 or len(totals) > 1 or _other_names(groups):
        yield _INPUTS
    if len(_known(groups, "workload", "prompt_digest")) > 1 or _differs(groups, "workload", "prompt"):
        yield "the prompts differ: answers, and so tokens and $ per document, differ in kind"


def _other_names(groups: Sequence[Group]) -> bool:
    """Whether the files that are read have other names, where no digest says better."""
    if all(at(group.newest, "workload", "inputs_digest") for group in groups):
        return False
    return _differs(groups, "workload", "inputs") or _differs(groups, "workload", "traffic")


def _differs(groups: Sequence[Group], *path: str) -> bool:
    """Of files their last name counts: they lie elsewhere on other machines."""
    told = {_last_names(at(group.resolved, *path)) for group in groups if group.resolved is not None}
    return len(told) > 1


def _last_names(value: Any) -> str:
    if isinstance(value, list):
        return repr([_last_names(each) for each in value])
    return value.rpartition("/")[2] if isinstance(value, str) and "\n" not in value else repr(value)


def _known(groups: Sequence[Group], *path: str) -> set[Any]:
    """What the groups' runs say, as far as they say it."""
    return {value for group in groups for result in group.results if (value := at(result, *path)) is not None}


def _of_group(group: Group) -> Iterator[str]:
    results = group.results
    if failed := sum(at(result, "requests", "failed") or 0 for result in results):
        yield f"{group.letter}: {plural(failed, 'request')} failed, and took time without an answer"
    cold = sum(map(_was_cold, results))
    if 0 < cold < len(results):
        what = f"{cold} of {plural(len(results), 'run')} installed the engine or downloaded the model"
        yield f"{group.letter}: {what}, the others did not: time and cost differ by that"
    tokens = {at(result, "throughput", "prompt_tokens") for result in results} - {None}
    if tokens and max(tokens) > _FAR * min(tokens):
        yield f"{group.letter}: its runs asked between {min(tokens):,} and {max(tokens):,} prompt tokens"
    if forced := {row["code"] for result in results for row in result.get("forced") or ()}:
        yield f"{group.letter}: run with --force {' '.join(sorted(forced))}"


def _was_cold(result: Any) -> bool:
    return bool(at(result, "prepared", "installed") or at(result, "prepared", "downloaded_bytes"))
