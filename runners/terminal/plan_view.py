"""A plan on one screen, and a refusal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from runners.terminal.words import dollars, plural


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Offers, findings, the exact steps, the verdict."""
    work, engine = plan["workload"], plan["engine"]
    name = " ".join(filter(None, (engine["name"], engine["version"])))
    yield "   ".join(
        [plan["recipe"], plan["model"]["source"], name, f"{work['name']} {plural(work['documents'], 'file')}"]
    )
    yield ""
    yield from _offers(plan["offers"])
    yield (
        f"{'work':<10}{plural(work['requests'], 'request')} at first, {work['prompt_tokens']:,} prompt tokens, "
        f"the longest {work['longest_request_tokens']:,} tokens with its answer"
    )
    for i, finding in enumerate(plan["findings"]):
        label = "checks" if i == 0 else ""
        advice = f"; {finding['suggestion']}" if finding["suggestion"] else ""
        yield f"{label:<10}{finding['code']:<12} {finding['level']:<6} {finding['message']}{advice}"
    for i, step in enumerate(plan["steps"]):
        label = "steps" if i == 0 else ""
        yield f"{label:<10}{step['phase']:<10} {step.get('action') or shlex.join(step['argv'])}"
    yield ""
    yield f"go: {plan['command']}" if plan["verdict"] == "go" else "refused; nothing was rented"


def _offers(offers: list[dict[str, Any]]) -> Iterator[str]:
    """A line each, in the order in which they are tried."""
    rows = [_offer_cells(offer) for offer in offers]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for i, row in enumerate(rows):
        label, mark = ("offers", "   ← first" if len(rows) > 1 else "") if i == 0 else ("", "")
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True) if width)
        yield f"{label:<10}{'   '.join(cells).rstrip()}{mark}"


def _offer_cells(offer: dict[str, Any]) -> list[str]:
    what = f"{offer['accelerator']} ×{offer['count']}" if offer["accelerator"] else f"{offer['cpus']} CPUs"
    price = f"{dollars(offer['price_usd_per_h'])}/h" if offer["price_usd_per_h"] is not None else "no price given"
    own = offer["id"] if offer["id"] != offer["accelerator"] else ""
    memory = f"{offer['memory_gib']:.1f} GiB" if offer["memory_gib"] else ""
    spot = "spot" if offer["spot"] else ""
    return [
        offer["provider"],
        what,
        own,
        memory,
        offer["cloud"] or "",
        offer["region"] or "",
        offer["stock"] or "",
        spot,
        price,
    ]


def refusal_lines(plan: dict[str, Any]) -> Iterator[str]:
    """Why nothing was rented, and what would work."""
    blocks = [finding for finding in plan["findings"] if finding["level"] == "block"]
    for finding in blocks:
        yield f"refused   {finding['message']}"
        if finding["suggestion"]:
            yield f"          {finding['suggestion']}"
    yield f"nothing was rented for {plan['recipe']}      exit 3"
