"""Many groups of runs in a table: what a matrix set, the figures that matter, and which of them are on the front."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from runners.terminal.compare_figures import Document, median_told, metric_told, times_told
from runners.terminal.layout import labelled, table

_FIGURES = {
    "output_tokens_per_s": "output tok/s",
    "ttft_p50_s": "TTFT p50",
    "usd_per_million_tokens": "$/M tokens",
    "usd_per_document": "$/{unit}",
    "useful_fraction": "useful",
}
_SPEED = "output_tokens_per_s"
_BETWEEN_WORDS = "-_./: "
_WIDTHS = (None, 24, 16, 10)
"""To how much the names in the first columns are shortened, until the table fits."""


def variants_lines(document: Document, width: int | None, *, sort: str = "") -> Iterator[Text]:
    """A line for each group, and what its words mean. Raises KeyError for a `sort` that is none of `sort_words`."""
    order = ordered(document, sort)
    lines = _fitting(document, order, width)
    yield Text(lines[0].rstrip(), style="bold")
    for line, i in zip(lines[1:], order, strict=True):
        yield Text(line.rstrip(), style="green" if document["front"]["places"][i]["on_front"] else "")
    yield from _explained(document, width, of_first=" of A " in lines[0])


def _fitting(document: Document, order: Sequence[int], width: int | None) -> list[str]:
    """The table with names that are as long as the width allows, and without the figures that matter least."""
    units = {metric["key"]: metric["unit"] for metric in document["metrics"]}
    metrics = [{"key": key, "unit": units[key]} for key in _FIGURES if key in units]
    heads = _name_heads(document)
    whole = list(zip(*(_names(document, group) for group in document["groups"]), strict=True))
    lines: list[str] = []
    for longest in _WIDTHS:
        columns = [_shortened(column, longest) for column in whole]
        rows = [
            [
                "",
                *(_cut(head, longest) for head in heads),
                "runs",
                *(_head(metric, document) for metric in metrics),
                "of A",
                "front",
            ]
        ]
        for i in order:
            group = document["groups"][i]
            own = [column[i] for column in columns]
            figures = [median_told(group, metric) for metric in metrics]
            place = _place(document["front"]["places"][i], document["groups"])
            rows.append([group["letter"], *own, str(len(group["runs"])), *figures, _of_first(document, i), place])
        runs, last = 1 + len(heads), len(rows[0]) - 1
        drop = [last - 2, last - 3, runs, last - 1]
        lines = table(rows, width, right=range(runs, last), drop=drop)
        if width is None or cell_len(lines[0]) <= width:
            break
    return lines


def _shortened(names: Sequence[str], longest: int | None) -> list[str]:
    """Names of at most this length, first without the words that all of them begin and end with."""
    if longest is None or max(map(len, names)) <= longest:
        return list(names)
    begin = _alike(names)
    end = _alike([name[: begin or None : -1] for name in names])
    cut = [f"{'…' * (begin > 0)}{name[begin : len(name) - end]}{'…' * (end > 0)}" for name in names]
    return [_cut(name, longest) for name in cut]


def _alike(names: Sequence[str]) -> int:
    """How many characters are the same at the beginning of all of them, in whole words."""
    first, last = min(names), max(names)
    differ = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    same = next(differ, len(first))
    return max((i + 1 for i, letter in enumerate(first[:same]) if letter in _BETWEEN_WORDS), default=0)


def _cut(text: str, longest: int | None) -> str:
    """Without what stands in the middle."""
    if longest is None or len(text) <= longest:
        return text
    before = longest // 3
    return f"{text[:before]}…{text[before + 1 - longest :]}"


def _is_mixed(document: Document) -> bool:
    """Whether the axes alone do not say which group is which."""
    return not document["axes"] or len({group["base"] for group in document["groups"]}) > 1


def _name_heads(document: Document) -> list[str]:
    return [*(["recipe"] if _is_mixed(document) else []), *_axis_heads(document["axes"])]


def _names(document: Document, group: Document) -> Iterator[str]:
    if _is_mixed(document):
        yield group["base"] if document["axes"] else group["label"]
    for axis in document["axes"]:
        yield _told(group["settings"].get(axis))


def _head(metric: Document, document: Document) -> str:
    return _FIGURES[metric["key"]].format(unit=document["unit"])


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
    found = next((d for d in document["differences"] if d["b"] == number and d["metric"] == _SPEED), None)
    if found is None or found["ratio"] is None:
        return "1.00" if number == 0 and _SPEED in document["groups"][0]["figures"] else ""
    return times_told(found["ratio"]) if found["verdict"] == "more than noise" else f"({times_told(found['ratio'])})"


def _place(place: Document, groups: Sequence[Document]) -> str:
    if place["on_front"]:
        return "front"
    if place["unknown"]:
        return "unknown"
    by = [groups[i]["letter"] for i in place["beaten_by"]]
    return f"behind {' '.join(by[:3])}{' …' if len(by) > 3 else ''}"


def _explained(document: Document, width: int | None, *, of_first: bool) -> Iterator[Text]:
    front = document["front"]
    names = {metric["key"]: metric_told(metric) for metric in document["metrics"]}
    axes = ", ".join(names[key] for key in front["axes"])
    yield Text()
    if axes:
        what = f"no other is as good in each of {axes}, and better in one; by the medians, whatever the noise"
        note = f" ({front['note']})" if front["note"] else ""
        yield from labelled("front", f"{what}{note}", width)
    if of_first and any(_of_first(document, i).startswith("(") for i in range(len(document["groups"]))):
        yield from labelled("of A", "output tok/s as a multiple of A's; in brackets: not told from noise", width)
