"""Runs compared: the answer first, then what differed in the recipe, and every figure with its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.compare_figures import Document, figure, median_told, metric_told, times_told
from runners.terminal.layout import columns, in_parts, labelled, table
from runners.terminal.variants_view import variants_lines
from runners.terminal.words import plural

_SMALL_PHASE = 0.01
"""Phases that take less of every run are not shown."""
_VERDICTS = {"within noise": "no", "the same": "the same", "cannot tell": "cannot tell"}
_STYLES = {True: "green", False: "red", None: ""}
_INDENT = 10
_MOST_LEFT_OUT = 5


def comparison_lines(document: Document, width: int | None, *, sort: str = "") -> Iterator[Text]:
    """The comparison for a terminal of this width; None for a pipe. `document` is what --json prints."""
    for sentence in document["answer"]:
        yield from labelled("", sentence, width, indent=0)
    yield Text()
    groups = document["groups"]
    if len(groups) > 2:
        yield from labelled("", "   ".join(_in_common(groups)), width, indent=0)
        yield Text()
        yield from variants_lines(document, width, sort=sort)
    else:
        yield from _legend(groups, width)
    yield from _changes(document, width)
    if len(groups) <= 2:
        yield Text()
        yield from _figures(document, width)
    yield from _remarks(document, width)


def _legend(groups: Sequence[Document], width: int | None) -> Iterator[Text]:
    """Which group is which: recipe, repetitions, machine, engine."""
    rows = [[g["letter"], g["label"], plural(len(g["runs"]), "run"), g["machine"], g["engine"]] for g in groups]
    lines = columns(rows)
    if width is None or max(map(len, lines)) <= width:
        yield from (Text(line.rstrip()) for line in lines)
        return
    for letter, *parts in rows:
        for i, line in enumerate(in_parts(parts, width - 4)):
            yield Text(f"{letter if i == 0 else '':<4}{line}")


def _in_common(groups: Sequence[Document]) -> Iterator[str]:
    """How many repetitions, and what is the same for all groups."""
    counts = sorted({len(group["runs"]) for group in groups})
    told = plural(counts[0], "run") if len(counts) == 1 else f"{counts[0]} to {plural(counts[-1], 'run')}"
    yield f"{told} each"
    for name in ("machine", "engine"):
        values = {group[name] for group in groups}
        if len(values) == 1:
            yield values.pop()


def _changes(document: Document, width: int | None) -> Iterator[Text]:
    """What differs, in the recipe and besides; what a matrix sets stands in its table already."""
    letters = [group["letter"] for group in document["groups"]]
    in_table = set(document["axes"]) if len(letters) > 2 else set()
    recipe = [change for change in document["recipe_changes"] if change["path"] not in in_table]
    for label, changes in (("recipe", recipe), ("besides", document["circumstances"])):
        if not changes:
            continue
        yield Text()
        yield Text(f"what differs {'in the recipe' if label == 'recipe' else label}", style="bold")
        yield from _two(changes, letters, width) if len(letters) == 2 else _several(changes, letters, width)
    if len(letters) > 1 and not document["recipe_changes"]:
        yield Text()
        yield from labelled("", _no_changes(document), width, indent=0)


def _no_changes(document: Document) -> str:
    if len({group["recipe_digest"] for group in document["groups"]}) == 1:
        return "the recipe is the same"
    if not document["recipes_known"]:
        return "how the recipes differ is not known: resolved.json is missing"
    return "the recipes differ by nothing but their names, or a file's text of which an older run kept no digest"


def _two(changes: Sequence[Document], letters: Sequence[str], width: int | None) -> Iterator[Text]:
    rows = [["  ", *letters], *(["  " + change["path"], *change["told"]] for change in changes)]
    lines = columns(rows)
    if width is None or max(map(len, lines)) <= width:
        yield from (Text(line.rstrip()) for line in lines)
    else:
        yield from _several(changes, letters, width)


def _several(changes: Sequence[Document], letters: Sequence[str], width: int | None) -> Iterator[Text]:
    """Each value with the groups that have it."""
    for change in changes:
        having: dict[str, list[str]] = {}
        for letter, told in zip(letters, change["told"], strict=True):
            having.setdefault(told, []).append(letter)
        parts = [f"{_letters(own)} {told}" for told, own in having.items()]
        yield Text(f"  {change['path']}")
        yield from (Text(f"      {line}") for line in in_parts(parts, None if width is None else width - 6))


def _letters(own: Sequence[str]) -> str:
    return f"{' '.join(own[:5])} … ({len(own)})" if len(own) > 6 else " ".join(own)


def _figures(document: Document, width: int | None) -> Iterator[Text]:
    """Every figure of one or two groups, those of the headline first, the phases last."""
    first, *rest = document["groups"]
    differences = {row["metric"]: row for row in document["differences"]}
    shown = [metric for metric in document["metrics"] if _worth(metric, document["groups"])]
    header = ["median", *(group["letter"] for group in document["groups"])]
    header += ["B / A", _level(differences.values()), "more than noise"] if rest else [_level_of_medians(first)]
    rows, styles = [header], ["bold"]
    for metric in shown:
        found = differences.get(metric["key"])
        cells = [metric_told(metric), *(median_told(group, metric) for group in document["groups"])]
        rows.append([*cells, *(_verdict_cells(found) if rest else [_interval(first, metric)])])
        styles.append(_style(found))
    narrow = [len(header) - 2] if rest else []
    lines = table(rows, width, right=range(1, len(header) - 1), drop=narrow)
    yield from (Text(line.rstrip(), style=style) for line, style in zip(lines, styles, strict=True))


def _worth(metric: Document, groups: Sequence[Document]) -> bool:
    """Whether a figure is worth its line: a phase that takes no time is not, nor what is nothing everywhere."""
    medians = [found["median"] for g in groups if (found := g["figures"].get(metric["key"]))]
    if metric["part"] != "phases":
        return any(medians)
    whole = [g["figures"]["seconds"]["median"] for g in groups if "seconds" in g["figures"]]
    return bool(whole) and max(medians) >= _SMALL_PHASE * max(whole)


def _interval(group: Document, metric: Document) -> str:
    found = group["figures"].get(metric["key"])
    if not found or found["low"] is None:
        return ""
    return f"{figure(metric['unit'], found['low'])} – {figure(metric['unit'], found['high'])}"


def _level_of_medians(group: Document) -> str:
    told = [found["confidence"] for found in group["figures"].values() if found["confidence"]]
    return f"{100 * min(told):.0f} % interval" if told else ""


def _level(differences: Any) -> str:
    told = [row["confidence"] for row in differences if row["confidence"]]
    return f"{100 * min(told):.0f} % interval" if told else ""


def _verdict_cells(found: Document | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    ratio = "" if found["ratio"] is None else times_told(found["ratio"])
    bounds = "" if found["low"] is None else f"{times_told(found['low'])}–{times_told(found['high'])}"
    return [ratio, bounds, _verdict(found)]


def _verdict(found: Document) -> str:
    if found["verdict"] != "more than noise":
        return _VERDICTS[found["verdict"]]
    return {True: "yes, better", False: "yes, worse", None: "yes"}[found["better"]]


def _style(found: Document | None) -> str:
    return _STYLES[found["better"]] if found and found["verdict"] == "more than noise" else ""


def _remarks(document: Document, width: int | None) -> Iterator[Text]:
    """What was not counted, what to mind, and how noise was told."""
    lines: list[tuple[str, str, str]] = []
    left = [each for group in document["groups"] for each in group["left_out"]]
    lines += [("left out", f"{each['run_id']}: {each['why']}", "") for each in left[:_MOST_LEFT_OUT]]
    if len(left) > _MOST_LEFT_OUT:
        lines.append(("", f"and {plural(len(left) - _MOST_LEFT_OUT, 'more run')}: --json names them all", ""))
    lines += [("note", note, "") for note in document.get("notes", ())]
    lines += [("mind", caveat, "yellow") for caveat in document["caveats"]]
    if told := _method(document):
        lines.append(("noise", told, ""))
    if lines:
        yield Text()
    for label, text, style in lines:
        yield from labelled(label, text, width, indent=_INDENT, style=style)


def _method(document: Document) -> str:
    methods = {row["method"] for row in document["tests"]} - {None}
    if not methods:
        return ""
    tests = {"permutation": "a permutation test", "student": "a t test of logarithms (3 runs allow no other)"}
    told = " or ".join(tests[name] for name in sorted(methods))
    wrong = f"where nothing differs, at most {100 * document['alpha']:.0f} % of tables say yes anywhere"
    rest = [row for row in document["tests"] if row["family"] == "rest" and not row["method"]]
    more = "; beyond the headline it takes 5 runs each" if rest and len(document["groups"]) == 2 else ""
    intervals = "intervals are of the medians alone, by bootstrap, and may hold 1.00 nevertheless"
    return f"told by {told}; {wrong}{more}; {intervals}"
