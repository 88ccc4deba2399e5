"""One check explained: its formula, what it said of this plan with its figures, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from runners.terminal.checks_view import STYLES, memory_bar, memory_legend
from runners.terminal.forecast_view import forecast_lines
from runners.terminal.layout import LABEL, columns, labelled
from runners.terminal.refusal_view import quoted

_ABOUT_MEMORY = ("memory", "weights", "kv-cache", "ram")
_FIGURES_OF_MEMORY = (
    ("usable", "usable_gib_per_gpu", "GiB, as the driver gives it"),
    ("budget", "budget_gib_per_gpu", "GiB that the engine takes"),
    ("weights", "weights_gib_per_gpu", "GiB"),
    ("activation", "activation_gib_per_gpu", "GiB"),
    ("other", "other_gib_per_gpu", "GiB"),
    ("KV cache", "kv_gib_per_gpu", "GiB"),
    ("per token", "kv_bytes_per_token", "bytes of one token"),
    ("KV tokens", "kv_tokens", "tokens"),
    ("block", "block_tokens", "tokens"),
    ("max_model_len", "max_model_len", "tokens"),
    ("longest", "longest_that_fits", "tokens that the cache holds of one request"),
    ("at once", "max_running", "requests"),
    ("slots", "slots", "requests that the engine runs at most"),
    ("uncertainty", "uncertainty_gib", "GiB, two standard deviations"),
)


def explanation_lines(
    word: str, texts: Sequence[str], plans: Sequence[dict[str, Any]], width: int | None
) -> Iterator[Text]:
    """The explanation once, then every plan's own figures."""
    indent = max(LABEL, len(word) + 2)
    for i, text in enumerate(dict.fromkeys(texts)):
        formula, _, source = text.partition("Source:")
        yield from _paragraphs(word if i == 0 else "", formula, width, indent)
        yield from _paragraphs("source", source, width, indent)
    for plan in plans:
        yield Text()
        yield Text(plan["recipe"], style="bold")
        yield from _of_this_plan(word, plan, width)


def _paragraphs(label: str, text: str, width: int | None, indent: int) -> Iterator[Text]:
    """A text's own lines, each with its own indent; empty ones are left out."""
    for line in filter(str.strip, text.strip().splitlines()):
        inner = len(line) - len(line.lstrip())
        for i, part in enumerate(labelled("", line.strip(), width, indent=indent + inner)):
            head = Text((label if i == 0 else "").ljust(indent + inner), style="bold")
            yield head.append_text(part[indent + inner :])
        label = ""


def _of_this_plan(word: str, plan: dict[str, Any], width: int | None) -> Iterator[Text]:
    found = [finding for finding in plan["findings"] if finding["code"] == word]
    memory = plan["memory"] if word in _ABOUT_MEMORY else None
    for finding in found:
        yield from labelled(finding["level"], finding["message"], width, style=STYLES[finding["level"]])
        if finding["quote"]:
            yield from labelled("", quoted(plan, finding), width)
        if not memory:
            yield from _figures([(name.replace("_", " "), value, "") for name, value in finding["numbers"].items()])
    if memory:
        yield Text.assemble("".ljust(LABEL), memory_bar(memory, 26))
        yield Text(" " * LABEL + memory_legend(memory))
        yield from _figures([(name, memory[key], unit) for name, key, unit in _FIGURES_OF_MEMORY if key in memory])
        yield from labelled("from", memory["basis"], width)
    elif word == "forecast" and plan["forecast"]:
        yield from forecast_lines(plan, width)
        bases = [[phase["name"], phase["basis"]] for phase in plan["forecast"]["phases"]]
        for i, line in enumerate(columns(bases)):
            yield from labelled("from" if i == 0 else "", line.rstrip(), width)
    elif not found:
        yield from labelled("", f"this plan has no finding of {word}", width)


def _figures(rows: Sequence[tuple[str, Any, str]]) -> Iterator[Text]:
    cells = [[name, _figure(value), unit] for name, value, unit in rows]
    for line in columns(cells, right=(1,)):
        yield Text(" " * LABEL + line.rstrip())


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}".rstrip("0").rstrip(".")
