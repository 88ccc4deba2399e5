"""What would work: every suggestion is accepted, and more memory or fewer tokens never makes matters worse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provisioners.contract import Offer, Remedy
from runners.preflight.judge import judge_offer
from runners.preflight.question import Question
from runners.preflight.solve import remedies
from runners.preflight.table import known_offers
from tests.runners.preflight.questions import estimate, offer, question

A40S = offer(id="NVIDIA A40", accelerator="A40 48GB", memory_gib=48, count=3, price_usd_per_h=1.32)
CATALOGUE = [
    *(offer(count=n, price_usd_per_h=1.79 * n) for n in (1, 2, 4, 8)),
    *(
        offer(id="NVIDIA A40", accelerator="A40 48GB", memory_gib=48, count=n, price_usd_per_h=0.44 * n)
        for n in (1, 2, 4)
    ),
    *(offer(id="NVIDIA L4", accelerator="L4 24GB", memory_gib=24, count=n, price_usd_per_h=0.3 * n) for n in (1, 2)),
]


def works(asked: Question, refused: Offer, catalogue: Sequence[Offer] = CATALOGUE) -> tuple[Remedy, ...]:
    judged = judge_offer(asked, refused)
    assert not judged.passed
    return remedies(asked, judged, catalogue)


def test_the_cheapest_machines_that_work_come_first() -> None:
    found = works(question(tensor_parallel_size=3), A40S)
    assert [(remedy.overrides, remedy.price_usd_per_h) for remedy in found if "resources" in remedy.overrides[0]] == [
        (("resources.accelerators=A40-48GB:2", "engine.tensor_parallel_size=2"), 0.88),
        (("resources.accelerators=A100-PCIe-80GB:1", "engine.tensor_parallel_size=1"), 1.79),
    ]


def test_a_change_of_flags_alone_is_better_than_another_machine() -> None:
    found = works(question(tensor_parallel_size=3), A40S)
    assert found[0].overrides == ("engine.tensor_parallel_size=2",)


def test_the_longest_context_that_fits_is_suggested() -> None:
    # One A100: 79.15 − 64 GiB hold 15,150 tokens.
    asked = question(tensor_parallel_size=1, args={"context": 32_768})
    found = works(asked, offer(count=1), [])
    assert found[0].overrides == ("engine.args.context=15136",)


def test_two_problems_take_two_changes() -> None:
    asked = question(tensor_parallel_size=3, args={"context": 300_000})
    found = works(asked, offer(count=2), [])
    assert found[0].overrides == ("engine.tensor_parallel_size=2", "engine.args.context=4000")


def test_a_quantization_that_fits_is_suggested() -> None:
    found = works(question(tensor_parallel_size=1), offer(count=1, id="NVIDIA A40", memory_gib=48), [])
    assert ("engine.args.quantize=half",) in [remedy.overrides for remedy in found]


def test_a_disk_that_is_large_enough_is_suggested() -> None:
    asked = question(resources={"disk_size": "20GB"}, download_bytes=137_900_000_000)
    assert works(asked, offer(), [])[0].overrides == ("resources.disk_size=170GB",)


def test_smaller_chunks_are_suggested_where_the_context_is_too_short() -> None:
    asked = question(args={"context": 2048}, estimate=estimate(longest_request_tokens=4000))
    changes = [remedy.overrides for remedy in works(asked, offer(), [])]
    assert changes[0] == ("engine.args.context=94288",)
    assert ("workload.chunk_size=1448",) in changes


def test_what_costs_too_much_is_not_suggested() -> None:
    asked = question(tensor_parallel_size=3, limits={"max_price": 0.9})
    prices = [remedy.price_usd_per_h for remedy in works(asked, A40S) if remedy.price_usd_per_h]
    assert max(prices) <= 1.32, "its own price is the refused offer's"
    assert all(price <= 0.9 for price in prices)


@pytest.mark.parametrize(
    ("limits", "change"),
    [({"max_price": 3}, "limits.max_price=3.58"), ({"max_cost": 0.01}, "limits.max_cost=")],
)
def test_a_limit_that_is_too_low_for_everything_is_told(limits: dict[str, Any], change: str) -> None:
    (remedy,) = works(question(limits=limits), offer(), [])
    assert remedy.overrides[0].startswith(change)


def test_the_table_serves_where_no_provider_answers() -> None:
    found = works(question(tensor_parallel_size=3), A40S, known_offers("runpod"))
    assert any("resources.accelerators" in override for remedy in found for override in remedy.overrides)


gpus = st.sampled_from(known_offers("runpod"))
questions = st.builds(
    lambda size, context, longest, chunk: question(
        tensor_parallel_size=size,
        args={"context": context},
        workload={"chunk_size": chunk, "chunk_overlap": 0},
        estimate=estimate(longest_request_tokens=min(longest, chunk + 600)),
    ),
    st.sampled_from([1, 2, 3, 4, 5, 8]),
    st.sampled_from([512, 2048, 4096, 32_768, 131_072]),
    st.integers(100, 20_000),
    st.sampled_from([100, 1000, 3000, 16_000]),
)


@settings(max_examples=60, deadline=None)
@given(questions, gpus)
def test_every_suggestion_is_accepted(asked: Question, refused: Offer) -> None:
    judged = judge_offer(asked, refused)
    if judged.passed:
        return
    catalogue = known_offers("runpod")
    for remedy in remedies(asked, judged, catalogue):
        changed = asked.changed(remedy.overrides)
        wanted = changed.recipe.resources.accelerators
        assert wanted is not None
        same_machine = not any("accelerators" in override for override in remedy.overrides)
        offers = [refused] if same_machine else [o for o in catalogue if o.accelerator == wanted.name]
        assert any(judge_offer(changed, o).passed for o in offers if same_machine or o.count == wanted.count)


@settings(max_examples=60, deadline=None)
@given(questions, gpus, st.integers(1, 64), st.integers(0, 3000))
def test_more_memory_or_fewer_tokens_never_turns_fits_into_does_not(
    asked: Question, one: Offer, more_gib: int, fewer: int
) -> None:
    if not judge_offer(asked, one).passed:
        return
    usable = judge_offer(asked, one).memory.usable_gib_per_gpu  # type: ignore[union-attr]
    roomier = offer(
        id=one.id, accelerator=one.accelerator, count=one.count, memory_gib=one.memory_gib, usable_gib=usable + more_gib
    )
    assert judge_offer(asked, roomier).passed
    shorter = max(1, asked.estimate.longest_request_tokens - fewer)
    assert judge_offer(question_with(asked, shorter), one).passed


def question_with(asked: Question, longest: int) -> Question:
    from dataclasses import replace

    return replace(asked, estimate=replace(asked.estimate, longest_request_tokens=longest))


def test_answers_that_leave_room_for_the_prompt_are_suggested() -> None:
    work = {"chunk_size": 1500, "chunk_overlap": 0, "max_tokens": 1000}
    asked = question(args={"context": 2048}, workload=work, estimate=estimate(longest_request_tokens=2500))
    changes = [remedy.overrides for remedy in works(asked, offer(), [])]
    assert ("workload.max_tokens=548",) in changes
