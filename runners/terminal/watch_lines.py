"""All that is going on as lines, for a pipe and a log: what has changed, and now and then how far each run is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from runners.terminal.watch_view import NOTHING, alone, ended_words, money_and_time, recent, way_out
from runners.terminal.words import clock_time, dollars, rate, whole_seconds


def plain(
    before: Mapping[str, Any] | None, now: Mapping[str, Any], *, progress_due: bool, waits: bool = False
) -> Iterator[str]:
    """What has changed since the last document, as lines; how far each run is, if that is due.

    `waits`: it goes on also while nothing does.
    """
    known = {run["run_id"]: run for run in before["runs"]} if before else {}
    ended = {run["run_id"] for run in before["ended"]} if before else set()
    machines = {machine["name"] for machine in before["machines"]} if before else set()
    if not now["runs"] and not now["machines"] and not now["only"] and (before is None or known):
        yield f"{NOTHING}{'; this waits for what comes' if waits else ''}"
    for run in now["runs"]:
        yield from _plain_run(known.get(run["run_id"]), run, progress_due=progress_due)
    for machine in now["machines"]:
        if machine["name"] not in machines:
            yield from map(str, alone(machine))
    for run in reversed(now["ended"]):
        if run["run_id"] not in ended and (before is not None or now["only"]):
            yield ended_words(run)


def _plain_run(before: Mapping[str, Any] | None, run: Mapping[str, Any], *, progress_due: bool) -> Iterator[str]:
    run_id, phases = run["run_id"], run["phases"]
    for phase in phases[len(before["phases"]) if before else 0 :]:
        state = "done" if phase["ok"] else "FAILED"
        took = f"{phase['name']:<10} {state:<6} {clock_time(phase['seconds']):>8}"
        yield f"{run_id}   " + "  ".join(filter(None, [took, dollars(phase["usd"]), phase["note"]]))
    for message in run["warnings"]:
        if before is None or message not in before["warnings"]:
            yield f"{run_id}   warning: {message}"
    if before is None or before["client"] != run["client"]:
        yield from (f"{run_id}   {line}" for line in way_out(run))
    turned = before is None or (before["phase"] or {}).get("name") != (run["phase"] or {}).get("name")
    if turned or progress_due or (before or {}).get("client") != run["client"]:
        yield f"{run_id}   {'  '.join(_stand(run))}"


def _stand(run: Mapping[str, Any]) -> Iterator[str]:
    now, driven = run["phase"], run["driven"]
    if now:
        yield f"{now['name']:<10} {whole_seconds(now['seconds']):>8}"
        if now["name"] == "drive" and driven:
            yield f"{driven['done']:,}/{driven['expected']:,} requests"
            yield from (f"{kind} {rate(recent(run, kind))}" for kind in ("prompt", "output"))
        elif now["doing"]:
            yield now["doing"]
    yield from (part for part in money_and_time(run) if part)


def left_behind(document: Mapping[str, Any], ended: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What the terminal keeps when somebody leaves: how each run stands, and how each ended meanwhile."""
    for run in document["runs"]:
        yield f"{run['run_id']}   {'  '.join(_stand(run))}"
    for run in ended:
        yield ended_words(run)
        if run["report"]:
            yield f"report   {run['report']}"
