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
            {
                "level": 1,
                "documents": 1,
                "requests": 84,
                "prompt_tokens": 243_600,
                "cached_prompt_tokens": 0,
                "output_tokens": 33_600,
            },
            {
                "level": 2,
                "documents": 1,
                "requests": 13,
                "prompt_tokens": 36_000,
                "cached_prompt_tokens": 0,
                "output_tokens": 5200,
            },
            {
                "level": 3,
                "documents": 1,
                "requests": 1,
                "prompt_tokens": 2900,
                "cached_prompt_tokens": 0,
                "output_tokens": 400,
            },
        ],
    }
    return {**found, **changes}


def past(**changes: Any) -> PastRun:
    found = past_run(result(**changes))
    assert found is not None
    return found
