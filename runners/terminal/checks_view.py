"""What was checked: a line each with its level, and how one accelerator's memory will be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len
from rich.text import Text

from runners.terminal.layout import LABEL, room, wrapped
from runners.terminal.words import amount, gib

STYLES = {"ok": "green", "warn": "yellow", "block": "bold red"}
_TOPICS = {
    "kv-cache": "KV cache",
    "max-model-len": "max_model_len",
    "cuda": "CUDA",
    "ram": "RAM",
    "dtype": "data type",
}
_MEMORY = ("weights", "kv-cache", "ram", "max-model-len", "context", "concurrency")
"""Topics beside which the memory is shown."""
_TOLD_BY_MEMORY = ("weights", "kv-cache", "ram")
_BAR, _NARROWEST_BAR = 26, 12
_WIDEST_MESSAGE = 84
"""Columns of a message, however wide the terminal is: the level stands near what it is about."""


@dataclass(frozen=True)
class _Row:
    topic: str
    message: str
    level: str = ""
    advice: str = ""
    memory: dict[str, Any] | None = None
    """Shown as a bar, as wide as there is room."""


def check_lines(document: dict[str, Any], width: int | None) -> list[Text]:
    """The block `checks` of a plan: every finding that is no block, and the memory."""
    findings = [f for f in _distinct(document["findings"]) if f["level"] != "block"]
    return _laid_out(list(_rows(document, findings)), width)


def warning_lines(document: dict[str, Any], width: int | None) -> list[Text]:
    """The same for a refused plan, where only what helps is told: warnings, and the memory where it is the reason."""
    findings = [f for f in _distinct(document["findings"]) if f["level"] == "warn"]
    blocked = {f["code"] for f in document["findings"] if f["level"] == "block"}
    shown = document if blocked & set(_MEMORY) else {**document, "memory": None}
    return _laid_out(list(_rows(shown, findings)), width)


def topic(code: str) -> str:
    """A finding's code as people read it."""
    return _TOPICS.get(code, code.replace("-", " "))


