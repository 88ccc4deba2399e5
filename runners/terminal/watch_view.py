"""All that is going on, as a screen: whole runs while they fit, else less of each, at last a line each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

from rich.text import Text

from recipes.errors import ExitCode
from runners.terminal.layout import in_parts
from runners.terminal.spark import gauge, progress, spark
from runners.terminal.words import clock_time, dollars, gib, plural, rate, shortened, whole_seconds

HINT = "q leaves; the runs go on"
NOTHING = "nothing is going on; try recipe up local-smoke"
_INDENT = 13
_MONEY = 11
_ENDED = 2
"""So many runs that have ended are told of, however much there is of those that go on."""
_RECENT_S = 5
"""The rate that is told is that of so many of the last seconds."""
_CURVE = 60
"""Columns of a curve at most: five of its seconds each, when it is full."""


def screen(document: Mapping[str, Any], width: int, height: int) -> list[Text]:
    """The lines, none wider and not more of them than the terminal has."""
    runs, machines, ended = document["runs"], document["machines"], document["ended"]
    head = [_heading(document), Text()]
    unminded = list(chain.from_iterable(map(alone, machines)))
    tail = [*unminded, *map(_ended, ended)]
    room = height - len(head) - 2
    kept = min(len(tail), len(unminded) + _ENDED)
    blocks = _blocks(runs, width, room - kept - bool(kept))
    tail = tail[: max(kept, room - len(blocks) - 1)]
    nothing = [Text(NOTHING)] if not runs and not machines and not document["only"] else []
    lines = [*head, *nothing, *blocks, *([Text()] if blocks and tail else []), *tail]
    lines = [*lines[: max(1, height - 2)], Text(), Text(HINT, "dim")][:height]
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return lines


def _heading(document: Mapping[str, Any]) -> Text:
    runs, machines = document["runs"], document["machines"]
    parts = [f"{plural(len(runs), 'run')} going on"]
    if machines:
        parts.append(f"{plural(len(machines), 'machine')} that nobody minds")
    parts.append(f"{dollars(document['usd_per_h'])}/h now")
    parts.append(f"{dollars(document['usd_today'])} today")
    parts.append(f"{document['at'][11:19]} UTC")
    return Text("     ".join(parts), style="bold")


def _blocks(runs: Sequence[Mapping[str, Any]], width: int, room: int) -> list[Text]:
    """The most of each run that fits for all of them."""
    ways: tuple[Callable[[Mapping[str, Any], int], list[Text]], ...] = (_whole, _brief)
    for way in ways:
        shown = [way(run, width) for run in runs]
        lines = [line for i, block in enumerate(shown) for line in ([Text()] if i else []) + block]
        if len(lines) <= room:
            return lines
    lines = list(_table(runs, width)) if runs else []
    if len(lines) <= room:
        return lines
    fitting = max(0, room - 1)
    return [*lines[:fitting], Text(f"and {len(lines) - fitting} more", "dim")]


def _whole(run: Mapping[str, Any], width: int) -> list[Text]:
    lines = [*_headlines(run, width), *_identity(run)]
    for ended in run["phases"]:
        mark, style = ("✓", "green") if ended["ok"] else ("✗", "bold red")
        cells = _phase_cells(ended["name"], clock_time(ended["seconds"]), ended["usd"])
        lines.append(
            Text.assemble((mark, style), " ", cells, shortened(ended["note"], max(10, width - len(cells) - 2)))
        )
    lines += _present(run, width)
    lines += [Text(f"warning: {shortened(message, width - 9)}", "yellow") for message in run["warnings"]]
    return [*lines, *way_out(run)]


def _brief(run: Mapping[str, Any], width: int) -> list[Text]:
    """Its headline, its phases on a line with the one that is on before those that were, and how fast it goes."""
    now, line = run["phase"], Text()
    if now:
        line.append(f"▸ {now['name']} {whole_seconds(now['seconds'])}  ", "bold")
        line.append(f"{_advance(run, 12) or shortened(now['doing'], 60)}  ".lstrip())
    marks = (f"{'✓' if each['ok'] else '✗'} {each['name']} {clock_time(each['seconds'])}" for each in run["phases"])
    line.append("  ".join(marks), "dim")
    curve = _both_rates(run, max(8, (width - 50) // 2)) if run["rates"] else None
    return [*_headlines(run, width), line, *([curve] if curve else []), *way_out(run)]


def _headlines(run: Mapping[str, Any], width: int) -> list[Text]:
    """Which run, what it has cost, how long it takes; on as many lines as it needs."""
    lines = in_parts([run["run_id"], *money_and_time(run)], width)
    return [Text(line, style="bold") for line in lines]


def money_and_time(run: Mapping[str, Any]) -> Iterator[str]:
    """What a run has cost and takes; an empty text for what is unknown."""
    spent = dollars(run["usd"])
    yield f"{spent} of {dollars(run['max_cost_usd'])}" if run["max_cost_usd"] and spent else spent
    yield whole_seconds(run["seconds"])
    if run["client"] == "gone":
        yield "CLIENT GONE"
    elif run["client"] == "silent":
        yield f"no sign of its client for {whole_seconds(run['seen_s'])}"
    elif run["stopping"]:
        yield "letting go now" if run["stopping"]["now"] else "stopping, collecting, letting go"
    elif run["left_s"] is not None:
        in_all = f", {dollars(run['usd_at_end'])} in all" if run["usd_at_end"] else ""
        yield f"{about(run['left_s'])} left{in_all}"
    if run["deadline"]:
        yield f"lets itself go at {datetime.fromisoformat(run['deadline']):%H:%M} UTC"


def _identity(run: Mapping[str, Any]) -> Iterator[Text]:
    """What runs where."""
    engine, machine = run["engine"] or {}, run["machine"] or {}
    hardware = f"{machine['accelerator']} ×{machine['count']}" if machine.get("accelerator") else ""
    parts = [
        run["model"] or "",
        " ".join(filter(None, (engine.get("name"), engine.get("version")))),
        ", ".join(filter(None, (hardware, machine.get("provider"), machine.get("region")))),
        " ".join(f"#{tag}" for tag in run["tags"]),
    ]
    if line := "   ".join(filter(None, parts)):
        yield Text(line, "dim")


def _phase_cells(name: str, took: str, usd: float | None) -> str:
    return f"{name:<9} {took:>7}   {dollars(usd):<{_MONEY}}  "


def _present(run: Mapping[str, Any], width: int) -> Iterator[Text]:
    """The phase that is on, and how fast it goes."""
    now = run["phase"]
    if now is not None:
        cells = _phase_cells(now["name"], whole_seconds(now["seconds"]), _phase_usd(run))
        doing = _advance(run, 24 if width >= 100 else 12) or shortened(now["doing"], max(10, width - len(cells) - 2))
        yield Text.assemble(("▸ ", "bold cyan"), cells, doing)
    if now is not None and now["name"] == "drive" and run["driven"]:
        yield from _rates(run, width)
        if state := _engine_state(run["driven"]):
            yield Text(" " * _INDENT + state, "dim")
    yield from _hardware(run, width)


def _phase_usd(run: Mapping[str, Any]) -> float | None:
    """What the phase that is on has cost."""
    if run["usd"] is None:
        return None
    return max(0.0, float(run["usd"]) - sum(phase["usd"] or 0.0 for phase in run["phases"]))


def _advance(run: Mapping[str, Any], width: int) -> str:
    """How far the drive is."""
    driven, now = run["driven"], run["phase"]
    if not driven or not now or now["name"] != "drive":
        return ""
    share = driven["done"] / max(1, driven["expected"])
    level = "" if driven["unit"] == "point" else f"  level {driven['level']}"
    documents = f"{driven['documents_done']:,}/{plural(driven['documents'], driven['unit'])}"
    return f"{progress(share, width)}  {driven['done']:,}/{driven['expected']:,} requests{level}  {documents}"


def _rates(run: Mapping[str, Any], width: int) -> Iterator[Text]:
    """A curve each for prompt and output."""
    for kind, colour in (("prompt", "cyan"), ("output", "green")):
        values = (run["rates"] or {}).get(f"{kind}_tokens_per_s") or []
        now = recent(run, kind)
        line = Text(f"{'':{_INDENT}}{kind} {rate(now):>14}  ")
        if len(values) > 1:
            line.append(spark(values, min(_CURVE, width - 50)), colour)
            line.append(f"  peak {max(values):,.0f}", "dim")
        yield line


def _both_rates(run: Mapping[str, Any], curve: int) -> Text:
    line = Text("")
    for kind, colour in (("prompt", "cyan"), ("output", "green")):
        line.append(f"{'   ' if line else ''}{kind} {rate(recent(run, kind))} ")
        line.append(spark(run["rates"][f"{kind}_tokens_per_s"], min(30, curve)), colour)
    if run["gpus"]:
        used = " ".join("lost" if gpu["lost"] else _percent(gpu["utilization"]) for gpu in run["gpus"])
        line.append(f"   GPU {used}", "dim")
    return line


def recent(run: Mapping[str, Any], kind: str) -> float | None:
    """Tokens per second of late; where nothing is counted by the second, since the drive began."""
    values = (run["rates"] or {}).get(f"{kind}_tokens_per_s") or []
    if len(values) > 1:
        last = values[-_RECENT_S:]
        return float(sum(last) / len(last))
    return (run["driven"] or {}).get(f"{kind}_tokens_per_s")


def _engine_state(driven: Mapping[str, Any]) -> str:
    parts = [f"{name} {driven[name]:.0f}" for name in ("running", "waiting") if driven[name] is not None]
    if driven["kv_usage"] is not None:
        parts.append(f"KV {driven['kv_usage']:.0%}")
    return " · ".join(parts)


def _hardware(run: Mapping[str, Any], width: int) -> Iterator[Text]:
    for gpu in run["gpus"]:
        label = f"{'':{_INDENT}}GPU {gpu['index']} "
        if gpu["lost"] is not None:
            yield Text(f"{label}LOST  {shortened(gpu['lost'], 60)}", "bold red")
            continue
        parts = [_of_gpu(gpu), gpu["name"] or "", ", ".join(gpu["throttle"] or ())]
        yield Text(label + "  ".join(filter(None, parts)), "dim")
    if not run["gpus"] and (host := run["host"]) and host["cpu"] is not None:
        memory = _of(host["ram_used_mib"], host["ram_total_mib"])
        bar = gauge(host["cpu"], 10) if width >= 60 else ""
        parts = [f"CPU   {bar} {_percent(host['cpu'])}", memory and f"RAM {memory}"]
        yield Text(" " * _INDENT + "  ".join(filter(None, parts)), "dim")


def _of_gpu(gpu: Mapping[str, Any]) -> str:
    parts = []
    if gpu["utilization"] is not None:
        parts.append(f"{gauge(gpu['utilization'], 10)} {_percent(gpu['utilization']):>5}")
    parts.append(_of(gpu["memory_used_mib"], gpu["memory_total_mib"]))
    if gpu["power_w"] is not None:
        limit = f"/{gpu['power_limit_w']:.0f}" if gpu["power_limit_w"] else ""
        parts.append(f"{gpu['power_w']:.0f}{limit} W")
    if gpu["temperature_c"] is not None:
        parts.append(f"{gpu['temperature_c']:.0f} °C")
    return "  ".join(filter(None, parts))


def _of(used_mib: float | None, total_mib: float | None) -> str:
    if used_mib is None:
        return ""
    return f"{used_mib / 1024:,.1f}/{gib(total_mib / 1024)}" if total_mib else gib(used_mib / 1024)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def way_out(run: Mapping[str, Any]) -> list[Text]:
    """What to do where nobody minds a run any more."""
    if run["client"] != "gone":
        return []
    heard = f", last heard of {whole_seconds(run['seen_s'])} ago" if run["seen_s"] is not None else ""
    where = f" in {run['phase']['name']}" if run["phase"] else ""
    lease = run["lease"]
    bills = f"its machine may be billing {dollars(lease['usd_per_h'])}/h" if lease["usd_per_h"] else ""
    first = f"its client is gone{heard}{where}; {bills or 'what it started may still run'}"
    return [Text(first, "bold red"), *_commands(lease)]


def _commands(lease: Mapping[str, Any]) -> Iterator[Text]:
    """For a machine that nobody minds; what ran here died with its client."""
    if lease["provider"] != "local":
        yield Text(f"next: recipe attach {lease['run_id']} goes on there")
    yield Text(f"{'next:' if lease['provider'] == 'local' else '  or:'} recipe down {lease['run_id']} ends it")


def alone(machine: Mapping[str, Any]) -> list[Text]:
    """A machine that belongs to no run that is going on."""
    price = f" {dollars(machine['usd_per_h'])}/h" if machine["usd_per_h"] else ""
    spent = f", {dollars(machine['usd'])} so far" if machine["usd"] else ""
    what = f"{machine['name']} at {machine['provider']} may be billing{price}{spent}; nobody minds it"
    return [Text(what, "bold red"), *_commands(machine)]


def _table(runs: Sequence[Mapping[str, Any]], width: int) -> Iterator[Text]:
    """A line each."""
    longest = max(len(run["run_id"]) for run in runs)
    room = max(16, width - 46)
    for run in runs:
        now = run["phase"]
        mark = ("!", "bold red") if run["client"] == "gone" else ("▸", "bold cyan")
        name = run["run_id"] if longest <= room else _middle_cut(run["run_id"], room)
        cells = [
            f"{name:<{min(longest, room)}}",
            f"{now['name'] if now else '':<9}",
            f"{whole_seconds(run['seconds']):>7}",
            f"{dollars(run['usd']):>9}",
            f"{_share(run):>5}",
            f"{about(run['left_s']) + ' left' if run['left_s'] is not None else '':<18}",
            f"out {rate(recent(run, 'output'))}" if run["driven"] else "",
        ]
        while sum(map(len, cells)) + 2 * len(cells) > width and len(cells) > 1:
            cells.pop()
        yield Text.assemble(mark, " ", "  ".join(cells).rstrip())


def _share(run: Mapping[str, Any]) -> str:
    driven = run["driven"]
    return _percent(driven["done"] / driven["expected"]) if driven and driven["expected"] else ""


def _middle_cut(name: str, width: int) -> str:
    """A run's id is told apart by its end."""
    return name if len(name) <= width else f"{name[: width - 12]}…{name[-11:]}"


