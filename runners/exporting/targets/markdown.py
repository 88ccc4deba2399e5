"""A Markdown table for a README, a pull request or the summary of a CI job.

What strangers can have named (models, variants, errors) stands in code spans, where no renderer looks for links,
mentions, HTML or emphasis.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from runners.exporting.columns import as_number, at
from runners.exporting.contract import ExportedRun, What
from runners.terminal.cells import plain
from runners.terminal.words import clock_time, dollars, exact_dollars, plural, seconds, shortened

_LONGEST = 120
_LONGEST_REASON = 400
_PLAIN = re.compile(r"[A-Za-z0-9$](?:[A-Za-z0-9 ×.,%/$–-]|(?<=[A-Za-z0-9])_(?=[A-Za-z0-9]))*")
_LINKS = ("//", "www.")
"""What no renderer takes for anything but text, unless one of these is in it."""
_RIGHT = frozenset({"output tok/s", "TTFT p50", "$/document", "$/Mtok", "cost", "time"})
_ALWAYS = frozenset({"run", "status"})
_COLUMNS = _RIGHT | _ALWAYS | {"model", "engine", "hardware"}


class Markdown:
    suffix, binary = ".md", False
    whats: tuple[What, ...] = ("runs",)

    def write(self, what: What, runs: Iterable[ExportedRun], file: IO[bytes]) -> None:
        text = "\n".join(markdown_lines(runs))
        file.write(f"{text}\n".encode("utf-8", "replace"))


@dataclass(frozen=True)
class _Told:
    """What the table says of a run."""

    recipe: str
    run_id: str
    variant: Mapping[str, Any]
    cells: Mapping[str, str]
    reason: str
    """Why it was not completed; empty if it was."""


def markdown_lines(runs: Iterable[ExportedRun]) -> Iterator[str]:
    """The table, and below it why runs failed. Runs of a matrix have a column for each setting in which they differ."""
    told = [_Told(run.recipe, run.run_id, run.row.variant, _cells(run), _reason(run)) for run in runs]
    if not told:
        yield "No runs."
        return
    axes = _axes(told)
    names = _names(told, axes)
    rows = [{"run": name, **_settings(one, axes), **one.cells} for name, one in zip(names, told, strict=True)]
    header = [name for name in rows[0] if name in _ALWAYS or any(row[name] for row in rows)]
    yield _line(_text(name) for name in header)
    yield _line("--:" if name in _RIGHT else ":--" for name in header)
    for row in rows:
        yield _line(row[name] for name in header)
    reasons = [f"- {name} {one.reason}" for name, one in zip(names, told, strict=True) if one.reason]
    if reasons:
        yield ""
        yield from reasons


def _cells(run: ExportedRun) -> dict[str, str]:
    result, row = run.result, run.row
    model, total = at(result, "model.identifier"), as_number(at(result, "cost.total_usd"))
    rate = as_number(at(result, "throughput.output_tokens_per_s"))
    return {
        "model": code(model) if model else "",
        "engine": _text(" ".join(filter(None, (row.engine, row.engine_version)))),
        "hardware": _text(_hardware(result)),
        "output tok/s": f"{rate:,.0f}" if rate else "",
        "TTFT p50": _duration(as_number(at(result, "latency.ttft_s.p50"))),
        "$/document": "" if row.unit == "point" else exact_dollars(as_number(at(result, "cost.usd_per_document"))),
        "$/Mtok": exact_dollars(_per_million_tokens(result, total)),
        "cost": dollars(total),
        "time": clock_time(row.seconds) if row.seconds is not None else "",
        "status": _text(f"{row.status} in {row.phase}" if row.phase else row.status),
    }


def _hardware(result: Mapping[str, Any]) -> str:
    accelerator, count = at(result, "offer.accelerator"), at(result, "offer.count")
    if accelerator:
        return f"{accelerator} ×{count}"
    cpus = at(result, "offer.cpus")
    return plural(cpus, "CPU") if isinstance(cpus, int) else ""


def _duration(value: float | None) -> str:
    return "" if value is None else seconds(value)


def _per_million_tokens(result: Mapping[str, Any], total: float | None) -> float | None:
    """Of prompt and output tokens together; older results do not have it."""
    known = as_number(at(result, "cost.usd_per_million_tokens"))
    if known is not None or total is None:
        return known
    tokens = [as_number(at(result, f"throughput.{kind}_tokens")) or 0.0 for kind in ("prompt", "output")]
    return total / sum(tokens) * 1e6 if sum(tokens) else None


def _axes(told: Sequence[_Told]) -> list[str]:
    """The settings in which runs of matrices differ, in the order of their first appearance."""
    paths = dict.fromkeys(path for one in told for path in one.variant)
    return [path for path in paths if len({str(one.variant.get(path)) for one in told}) > 1]


def _settings(told: _Told, axes: Sequence[str]) -> dict[str, str]:
    """A run's settings, by the last words of their paths where these are no other column's name."""
    short = {path: path.rsplit(".", 1)[-1] for path in axes}
    times = Counter([*short.values(), *_COLUMNS])
    names = {path: name if times[name] == 1 else path for path, name in short.items()}
    return {names[path]: _text(str(told.variant.get(path, ""))) for path in axes}


def _names(told: Sequence[_Told], axes: Sequence[str]) -> list[str]:
    """The recipe's name where that and the settings tell runs apart, else each run's id."""
    keys = [(one.recipe, *(str(one.variant.get(path)) for path in axes)) for one in told]
    times = Counter(keys)
    return [code(one.recipe if times[key] == 1 else one.run_id) for one, key in zip(told, keys, strict=True)]


def _reason(run: ExportedRun) -> str:
    error, advice = at(run.result, "outcome.error"), at(run.result, "outcome.advice")
    if run.row.status in ("completed", "running") or not error:
        return ""
    return f"{_text(run.row.status)}: {span(error)}" + (f" Next: {span(advice)}" if advice else "")


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    """As it is where that is plain, else as code."""
    return text if not text or (_PLAIN.fullmatch(text) and not any(link in text for link in _LINKS)) else code(text)


def code(value: Any, longest: int = _LONGEST) -> str:
    """A code span for a cell of a table."""
    # Renderers differ in whether a backslash before this one would count; an odd number of them does for all.
    return _PIPES.sub(_escaped, span(value, longest))


def span(value: Any, longest: int = _LONGEST_REASON) -> str:
    """A code span: on one line, between more backticks than it has in a row."""
    text = shortened(plain(" ".join(str(value).split())), longest) or " "
    ticks = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    edge = " " if text[0] == "`" or text[-1] == "`" else ""
    return f"{ticks}{edge}{text}{edge}{ticks}"


_PIPES = re.compile(r"\\*\|")


def _escaped(found: re.Match[str]) -> str:
    return "\\" * (2 * (len(found[0]) - 1) + 1) + "|"


PLUGIN = Markdown()
