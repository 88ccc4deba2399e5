"""The page of one run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runners.reporting.figures import Figures, bounded
from runners.reporting.logs import excerpts_of
from runners.reporting.page import rendered
from runners.reporting.reading import Run
from runners.reporting.series import latency_charts, moments_table, panels_of, time_chart
from runners.reporting.texts import Texts, texts_of

PHASES = ("before", "plan", "provision", "prepare", "launch", "drive", "keep", "collect", "release")
CAUSES = (
    ("boot", "starting the machine"),
    ("download", "download"),
    ("load", "loading the model"),
    ("waiting", "waiting"),
    ("letting_go", "letting go"),
    ("kept", "kept afterwards"),
)
_MOST_EVENTS, _MOST_FILES, _MOST_WARNINGS, _MOST_ERRORS, _MOST_SLOW = 400, 300, 30, 30, 10
_WORDS = {"completed": "done in", "failed": "failed in {phase} after", "interrupted": "interrupted in {phase} after"}


def run_page(run: Run) -> bytes:
    """report.html of a run, whatever it left."""
    result = run.result
    panels = panels_of(run)
    over_time = time_chart(run, panels)
    latency = latency_charts(run)
    load = _load(result)
    texts = Texts() if load else texts_of(run)
    logs = excerpts_of(run.folder.path, failed=result["outcome"]["status"] == "failed")
    charts: dict[str, Any] = {}
    if panels:
        charts["time"] = over_time
    if latency:
        charts["latency"] = latency
    if load:
        charts["load"] = _load_chart(load)
    shown = {
        "phases": "Time and money",
        "time": "Over time" if panels or latency else "",
        "latency": "Latency" if latency else "",
        "load": "Load" if load else "",
        "texts": "Texts" if texts.documents else "",
        "requests": "Requests",
        "plan": "Recipe and plan",
        "log": "Log" if logs else "",
        "events": "Events and files",
    }
    return rendered(
        "run.html",
        title=f"{result['run_id']} · recipe",
        charts=charts,
        r=result,
        n=Figures(result),
        words=status_words(result),
        unit=result["documents"].get("unit", "document"),
        machine=machine_words(result),
        sections=[(id_, name) for id_, name in shown.items() if name],
        warnings=bounded(result["warnings"], _MOST_WARNINGS),
        own_peak=_own_peaks(result),
        known_phases=PHASES,
        phase_bar=phase_bar(result),
        money_bar=_money_bar(result),
        idle=_idle(result),
        forecast=_forecast(result),
        panels=panels,
        latency=latency,
        moments=moments_table(over_time, panels),
        load=load,
        texts=texts,
        requests=_requests(run),
        plan=run.plan,
        resolved=run.resolved,
        recipe_text=run.recipe_text,
        logs=logs,
        events=_events(run),
        artifacts=bounded(result["artifacts"], _MOST_FILES),
        folder=str(run.folder.path),
    )


def status_words(result: Mapping[str, Any]) -> str:
    """done in, failed in launch after."""
    outcome = result["outcome"]
    return str(_WORDS.get(outcome["status"], outcome["status"])).format(phase=outcome.get("phase"))


def machine_words(result: Mapping[str, Any]) -> str:
    """local vm: 2 × A100, 23.5 GiB."""
    offer = result["offer"]
    count, accelerator = offer.get("count"), offer.get("accelerator")
    hardware = f"{count} × {accelerator}" if accelerator else f"{offer['cpus']} CPUs" if offer.get("cpus") else ""
    memory = f"{offer['memory_gib']:.1f} GiB" if offer.get("memory_gib") else ""
    place = " ".join(str(offer[name]) for name in ("provider", "region") if offer.get(name))
    return ": ".join(filter(None, [place, ", ".join(filter(None, [hardware, memory]))]))


def phase_bar(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each phase with its part of the run in percent."""
    return _bar([(p["name"] if p["name"] in PHASES else "keep", p["name"], p["seconds"]) for p in result["phases"]])


def _bar(parts: Sequence[tuple[str, str, float | None]]) -> list[dict[str, Any]]:
    total = sum(amount or 0.0 for _, _, amount in parts)
    if total <= 0:
        return []
    return [
        {"key": key, "name": name, "percent": 100 * amount / total}
        for key, name, amount in parts
        if amount is not None and amount > 0
    ]


