"""A plan on one screen: the offers, what was checked, the forecast, the exact steps, the verdict."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from runners.terminal.checks_view import check_lines, warning_lines
from runners.terminal.forecast_view import forecast_lines
from runners.terminal.layout import LABEL, columns, in_parts, labelled, room, wrapped, wrapped_command
from runners.terminal.refusal_view import nothing_rented, reason_lines
from runners.terminal.words import amount, dollars, gib, plural, whole_seconds

_TRIED, _PASSED_OVER = 6, 3
"""So many offers are shown of each kind."""
_PHASE, _GO = 10, 4


def plan_lines(plan: dict[str, Any], width: int | None = None, *, repeat: int = 1) -> Iterator[Text]:
    """The screen of a plan that goes, or of one that is refused. Lines are broken at the width, if there is one."""
    blocks = _refused_blocks(plan, width) if plan["verdict"] == "refuse" else _going_blocks(plan, width, repeat)
    for i, block in enumerate(filter(None, blocks)):
        if i:
            yield Text()
        yield from block


def _going_blocks(plan: dict[str, Any], width: int | None, repeat: int) -> Iterator[list[Text]]:
    yield _title(plan, width)
    yield [*_offers(plan, width), *check_lines(plan, width), *forecast_lines(plan, width), *_steps(plan, width)]
    yield [*_together(plan, width, repeat), *_way_on(plan, width)]


def _together(plan: dict[str, Any], width: int | None, repeat: int) -> Iterator[Text]:
    """What all runs of it take and cost, if they are several."""
    if repeat == 1:
        return
    told, forecast = [f"{repeat:,} runs of it, in turn"], plan["forecast"]
    if forecast:
        told.append(whole_seconds(repeat * forecast["total_seconds"]["likely"]))
        told += [dollars(repeat * forecast["total_usd"]["likely"])] if forecast["total_usd"] else []
    yield from labelled("repeat", f"{told[0]}: likely {', '.join(told[1:])} in all" if told[1:] else told[0], width)


def _way_on(plan: dict[str, Any], width: int | None) -> Iterator[Text]:
    """The command that runs this plan."""
    forced = [word for code in plan.get("forced", ()) for word in ("--force", code)]
    for i, line in enumerate(wrapped_command([*shlex.split(plan["command"]), *forced], room(width, _GO))):
        yield Text.assemble((("go:" if i == 0 else "").ljust(_GO), "bold green"), line)


def _refused_blocks(plan: dict[str, Any], width: int | None) -> Iterator[list[Text]]:
    """The reasons first, then what else would help to decide."""
    yield list(reason_lines(plan, width))
    offers = _offers(plan, width, most=1) if plan["offers"] else ()
    about_money = any(f["level"] == "block" and f["code"] == "budget" for f in plan["findings"])
    yield [*offers, *warning_lines(plan, width), *(forecast_lines(plan, width) if about_money else ())]
    yield list(nothing_rented(plan, width))


def _title(plan: dict[str, Any], width: int | None) -> list[Text]:
    model, work = plan["model"], plan["workload"]
    engine = " ".join(filter(None, (plan["engine"].get("title", plan["engine"]["name"]), plan["engine"]["version"])))
    parts = plural(work["documents"], "point" if work.get("unit") == "point" else "file")
    done = f"{work['name']} {parts}, {plural(work['requests'], 'request')}"
    told = [plan["recipe"], model["source"], engine, f"{done}, {amount(work['prompt_tokens'])} tokens"]
    lines = [Text(line, style="bold") for line in in_parts(told, width)]
    return lines + [Text(line, style="dim") for line in in_parts(_model_facts(model), width)]


def _model_facts(model: dict[str, Any]) -> Iterator[str]:
    """What the model is made of, as far as it is known."""
    if model.get("architecture"):
        yield model["architecture"]
    if model.get("parameters"):
        yield f"{amount(model['parameters'])} parameters"
    if model.get("weights_gib"):
        kind = model.get("quantization") or model.get("dtype") or ""
        yield f"{gib(model['weights_gib'])} {kind}".rstrip()
    if model.get("heads"):
        kv_heads = model.get("kv_heads") or model["heads"]
        yield f"{plural(model['heads'], 'head')}, {plural(kv_heads, 'KV head')}"
    if model.get("max_positions"):
        yield f"context {model['max_positions']:,}"


def _offers(plan: dict[str, Any], width: int | None, *, most: int = _TRIED) -> Iterator[Text]:
    """A line each, in the order in which they are tried; then those that are not, with the reason."""
    tried, passed, going = plan["offers"], plan.get("passed_over", ()), plan["verdict"] == "go"
    shown = [*tried[:most], *(one["offer"] for one in passed[:_PASSED_OVER])]
    marks = ["← first" if i == 0 and going and len(tried) > 1 else "" for i in range(len(tried[:most]))]
    marks += [_without_price(one) for one in passed[:_PASSED_OVER]]
    between = "  " if width is not None and width < 100 else "   "
    for i, (row, mark) in enumerate(zip(columns(_cells(shown), between=between), marks, strict=True)):
        line, indent = ("offers" if i == 0 else "").ljust(LABEL) + row, LABEL + len(row) + len(between)
        if not mark:
            yield Text(line.rstrip())
        elif width is None or indent + len(mark) <= width:
            yield Text(f"{line}{between}{mark}")
        else:
            yield Text(line.rstrip())
            yield from (Text(" " * (LABEL + 2) + more) for more in wrapped(mark, room(width, LABEL + 2)))
    after = "tried after them" if going else "refused as well"
    more = [(len(tried) - most, after), (len(passed) - _PASSED_OVER, "passed over")]
    told = [f"and {count:,} more {what}" for count, what in more if count > 0]
    if told:
        yield Text(" " * LABEL + ", ".join(told))


def _without_price(passed_over: dict[str, Any]) -> str:
    """The reason; a price that stands before it already is not told again."""
    reason: str = passed_over["reason"]
    return reason.removeprefix(f"{dollars(passed_over['offer']['price_usd_per_h'])}/h is ")


def _cells(offers: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for offer in offers:
        what = (
            f"{offer['accelerator']} ×{offer['count']}" if offer["accelerator"] else plural(offer["cpus"] or 1, "CPU")
        )
        price = f"{dollars(offer['price_usd_per_h'])}/h" if offer["price_usd_per_h"] is not None else "no price given"
        memory = f"{offer['memory_gib']:.1f} GiB" if offer["memory_gib"] and not offer["accelerator"] else ""
        kind = " ".join(filter(None, (offer["cloud"], "spot" if offer["spot"] else "")))
        rows.append([offer["provider"], what, memory, kind, offer["region"] or "", offer["stock"] or "", price])
    return rows


def _steps(plan: dict[str, Any], width: int | None) -> Iterator[Text]:
    """The exact commands, whole; what a shell could run stays so where a line is broken."""
    phase = ""
    for i, step in enumerate(plan["steps"]):
        indent = LABEL + _PHASE
        if "argv" in step:
            env = [f"{name}={value}" for name, value in step.get("env", {}).items()]
            lines = wrapped_command([*(["env", *env] if env else []), *step["argv"]], room(width, indent))
        else:
            lines = wrapped(step["action"], room(width, indent))
        for line in lines:
            named = step["phase"] if step["phase"] != phase else ""
            phase = step["phase"]
            yield Text(f"{'steps' if i == 0 and line is lines[0] else '':<{LABEL}}{named:<{_PHASE}}{line}")
