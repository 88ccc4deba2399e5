"""Hardware as people read it: offers, what is known of accelerators, what serves a model."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from provisioners.accelerators import all_known
from runners.terminal.fit_view import fit_lines
from runners.terminal.offers_view import known_lines, offer_lines
from tests.terminal.plans import offer

WIDTHS = [80, 100, 140, None]


def plain(lines: Any) -> list[str]:
    return [line.plain for line in lines]


def offered(name: str, count: int, price: float | None, **more: Any) -> dict[str, Any]:
    return {**offer(name, count, price), "accelerators": name, "usable_gib": 79.2, **more}


def fit(accelerator: str, count: int, price: float | None, **more: Any) -> dict[str, Any]:
    return {
        "accelerator": accelerator,
        "count": count,
        "price_usd_per_h": price,
        "stock": "high",
        "cloud": "secure",
        "provider": "runpod",
        "id": accelerator,
        "verdict": "fits",
        "reason": "",
        "tensor_parallel_size": count,
        "pipeline_parallel_size": 1,
        "usable_gib_per_gpu": 44.4,
        "weights_gib_per_gpu": 32.1,
        "kv_gib_per_gpu": 8.0,
        "kv_tokens": 98800,
        "context": 4096,
        "longest_context": 4096,
        "at_once": 24,
        "overrides": [f"resources.accelerators={accelerator}:{count}", f"engine.tensor_parallel_size={count}"],
        "warnings": [],
        **more,
    }


def document(*rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    engine = {"name": "vllm", "version": "0.33.0"}
    return {
        "fits": list(rows),
        "model": "owner/model",
        "engine": engine,
        "prices": "runpod, now",
        "warnings": [],
        **more,
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_offers_stand_below_each_other_with_the_price_of_one(width: int | None) -> None:
    rows = [offered("A40-48GB", 1, 0.44), offered("H200-SXM-141GB", 8, 31.92, stock="none", region="US-KS-2")]
    lines = plain(offer_lines(rows, width, more=3))
    assert width is None or max(map(len, lines)) <= width
    assert "$31.92" in lines[2]
    assert "$3.99" in lines[2]
    assert "secure US-KS-2" in lines[2]
    assert lines[1].index("$0.44") + 5 == lines[2].index("$31.92") + 6
    assert lines[-1].startswith("and 3 with more of them")


def test_an_unknown_price_is_not_a_price_of_nothing() -> None:
    lines = plain(offer_lines([offered("A40-48GB", 1, None)], 100))
    assert "?" in lines[1]
    assert "$0" not in lines[1]


@pytest.mark.parametrize("width", WIDTHS)
def test_what_is_known_of_accelerators_fits_the_screen(width: int | None) -> None:
    rows = [asdict(one) for one in all_known()]
    lines = plain(known_lines(rows, width))
    assert width is None or max(map(len, lines)) <= width
    a100 = next(line for line in lines if line.startswith("A100-80GB "))
    assert "79.2 GiB" in a100
    assert "8.0" in a100


@pytest.mark.parametrize("width", WIDTHS)
def test_what_serves_a_model_is_a_row_each_and_a_way_on(width: int | None) -> None:
    rows = [
        fit("A40-48GB", 4, 1.76),
        fit("A100-PCIe-80GB", 2, 3.58, verdict="queues", reason="11 of 20 requests at once", at_once=11),
        fit("L4-24GB", 8, 3.44, verdict="no", reason="16.1 GiB on each L4 do not fit", kv_tokens=None),
        fit("H100-SXM-80GB", 1, 3.99, warnings=["the cache may be small"], tensor_parallel_size=1),
    ]
    lines = plain(fit_lines(document(*rows), width))
    read = " ".join(" ".join(lines).split())
    assert width is None or max(map(len, lines)) <= width
    assert "fits 11 of 20 requests at once" in read
    assert "no: 16.1 GiB on each L4 do not fit" in read
    assert "fits *" in read
    assert "* the cache may be small" in read
    assert "TP 4" in read
    assert "--set resources.accelerators=A40-48GB:4" in read
    figures = [line for line in lines if "×" in line]
    assert len(figures) == 4
    assert len({line.index("$") for line in figures}) == 1


def test_a_long_list_is_cut_and_says_so() -> None:
    rows = [fit("A40-48GB", n, float(n)) for n in range(1, 9)]
    lines = plain(fit_lines(document(*rows), 100, limit=3))
    assert sum("×" in line for line in lines) == 3
    assert any("and 5 more; --limit 0 shows all" in line for line in lines)


def test_where_nothing_serves_it_the_reason_stands_there() -> None:
    read = " ".join(plain(fit_lines(document(prices="no prices: runpod was not asked"), 100, why_not="too large")))
    assert "none serves it: too large" in read
    assert "no prices: runpod was not asked" in read


def test_whose_prices_they_are_is_said_even_if_nothing_serves_it() -> None:
    read = " ".join(plain(fit_lines(document(), 100, why_not="too large")))
    assert "prices: runpod, now" in read


def test_what_was_assumed_of_the_model_stands_below() -> None:
    lines = plain(fit_lines(document(fit("A40-48GB", 4, 1.76), warnings=["its architecture is not known"]), 100))
    assert "warning   its architecture is not known" in lines