def _ended(run: Mapping[str, Any]) -> Text:
    good = run["status"] == "completed" and run["exit_code"] in (0, None)
    line = Text.assemble(("✓", "green") if good else ("✗", "bold red"), " ", ended_words(run))
    if run["report"]:
        line.append(f"   {run['report']}", "dim")
    return line


def ended_words(run: Mapping[str, Any]) -> str:
    """How a run ended, on a line."""
    took = f" in {clock_time(run['seconds'])}" if run["seconds"] is not None else ""
    words = {
        "completed": f"done{took}",
        "failed": f"failed{took}" + (f" ({run['phase']})" if run["phase"] else ""),
        "interrupted": f"interrupted{took}",
        "lost": "its client was lost" + (f" in {run['phase']}" if run["phase"] else ""),
    }
    billing = "MAY STILL BE BILLING: recipe reap" if run["exit_code"] == ExitCode.STILL_BILLING else ""
    speed = f"output {rate(run['output_tokens_per_s'])}" if run["output_tokens_per_s"] else ""
    how = words.get(run["status"], run["status"])
    parts = [run["run_id"], how, dollars(run["usd"]), speed, billing, f"{_ago(run['ago_s'])} ago"]
    return "   ".join(filter(None, parts))


def _ago(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:,.0f} min"


def about(seconds: float) -> str:
    """A time that nobody knows exactly: about 40 s, about 23 min, about 2 h 10 min."""
    if seconds < 7.5:
        return "a few seconds"
    if seconds < 90:
        return f"about {5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"about {minutes} min"
    hours, minutes = divmod(10 * round(minutes / 10), 60)
    return f"about {hours:,} h {minutes} min" if minutes else f"about {hours:,} h"