def _idle(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The causes of idle time that cost something."""
    cost = result["cost"]
    seconds = cost.get("idle_seconds") or {}
    known = [*CAUSES, *((name, name) for name in seconds if name not in dict(CAUSES))]
    return [(cause, label) for cause, label in known if seconds.get(cause)]


def _money_bar(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    cost = result["cost"]
    spent = cost.get("idle_usd") or {}
    if not spent or cost.get("useful_usd") is None:
        return []
    return _bar([("useful", "requests running", cost["useful_usd"])] + [(c, w, spent.get(c)) for c, w in CAUSES])


def _forecast(result: Mapping[str, Any]) -> dict[str, int]:
    """Where each phase stands in the forecast."""
    rows = (result.get("forecast") or {}).get("phases") or []
    return {row["name"]: i for i, row in enumerate(rows)}


def _own_peaks(result: Mapping[str, Any]) -> dict[str, int | None]:
    """Where the peaks stand that the requests themselves saw."""
    peaks = result["throughput"]["peak_at"]
    return {
        kind: next((i for i, p in enumerate(peaks) if p["kind"] == kind and p["source"] == "requests"), None)
        for kind in ("prompt", "output")
    }


def _load(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """The points of a load, with what marks them."""
    load = result.get("workload") or {}
    if load.get("kind") != "load" or not load.get("points"):
        return None
    limits = (load.get("traffic") or {}).get("slo") or {}
    slo = ", ".join(f"{name.upper()} {limit}" for name, limit in limits.items() if limit)
    return {**load, "slo": slo, "marks": [_marks(point, load) for point in load["points"]]}


def _marks(point: Mapping[str, Any], load: Mapping[str, Any]) -> str:
    marks = {
        "knee": point["name"] == load.get("knee"),
        "saturated": bool(point.get("saturated")),
        "best goodput": point["name"] == load.get("best_goodput"),
        "client lags": bool(point.get("client_lags")),
        "unfinished": not point.get("finished", True),
    }
    return ", ".join(mark for mark, holds in marks.items() if holds)


def _load_chart(load: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": point["name"],
            "mark": load["marks"][i],
            "requests_per_s": point["requests_per_s"],
            "output": point["output_tokens_per_s"],
            "ttft_p50": point["latency"]["ttft_s"]["p50"],
            "ttft_p99": point["latency"]["ttft_s"]["p99"],
            "e2e_p50": point["latency"]["e2e_s"]["p50"],
            "e2e_p99": point["latency"]["e2e_s"]["p99"],
        }
        for i, point in enumerate(load["points"])
    ]


def _requests(run: Run) -> dict[str, Any]:
    """How many, why some failed, and which took longest."""
    records = run.requests
    groups: dict[str, list[str]] = {}
    for record in records:
        if record.error:
            groups.setdefault(record.error[:500], []).append(record.id)
    errors = sorted(((error, len(ids), ids[0]) for error, ids in groups.items()), key=lambda row: -row[1])
    return {
        "count": len(records),
        "truncated": sum(record.finish_reason == "length" for record in records) if _load(run.result) is None else 0,
        "errors": errors[:_MOST_ERRORS],
        "more_errors": max(0, len(errors) - _MOST_ERRORS),
        "slowest": sorted(records, key=lambda record: -record.e2e_s)[:_MOST_SLOW],
    }


def _events(run: Run) -> tuple[list[tuple[str, str, str]], int]:
    """When, which, and what it says; the first and the last of very many."""
    rows = run.events
    left_out = max(0, len(rows) - _MOST_EVENTS)
    shown = [*rows[: _MOST_EVENTS // 2], *rows[-_MOST_EVENTS // 2 :]] if left_out else rows
    return [(str(row.get("at", ""))[11:23], str(row.get("event", "")), _said(row)) for row in shown], left_out


def _said(row: Mapping[str, Any]) -> str:
    values = {key: value for key, value in row.items() if key not in ("at", "event") and value not in ("", None)}
    return ", ".join(f"{key} {round(v, 6) if isinstance(v, float) else v}" for key, v in values.items())
