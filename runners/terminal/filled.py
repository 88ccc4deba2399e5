"""A result with all that its summary shows, also where an older recipe, or another machine, wrote less of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_NUMBER, _TEXT = object(), object()
"""A figure, or a text, that may be None."""
_TIMES = {"p50": _NUMBER, "p99": _NUMBER}
_EXPECTED: Mapping[str, Any] = {
    "run_id": "",
    "recipe": "",
    "recipe_digest": "",
    "git_commit": _TEXT,
    "started_at": "",
    "outcome": {"status": "unknown", "phase": _TEXT, "error": _TEXT, "advice": _TEXT},
    "exit_code": 0,
    "warnings": [""],
    "forced": [{"code": "", "message": ""}],
    "taken_over": [{"run_id": "", "answers": 0, "documents": 0}],
    "offer": {
        "provider": "",
        "id": "",
        "accelerator": _TEXT,
        "count": 0,
        "cpus": 0,
        "memory_gib": 0.0,
    },
    "model": {"source": ""},
    "engine": {"name": "", "version": _TEXT},
    "phases": [{"name": "", "started_at": "", "seconds": 0.0, "usd": _NUMBER}],
    "cost": {
        "price_usd_per_h": _NUMBER,
        "total_usd": _NUMBER,
        "billed_seconds": 0.0,
        "useful_fraction": 0.0,
        "forecast_usd": _NUMBER,
        "usd_per_document": _NUMBER,
        "usd_per_million_tokens": _NUMBER,
        "provider_usd": _NUMBER,
        "difference_share": _NUMBER,
    },
    "throughput": {
        "prompt_tokens": 0,
        "output_tokens": 0,
        "prompt_tokens_per_s": 0.0,
        "output_tokens_per_s": 0.0,
        "peak_at": [
            {
                "kind": "",
                "source": "",
                "at": "",
                "tokens_per_s": 0.0,
                "running": _NUMBER,
                "waiting": _NUMBER,
                "kv_usage": _NUMBER,
            }
        ],
        "peaks_note": [""],
        "counters_note": _TEXT,
    },
    "latency": {"ttft_s": _TIMES, "tpot_s": _TIMES, "e2e_s": _TIMES},
    "requests": {"ok": 0, "failed": 0, "retried": 0, "resumed": 0},
    "documents": {"done": 0, "total": 0, "unit": "document"},
    "release": {"name": _TEXT, "state": "unknown", "proof": "", "reason": "", "command": ""},
}
"""What takes the place of what is missing, or is something else than it should be."""


def filled(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result, with every field that a summary reads."""
    found: dict[str, Any] = _filled(result, _EXPECTED)
    for part, name in (("throughput", "engine_counters"), ("cost", "energy")):
        if not isinstance(found[part].get(name), dict):
            found[part][name] = None
    if not isinstance(found.get("workload"), dict) or "points" not in found["workload"]:
        found["workload"] = None
    return found


def _filled(value: Any, expected: Any) -> Any:
    match expected:
        case dict():
            known = value if isinstance(value, dict) else {}
            return {**known, **{name: _filled(known.get(name), each) for name, each in expected.items()}}
        case [each]:
            kind = dict if isinstance(each, dict) else str
            rows = value if isinstance(value, list) else []
            return [_filled(row, each) for row in rows if isinstance(row, kind)]
        case str():
            return value if isinstance(value, str) else expected
        case int() | float():
            return value if _is_number(value) else expected
    if expected is _TEXT:
        return value if isinstance(value, str) else None
    return value if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
