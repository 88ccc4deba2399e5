"""An engine's own page, passed on line by line: each series with the labels of its run, and nothing that is no series.

Lines and no parser of the whole, for two reasons. A page of vLLM has hundreds, and while they are read in another
thread the run's own has to wait with noting when a token came. And what an endpoint says may be anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from runners.metrics.families import FAMILIES
from runners.metrics.own_pages import LONGEST_PAGE, of_engine

_LABEL = r'[A-Za-z_]\w*="(?:[^"\\\n]|\\[\\"n])*"'
_SERIES = rf"([A-Za-z_:][\w:]*)(?:\{{[ \t]*((?:{_LABEL}[ \t]*(?:,[ \t]*)?)*)\}})?"
_VALUE = r"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|Inf)|NaN"
_NAMED = re.compile(_SERIES, re.ASCII)
_SAMPLE = re.compile(rf"({_SERIES})[ \t]+({_VALUE})(?:[ \t]+-?\d+)?[ \t]*", re.ASCII)
_ABOUT = re.compile(r"# (HELP|TYPE) ([A-Za-z_:][\w:]*) (.*)", re.ASCII)
_KINDS = ("counter", "gauge", "histogram", "summary", "untyped")
_SUMS = ("counter", "histogram", "summary")
_PARTS = ("", "_bucket", "_count", "_sum", "_created")
_OURS = frozenset(f"{family.sample_name}{part}" for family in FAMILIES for part in _PARTS)
Run = tuple[str, str]
"""Its id, and its recipe's name."""


@dataclass
class _Family:
    about: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def passed_on(pages: Iterable[tuple[str, Run]]) -> Iterator[str]:
    """The lines of all engines' pages, each family together: that of vLLM stands once, whatever the number of runs."""
    families: dict[str, _Family] = {}
    for page, run in pages:
        if len(page) <= LONGEST_PAGE:
            _take(page, run, families)
    for name, family in families.items():
        if family.lines:
            yield from (f"# {what} {name} {text}" for what, text in sorted(family.about.items()))
            yield from family.lines


def sums_of(page: str) -> str:
    """What an engine has counted: what stays true when it is gone. Without its gauges, and what it gives no kind of."""
    kept: list[str] = []
    family, wanted = "", False
    for line in page.split("\n") if len(page) <= LONGEST_PAGE else ():
        if about := _ABOUT.fullmatch(line):
            if about[1] == "TYPE":
                family, wanted = about[2], about[3] in _SUMS
            kept.append(line)
        elif wanted and (named := _NAMED.match(line)) and _is_part(named[1], family):
            kept.append(line)
    return "\n".join(kept) + "\n"


def labelled(series: str, run: Run) -> tuple[str, str] | None:
    """A series' name, and the series with the labels run_id and recipe; None if it is none, or has a name of ours.

    Labels of its own with these names are renamed, as Prometheus does it.
    """
    match = _NAMED.fullmatch(series)
    if match is None or match[1] in _OURS or not of_engine(match[1]):
        return None
    labels = (match[2] or "").strip().rstrip(",")
    if "run_id=" in labels or "recipe=" in labels:
        labels = ",".join(re.sub(r"^(run_id|recipe)=", r"exported_\1=", one) for one in re.findall(_LABEL, labels))
    return match[1], f'{match[1]}{{{labels}{"," if labels else ""}run_id="{run[0]}",recipe="{run[1]}"}}'


def _take(page: str, run: Run, families: dict[str, _Family]) -> None:
    current = ""
    for line in page.split("\n"):
        if line.startswith("#"):
            if (about := _ABOUT.fullmatch(line)) and (about[1] == "HELP" or about[3] in _KINDS):
                current = about[2]
                families.setdefault(current, _Family()).about.setdefault(about[1], about[3])
        elif (sample := _SAMPLE.fullmatch(line)) and (known := labelled(sample[1], run)):
            name, series = known
            family = current if _is_part(name, current) else name
            families.setdefault(family, _Family()).lines.append(f"{series} {sample[4]}")


def _is_part(name: str, family: str) -> bool:
    """Whether a series is one of those that a family has."""
    return name.startswith(family) and name.removeprefix(family) in _PARTS
