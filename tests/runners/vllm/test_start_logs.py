"""Published start logs of vLLM 0.2 to 0.31: would it start, and how many tokens does its KV cache hold?

Each row of start_logs.jsonl names its source. The thresholds are what the rules must keep to, not what they reach.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from runners.case import Assessment
from runners.engines.vllm import PLUGIN
from runners.modelfacts.config import Stored, facts_of
from runners.modelfacts.facts import ModelFacts, Tensors
from tests.runners.vllm.building import blocks, case

HERE = Path(__file__).parent
CONFIGS = json.loads((HERE / "start_logs_configs.json").read_text())
ROWS = [json.loads(line) for line in (HERE / "start_logs.jsonl").read_text().splitlines()]
GIB = 2**30


def facts(row: dict[str, Any]) -> ModelFacts:
    # What an index would say, for checkpoints whose config does not tell what is quantized.
    stored = Stored(bytes=int(row["stored_gib"] * GIB), exact=False) if "stored_gib" in row else None
    found = facts_of(CONFIGS[row["model"]], identifier=row["model"], stored=stored)
    if size := int(row.get("vision_gib", 0) * GIB):
        # What files' headers would say of the part that sees, which a config does not.
        tower = Tensors(module="vision", dtype="BF16", elements=size // 2, bytes=size)
        found = dataclasses.replace(found, tensors=(*found.tensors, tower))
    return found


def judged(row: dict[str, Any]) -> Assessment:
    sizes = {key: row[key] for key in ("tensor_parallel_size", "pipeline_parallel_size") if key in row}
    given = case(
        facts(row), row["accelerator"], version=row["version"], env=row.get("env"), **sizes, **row.get("args", {})
    )
    return PLUGIN.assess(given)


JUDGED = [(row, judged(row)) for row in ROWS]


def name(row: dict[str, Any]) -> str:
    return f"{row['version']}-{row['model'].split('/')[-1]}-{row['accelerator']}"


STARTED = [(row, assessment) for row, assessment in JUDGED if row["starts"]]


@pytest.mark.parametrize(("row", "assessment"), STARTED, ids=[name(row) for row, _ in STARTED])
def test_what_started_is_not_refused(row: dict[str, Any], assessment: Assessment) -> None:
    assert blocks(assessment) == [], row["source"]


def test_nearly_every_verdict_is_right() -> None:
    right = [row["starts"] == (not blocks(assessment)) for row, assessment in JUDGED]
    assert len(right) >= 150
    assert sum(right) / len(right) >= 0.95


def test_the_cache_has_nearly_the_size_that_was_logged() -> None:
    errors, shares = [], []
    for row, assessment in JUDGED:
        # What shares its GPU says more of the other process; the rules suppose an idle machine.
        if row.get("kv_tokens") and not row.get("shared") and (memory := assessment.memory):
            difference = memory.kv_tokens - row["kv_tokens"]
            errors.append(abs(difference) / row["kv_tokens"])
            shares.append(abs(difference) * memory.kv_bytes_per_token / GIB / memory.usable_gib_per_gpu)
    assert len(errors) >= 95
    assert statistics.median(errors) <= 0.04
    assert statistics.quantiles(shares, n=10)[-1] <= 0.05  # of the GPU's memory


def test_the_sources_are_named() -> None:
    assert all(row["source"].startswith("https://") for row in ROWS)
