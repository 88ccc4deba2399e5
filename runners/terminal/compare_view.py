"""Runs compared: the answer first, then what differed in the recipe, and every figure with its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.layout import columns, in_parts, labelled, table, width_of
from runners.terminal.words import exact_dollars, plural, seconds

__all__ = ["comparison_lines", "figure", "width_of"]

Document = Mapping[str, Any]

_MATRIX = ("output_tokens_per_s", "ttft_p50_s", "usd_per_million_tokens", "usd_per_document", "useful_fraction")
_HEADS = {
    "output_tokens_per_s": "output tok/s",
    "ttft_p50_s": "TTFT p50",
    "usd_per_million_tokens": "$/M tokens",
    "usd_per_document": "$/document",
    "useful_fraction": "useful",
}
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
        yield from _table(document, width, sort)
    else:
        yield from _legend(groups, width)
    yield from _changes(document, width)
    if len(groups) <= 2:
        yield Text()
        yield from _figures(document, width)
    yield from _remarks(document, width)


def figure(unit: str, value: float | None) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    match unit:
        case "usd":
            return exact_dollars(value)
        case "s":
            return seconds(value)
        case "share":
            return f"{value:.0%}"
        case _:
            return f"{value:,.0f}" if value >= 99.5 or value == int(value) else f"{value:.3g}"


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
        same = len({group["recipe_digest"] for group in document["groups"]}) == 1
        yield Text(
            "the recipe is the same" if same else "how the recipes differ is not known: resolved.json is missing"
        )


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
    return f"{own[0]}–{own[-1]} ({len(own)})" if len(own) > 6 else " ".join(own)


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
        cells = [_named(metric), *(_median(group, metric) for group in document["groups"])]
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


def _named(metric: Document) -> str:
    if metric["part"] == "phases":
        return f"phase {metric['name']}"
    return f"{metric['name']} tok/s" if metric["unit"] == "tok/s" else str(metric["name"])


def _median(group: Document, metric: Document) -> str:
    found = group["figures"].get(metric["key"])
    return figure(metric["unit"], found["median"]) if found else "–"


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
    ratio = "" if found["ratio"] is None else _times(found["ratio"])
    bounds = "" if found["low"] is None else f"{_times(found['low'])}–{_times(found['high'])}"
    return [ratio, bounds, _verdict(found)]


def _verdict(found: Document) -> str:
    if found["verdict"] != "more than noise":
        return _VERDICTS[found["verdict"]]
    return {True: "yes, better", False: "yes, worse", None: "yes"}[found["better"]]


def _style(found: Document | None) -> str:
    return _STYLES[found["better"]] if found and found["verdict"] == "more than noise" else ""


def _times(ratio: float) -> str:
    if ratio < 0.0995:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 99.95 else f"{ratio:,.0f}"


def _table(document: Document, width: int | None, sort: str) -> Iterator[Text]:
    """A line for each of many groups: what a matrix set, the figures that matter, and whether it is on the front."""
    groups, front = document["groups"], document["front"]
    units = {metric["key"]: metric["unit"] for metric in document["metrics"]}
    keys = [key for key in _MATRIX if key in units]
    axes = document["axes"]
    mixed = not axes or len({group["base"] for group in groups}) > 1
    heads = [*(["recipe"] if mixed else []), *_axis_heads(axes)]
    header = ["", *heads, "runs", *(_HEADS[key] for key in keys), "of A", "front"]
    rows = []
    for i in ordered(document, sort):
        group = groups[i]
        names = [group["base"] if axes else group["label"]] if mixed else []
        names += [_told(group["settings"].get(axis)) for axis in axes]
        figures = [_median(group, {"key": key, "unit": units[key]}) for key in keys]
        cells = [group["letter"], *names, str(len(group["runs"])), *figures, _of_first(document, i)]
        rows.append((i, [*cells, _place(front["places"][i], groups)]))
    count = len(header)
    first_figure = count - 2 - len(keys)
    drop = [count - 3, count - 4, first_figure - 1, count - 2]
    lines = table([header, *(cells for _, cells in rows)], width, right=range(first_figure - 1, count - 1), drop=drop)
    yield Text(lines[0].rstrip(), style="bold")
    for line, (i, _) in zip(lines[1:], rows, strict=True):
        yield Text(line.rstrip(), style="green" if front["places"][i]["on_front"] else "")
    yield from _explained(document, width)


def ordered(document: Document, sort: str) -> list[int]:
    """The numbers of the groups in the order that is asked for: by an axis or a figure, with - the highest first.

    Raises KeyError for a word that is neither.
    """
    groups = document["groups"]
    if not sort:
        return list(range(len(groups)))
    name = sort.removeprefix("-")
    read = _readers(document)[name]
    known = [i for i in range(len(groups)) if read(groups[i]) is not None]
    known.sort(key=lambda i: read(groups[i]), reverse=sort.startswith("-"))
    return [*known, *(i for i in range(len(groups)) if i not in known)]


def sort_words(document: Document) -> list[str]:
    """What the table can be sorted by."""
    return list(_readers(document))


def _readers(document: Document) -> dict[str, Callable[[Document], Any]]:
    def of_figure(key: str) -> Callable[[Document], Any]:
        return lambda group: group["figures"][key]["median"] if key in group["figures"] else None

    def of_axis(path: str) -> Callable[[Document], Any]:
        values = [group["settings"].get(path) for group in document["groups"]]
        numbers = all(isinstance(value, int | float) for value in values if value is not None)
        return lambda group: group["settings"].get(path) if numbers else _told(group["settings"].get(path))

    axes = {word: of_axis(path) for path in document["axes"] for word in (path, path.rpartition(".")[2])}
    return {**axes, **{metric["key"]: of_figure(metric["key"]) for metric in document["metrics"]}}


def _axis_heads(axes: Sequence[str]) -> list[str]:
    last = [path.rpartition(".")[2] for path in axes]
    return [word if last.count(word) == 1 else path for path, word in zip(axes, last, strict=True)]


def _told(value: Any) -> str:
    return "–" if value is None else value if isinstance(value, str) else json.dumps(value)


def _of_first(document: Document, number: int) -> str:
    """The throughput as a multiple of the first group's; in brackets where that is not more than noise."""
    key = _MATRIX[0]
    found = next((d for d in document["differences"] if d["b"] == number and d["metric"] == key), None)
    if found is None or found["ratio"] is None:
        return "1.00" if number == 0 and key in document["groups"][0]["figures"] else ""
    return _times(found["ratio"]) if found["verdict"] == "more than noise" else f"({_times(found['ratio'])})"


def _place(place: Document, groups: Sequence[Document]) -> str:
    if place["on_front"]:
        return "front"
    if place["unknown"]:
        return "unknown"
    by = [groups[i]["letter"] for i in place["beaten_by"]]
    return f"behind {' '.join(by[:3])}{' …' if len(by) > 3 else ''}"


def _explained(document: Document, width: int | None) -> Iterator[Text]:
    front = document["front"]
    names = {metric["key"]: _named(metric) for metric in document["metrics"]}
    axes = ", ".join(names[key] for key in front["axes"])
    yield Text()
    if axes:
        what = f"no other is as good in each of {axes}, and better in one"
        note = f" ({front['note']})" if front["note"] else ""
        yield from labelled("front", f"{what}{note}", width)
    if any(_of_first(document, i).startswith("(") for i in range(len(document["groups"]))):
        yield from labelled("of A", "output tok/s as a multiple of A's; in brackets: not told from noise", width)


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
    alpha = document["tests"][0]["alpha"]
    told = " or ".join(tests[name] for name in sorted(methods))
    blocks = "the headline, the other figures, the phases"
    return f"told by {told}, which is wrong in at most {100 * alpha:.0f} % for each of {blocks}; intervals by bootstrap"
