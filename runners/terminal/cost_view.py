"""What a run cost, as people read it: the headline's figures, where the money went, the provider's bill beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from runners.terminal.tables import aligned_table
from runners.terminal.words import clock_time, dollars

_WORDS = {"letting_go": "letting go"}
_BY_ENERGY = "energy"
_TOLD = 0.02
"""A cause is named from this share of all idleness on."""


def cost_parts(result: Mapping[str, Any]) -> Iterator[str]:
    """For the headline: the total, what was forecast, how much of it was useful, and what that makes for each part."""
    cost, unit = result["cost"], result["documents"].get("unit", "document")
    # What was taken over, or cut short, is not what was forecast.
    whole = result["outcome"]["status"] == "completed" and result.get("forecast") is not None
    forecast = f" (forecast {dollars(cost['forecast_usd'])})" if whole and cost.get("forecast_usd") else ""
    kind = " of electricity" if cost.get("priced_by") == _BY_ENERGY else ""
    if cost["total_usd"] is not None:
        yield f"{dollars(cost['total_usd'])}{kind}{forecast if cost['total_usd'] else ''}"
    yield f"useful {cost['useful_fraction']:.0%}"
    if cost["usd_per_document"] is not None:
        yield f"{dollars(cost['usd_per_document'])} per {unit}"
    per_million = cost.get("usd_per_million_tokens")
    if per_million is not None:
        yield f"{dollars(per_million)} per million tokens"


def idle_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What was paid for while no request was under way, the dearest cause first; seconds where nothing has a price."""
    cost = result["cost"]
    seconds, usd = cost.get("idle_seconds"), cost.get("idle_usd")
    if not seconds or not any(seconds.values()):
        return
    known = bool(usd) and any(value for value in usd.values())
    amounts, words = (usd, dollars) if known else (seconds, clock_time)
    total = sum(amounts.values())
    causes = sorted((cause for cause in amounts if amounts[cause] >= _TOLD * total), key=lambda cause: -amounts[cause])
    parts = [f"{_name_of(cause, result)} {words(amounts[cause])}" for cause in causes]
    rest = total - sum(amounts[cause] for cause in causes)
    parts += [f"the rest {words(rest)}"] if rest > _TOLD**2 * total else []
    yield f"idle         {words(total)}: {' · '.join(parts)}"


def _name_of(cause: str, result: Mapping[str, Any]) -> str:
    """A download that was none is looking for what is there."""
    prepared = result.get("prepared") or {}
    if cause == "download" and prepared.get("downloaded_bytes") == 0 and not prepared.get("installed"):
        return "prepare"
    return _WORDS.get(cause, cause)


def energy_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What was taken from the wall, where that was measured, and how much of the time that is."""
    energy, billed = result["cost"].get("energy"), result["cost"]["billed_seconds"]
    if not energy:
        return
    each = ", ".join(
        f"{name} {energy[key]:,.3g} Wh"
        for name, key in (("GPU", "gpu_wh"), ("CPU", "cpu_wh"))
        if energy[key] is not None
    )
    usd = f"   {dollars(energy['usd'])}" if energy["usd"] is not None else ""
    seen = f", seen for {clock_time(energy['covered_seconds'])} of {clock_time(billed)}"
    yield f"energy       {energy['total_wh']:,.3g} Wh{usd}   {each} ({energy['source']}{seen})"


def bill_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The provider's own account beside ours, where it gives one."""
    cost = result["cost"]
    if cost.get("provider_usd") is None:
        return
    ours = ""
    if cost["total_usd"] is not None:
        share = cost.get("difference_share")
        ours = f"; by our count {dollars(cost['total_usd'])}" + (
            "" if share is None else f", it differs by {share:+.1%}"
        )
    yield f"bill         {result['offer']['provider']} says {dollars(cost['provider_usd'])} so far{ours}"


def phase_table(result: Mapping[str, Any]) -> Table:
    """Where the time and the money went."""
    total = sum(phase["seconds"] for phase in result["phases"])
    rows = [
        [phase["name"], clock_time(phase["seconds"]), dollars(phase["usd"]), f"{phase['seconds'] / (total or 1.0):.0%}"]
        for phase in result["phases"]
    ]
    cost = result["cost"]
    rows.append(["total", clock_time(total), dollars(cost["total_usd"]), ""])
    if cost.get("storage_usd"):
        rows.append(["of it disks", "", dollars(cost["storage_usd"]), ""])
    return aligned_table(("phase", "time", "cost", "share"), rows, right=("time", "cost", "share"))