def _distinct(findings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({(f["code"], f["message"]): f for f in findings}.values())


def _rows(document: dict[str, Any], findings: list[dict[str, Any]]) -> Iterator[_Row]:
    memory, shown = document["memory"], False
    for finding in findings:
        code, level = finding["code"], finding["level"]
        if memory and code in _MEMORY and not shown:
            shown = True
            yield from _memory_rows(document, findings)
        if memory and ((level == "ok" and code in _TOLD_BY_MEMORY) or code == "concurrency"):
            continue
        yield _Row(topic(code), finding["message"], level, finding["suggestion"] if level != "ok" else "")
    if memory and not shown:
        yield from _memory_rows(document, findings)
    said = " ".join(finding["message"] for finding in document["findings"])
    for assumption in document["model"].get("assumptions") or ():
        if assumption not in said:
            yield _Row("assumption", assumption, "warn")


def _laid_out(rows: list[_Row], width: int | None) -> list[Text]:
    """Topics and messages below each other; each level behind the end of its message, all in one column."""
    if not rows:
        return []
    indent = LABEL + max(cell_len(row.topic) for row in rows) + 2
    most = min(_WIDEST_MESSAGE, room(width, indent + 6) or _WIDEST_MESSAGE)
    bodies = [_body(row, most) for row in rows]
    column = indent + 2 + max(min(most, line.cell_len) for body in bodies for line in body)
    lines: list[Text] = []
    for row, body in zip(rows, bodies, strict=True):
        head = ("" if lines else "checks").ljust(LABEL) + row.topic
        placed = [Text((head if i == 0 else "").ljust(indent)).append_text(line) for i, line in enumerate(body)]
        if row.level:
            placed[-1].append(" " * max(2, column - placed[-1].cell_len))
            placed[-1].append(row.level, STYLES.get(row.level, ""))
        advice = wrapped(f"→ {row.advice}", most) if row.advice else []
        lines += [*placed, *(Text(" " * indent + more) for more in advice)]
    return lines


def _body(row: _Row, most: int) -> list[Text]:
    """The message on as many lines as it needs; or the bar, with its figures beside or below it."""
    if row.memory is None:
        return [Text(line) for line in wrapped(row.message, most)]
    legend = memory_legend(row.memory)
    left = most - cell_len(legend) - 2
    if left >= _NARROWEST_BAR:
        return [memory_bar(row.memory, min(_BAR, left)).append(f"  {legend}")]
    return [memory_bar(row.memory, _BAR), *(Text(line) for line in wrapped(legend, most))]


def _memory_rows(document: dict[str, Any], findings: list[dict[str, Any]]) -> Iterator[_Row]:
    memory = document["memory"]
    warned = {finding["code"] for finding in findings if finding["level"] == "warn"}
    of_gpu = not document["offers"] or any(offer["count"] for offer in document["offers"])
    name = "memory per GPU" if of_gpu else "memory"
    taken = memory["weights_gib_per_gpu"] + memory["kv_gib_per_gpu"] + _rest(memory)
    too_much = taken > memory["usable_gib_per_gpu"] + memory["uncertainty_gib"]
    tight = too_much or memory["kv_gib_per_gpu"] <= 0 or warned & {"weights", "ram"}
    yield _Row(name, "", "" if tight else "ok", memory=memory)
    queued = next((finding for finding in findings if finding["code"] == "concurrency"), None)
    level = "" if "kv-cache" in warned or not _at_once(memory) else "ok"
    if queued is None:
        yield _Row(topic("kv-cache"), _capacity(document), level)
        return
    asked = queued["numbers"].get("concurrency")
    what = f"; of {asked} asked for, the others queue" if asked else ""
    yield _Row(topic("kv-cache"), _capacity(document) + what, queued["level"], queued["suggestion"])


def memory_legend(memory: dict[str, Any]) -> str:
    """The parts in figures: weights, KV cache, and the rest that the engine takes."""
    parts = (
        ("weights", memory["weights_gib_per_gpu"]),
        ("KV", max(0.0, memory["kv_gib_per_gpu"])),
        ("rest", _rest(memory)),
    )
    return (
        " · ".join(f"{gib(size).removesuffix(' GiB')} {name}" for name, size in parts)
        + f" of {gib(memory['usable_gib_per_gpu'])}"
    )


def memory_bar(memory: dict[str, Any], cells: int) -> Text:
    """One accelerator's memory, drawn: weights, KV cache, the rest that the engine takes, and what stays free."""
    usable = memory["usable_gib_per_gpu"]
    parts = (
        ("█", memory["weights_gib_per_gpu"], "blue"),
        ("░", max(0.0, memory["kv_gib_per_gpu"]), "green"),
        ("▒", _rest(memory), "yellow"),
    )
    bar, filled, sum_gib = Text(), 0, 0.0
    for sign, size, style in parts:
        sum_gib += size
        end = min(cells, round(cells * sum_gib / usable)) if usable else 0
        bar.append(sign * (end - filled), style)
        filled = max(filled, end)
    return bar.append("·" * (cells - filled), "dim")


def _rest(memory: dict[str, Any]) -> float:
    rest: float = memory["activation_gib_per_gpu"] + memory["other_gib_per_gpu"]
    return rest


def _capacity(document: dict[str, Any]) -> str:
    memory, work = document["memory"], document["workload"] or {}
    if memory["kv_tokens"] <= 0:
        return "no room for any request"
    at_once = _at_once(memory)
    longest = work.get("longest_request_tokens") or memory["max_model_len"]
    requests = {0: "no request", 1: "1 request"}.get(at_once, f"{at_once:,} requests")
    at_mean = min(memory["running_at_mean"], memory["slots"])
    others = f", about {at_mean:,} of the usual size" if at_mean > at_once else ""
    return f"{amount(memory['kv_tokens'])} tokens → {requests} of {longest:,} at once{others}"


def _at_once(memory: dict[str, Any]) -> int:
    return int(min(memory["max_running"], memory["slots"]))
