"""The end of a run, and its report: the answer first, figures aligned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from runners.terminal.cost_view import bill_lines, cost_parts, energy_lines, idle_lines
from runners.terminal.cost_view import phase_table as phase_table
from runners.terminal.load_view import is_load, load_lines
from runners.terminal.tables import aligned_table as aligned_table
from runners.terminal.words import clock_time, dollars, plural, rate, seconds, shortened

_SHOWN_SUMMARIES = 3
FAR_S = 1.0
"""Clocks that are further apart than this are told of."""


def summary_lines(result: dict[str, Any], folder: Path, width: int | None = None) -> list[str]:
    """What people want to know when a run has ended; tables fit the width, if there is one."""
    lines = [_headline(result), *_failure(result), ""]
    if is_load(result):
        lines += load_lines(result, width)
    elif result["requests"]["ok"]:
        lines += [*_throughput(result), _latency(result)]
    if result["requests"]["ok"]:
        lines += _taken_at(result)
    if any(result["requests"].values()) or result.get("taken_over"):
        lines.append(_requests(result))
    lines += _taken_over(result)
    lines += [
        *idle_lines(result),
        *energy_lines(result),
        _machine(result),
        *bill_lines(result),
        *_forced(result),
        *(f"warning      {message}" for message in result["warnings"]),
    ]
    lines += list(_summaries(folder))
    page = folder / "report.html"
    lines.append(f"report       {page}" if page.is_file() else f"report       recipe report {result['run_id']}")
    lines.append(f"files        {folder}")
    return lines


def brief_lines(result: dict[str, Any]) -> list[str]:
    """One of many runs."""
    return [f"{result['run_id']}   {_headline(result)}", *_failure(result), _machine(result)]


def still_billing_lines(result: dict[str, Any]) -> list[str]:
    """The screen for a machine that was not proven gone."""
    release, cost = result["release"], result["cost"]
    price = cost["price_usd_per_h"] and cost["price_usd_per_h"] + cost.get("storage_usd_per_h", 0.0)
    costs = f" may still be billing {dollars(price)}/h" if price else " may still be running"
    return [
        f"NOT PROVEN GONE   {release['name'] or result['run_id']}{costs}",
        f"                  {release['reason']}",
        *_own_switch(result),
        f"now:              {release['command']}",
        "",
    ]


def _own_switch(result: dict[str, Any]) -> list[str]:
    """What the machine does by itself, and what it may cost until then."""
    lease = result["lease"]
    if not lease or not lease["deadline"]:
        return []
    left_s = (datetime.fromisoformat(lease["deadline"]) - datetime.fromisoformat(result["ended_at"])).total_seconds()
    price = lease["price_usd_per_h"] and lease["price_usd_per_h"] + lease.get("storage_usd_per_h", 0.0)
    more = f" (at most {dollars(price * max(0.0, left_s) / 3600)} more)" if price else ""
    return [f"                  its own switch ends it at {lease['deadline'][11:16]} UTC at the latest{more}"]


def report_lines(result: dict[str, Any], folder: Path, width: int | None = None) -> Iterator[str]:
    """The whole report, for a terminal."""
    yield from summary_lines(result, folder, width)
    offer, engine = result["offer"], result["engine"]
    hardware = f"{offer['count']} × {offer['accelerator']}" if offer["accelerator"] else f"{offer['cpus']} CPUs"
    yield ""
    commit = (result["git_commit"] or "none")[:12]
    yield f"recipe       {result['recipe']}   digest {result['recipe_digest']}   git {commit}"
    yield f"model        {result['model']['source']}"
    yield f"engine       {' '.join(filter(None, (engine['name'], engine['version'])))}"
    yield f"machine      {offer['provider']} {offer['id']}: {hardware}, {offer['memory_gib'] or 0:.1f} GiB"
    yield f"started      {result['started_at']}"
    if counters := result["throughput"]["engine_counters"]:
        yield f"engine says  {counters['prompt_tokens']} prompt tokens, {counters['output_tokens']} output tokens"
        if note := result["throughput"].get("counters_note"):
            yield f"             {note}"
    for peak in result["throughput"]["peak_at"]:
        yield f"peak         {_peak(peak)}"
    for note in result["throughput"].get("peaks_note", ()):
        yield f"why          {note}"


def _headline(result: dict[str, Any]) -> str:
    outcome = result["outcome"]
    took = clock_time(sum(phase["seconds"] for phase in result["phases"]))
    words = {
        "completed": f"done in {took}",
        "failed": f"failed in {outcome['phase']} after {took}",
        "interrupted": f"interrupted in {outcome['phase']} after {took}",
    }
    status = outcome["status"]
    return "   ".join([words.get(status, f"{status}, after {took}"), *cost_parts(result)])


def _failure(result: dict[str, Any]) -> list[str]:
    outcome = result["outcome"]
    if outcome["status"] != "failed":
        return []
    lines = [f"why          {outcome['error']}"]
    if outcome.get("advice"):
        lines.append(f"next         {outcome['advice']}")
    return [*lines, f"exit         {result['exit_code']}"]


def _throughput(result: dict[str, Any]) -> list[str]:
    figures = result["throughput"]
    lines = []
    for kind in ("prompt", "output"):
        peak = next((p for p in figures["peak_at"] if p["kind"] == kind and p["source"] == "requests"), None)
        at = f", peak {peak['tokens_per_s']:,.0f}{_state(peak)}" if peak else ""
        total = f"{figures[f'{kind}_tokens']:,} tokens"
        lines.append(f"{kind} {rate(figures[f'{kind}_tokens_per_s'])}{at} · {total}")
    return [f"throughput   {lines[0]}", f"             {lines[1]}"]


def _taken_at(result: dict[str, Any]) -> Iterator[str]:
    """Where the figures were taken, if that was not simply here."""
    figures = result["throughput"]
    if figures.get("measured_at") == "host":
        offset_s = figures.get("clock_offset_s") or 0.0
        ahead = "ahead of" if offset_s > 0 else "behind"
        clock = f"; its clock is {abs(offset_s):,.1f} s {ahead} this one's" if abs(offset_s) > FAR_S else ""
        yield f"measured     on the host{clock}"
    elif figures.get("through") not in (None, "direct"):
        yield f"measured     by the client, through {figures['through']}"


def _state(peak: dict[str, Any]) -> str:
    state = []
    if peak.get("running") is not None:
        state.append(f"{peak['running']:.0f} running")
    if peak.get("waiting"):
        state.append(f"{peak['waiting']:.0f} waiting")
    if peak.get("kv_usage") is not None:
        state.append(f"KV {peak['kv_usage']:.0%}")
    return f" at {peak['at'][11:19]}" + (f" ({', '.join(state)})" if state else "")


def _peak(peak: dict[str, Any]) -> str:
    return f"{peak['kind']:<7} {peak['source']:<18} {rate(peak['tokens_per_s'])}{_state(peak)}"


def _latency(result: dict[str, Any]) -> str:
    parts = []
    for name in ("ttft", "tpot", "e2e"):
        figures = result["latency"][f"{name}_s"]
        parts.append(f"{name.upper()} p50 {seconds(figures['p50'])}  p99 {seconds(figures['p99'])}")
    return "latency      " + " · ".join(parts)


def _requests(result: dict[str, Any]) -> str:
    counts = result["requests"]
    done = result["documents"]
    resumed = [f"{counts['resumed']:,} taken from disk"] if counts.get("resumed") else []
    parts = [f"{counts['ok']:,} ok", *resumed, f"{counts['retried']:,} retried", f"{counts['failed']:,} failed"]
    return f"requests     {' · '.join(parts)} · {done['done']} of {plural(done['total'], _unit(result))} done"


def _unit(result: dict[str, Any]) -> str:
    unit: str = result["documents"].get("unit", "document")
    return unit


def _taken_over(result: dict[str, Any]) -> Iterator[str]:
    """What earlier runs of the recipe had, so that it was not asked for again."""
    for row in result.get("taken_over", ()):
        what = f"{plural(row['answers'], 'answer')} and {plural(row['documents'], 'finished document')}"
        yield f"taken over   {what} of {row['run_id']}"


def _forced(result: dict[str, Any]) -> Iterator[str]:
    """The checks that would have refused the run."""
    for finding in result.get("forced", ()):
        yield f"forced       {finding['code']}: {finding['message'].removesuffix(' (forced)')}"


def _machine(result: dict[str, Any]) -> str:
    release = result["release"]
    if release["state"] == "gone":
        return f"machine      gone, proven: {release['proof']}"
    if release["state"] == "unknown":
        return "machine      the result does not say what became of it"
    return f"machine      NOT PROVEN GONE: {release['reason']}; {release['command']}"


def _summaries(folder: Path) -> Iterator[str]:
    outputs = sorted((folder / "outputs").glob("*-analysis-*.json"))
    for path in outputs[:_SHOWN_SUMMARIES]:
        text = _summary(path)
        yield f"summary      {path.name.split('-analysis-')[0]}: {shortened(text, 100)}"
    if len(outputs) > _SHOWN_SUMMARIES:
        yield f"             and {len(outputs) - _SHOWN_SUMMARIES} more in {folder / 'outputs'}"


def _summary(path: Path) -> str:
    """An output's; nothing of one that is torn, or of another kind."""
    try:
        output = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return ""
    return str(output.get("summary") or "") if isinstance(output, dict) else ""
