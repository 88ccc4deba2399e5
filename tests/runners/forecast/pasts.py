"""Earlier runs, as their result.json says."""

from __future__ import annotations

from typing import Any

from runners.forecast.history import PastRun, past_run


def result(**changes: Any) -> dict[str, Any]:
    """A completed run of the 70B model on two A100; `changes` replace whole sections."""
    found: dict[str, Any] = {
        "run_id": "book-1",
        "outcome": {"status": "completed"},
        "offer": {
            "provider": "runpod",
            "id": "NVIDIA A100 80GB PCIe",
            "accelerator": "A100 PCIe 80GB",
            "count": 2,
            "cpus": None,
        },
        "engine": {"name": "vllm", "version": "0.32.0", "parallel": [2, 1, 1], "args": {}},
        "model": {"identifier": "some/model", "commit": None},
        "phases": [
            {"name": "plan", "seconds": 2.0},
            {"name": "provision", "seconds": 100.0},
            {"name": "prepare", "seconds": 500.0},
            {"name": "launch", "seconds": 140.0},
            {"name": "drive", "seconds": 605.0},
            {"name": "collect", "seconds": 1.0},
            {"name": "release", "seconds": 12.0},
        ],
        "prepared": {"installed": True, "downloaded_bytes": 138_000_000_000},
        "work": work(),
    }
    return {**found, **changes}


def work(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "concurrency": 20,
        "max_tokens": 1000,
        "prompt": "p",
        "seconds": 600.0,
        "ttft_s": 8.0,
        "e2e_s": 100.0,
        "output_tokens": 400.0,
        "output_spread": 0.3,
        "truncated": 0,
        "levels": [
            _level(1, 84, 243_600),
            _level(2, 14, 38_000),
            _level(3, 3, 6400),
            _level(4, 1, 1300),
        ],
    }
    return {**found, **changes}


def past(**changes: Any) -> PastRun:
    found = past_run(result(**changes))
    assert found is not None
    return found


def _level(number: int, requests: int, prompt_tokens: int) -> dict[str, int]:
    return {
        "level": number,
        "documents": 1,
        "requests": requests,
        "prompt_tokens": prompt_tokens,
        "cached_prompt_tokens": 0,
        "output_tokens": 400 * requests,
    }
