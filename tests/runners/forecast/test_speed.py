"""The roofline against what was published, and the sum over levels against a simulation of every step."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioners.accelerators import Machine
from runners.forecast.speed import Answers, Parallel, Speed, drive_s, speed_of
from runners.forecast.work import LIKELY_SHARE, Group, Joining, Level, Work
from runners.pace import EnginePace
from tests.runners.forecast.situations import (
    LLAMA_70B,
    MISTRAL_7B,
    MIXTRAL_8X7B,
    book,
    machine,
    model,
    speed,
    spoken_for,
)

SAME = Answers(max_tokens=1000, spread=0.0)


def made_up(**changes: float) -> Speed:
    fields: dict[str, float] = {
        "request_s": 0.01,
        "token_s": 0.0003,
        "pair_s": 0.0,
        "step_s": 0.02,
        "weights_s": 0.03,
        "sequence_s": 0.0005,
        "context_s": 1e-7,
    }
    return Speed(**{**fields, **changes})  # type: ignore[arg-type]


def level(requests: float, prompt: float = 3000, answer: float = 300) -> Level:
    return Level(
        number=1,
        documents=1,
        requests=requests,
        prompt_tokens=requests * prompt,
        output_tokens=requests * answer,
    )


def test_the_published_peaks_of_two_a100_with_a_70b_model() -> None:
    """vLLM 0.2.1, airoboros-l2-70b, De Orbe Novo: 3,221 prompt tokens/s; 157 from 15 sequences in 78 % of the cache."""
    found = speed(model(LLAMA_70B), machine("A100-80GB", 2), tensor_parallel_size=2, version="0.2.1")
    assert 2900 / found.prefill_s(2900) == pytest.approx(3221, rel=0.4)
    context = 0.783 * 2593 * 16 / 15
    assert 15 / found.decode_step_s(15, context) == pytest.approx(156.8, rel=0.4)


def test_the_published_book_on_one_3090() -> None:
    """airoboros-m-7b, Frankenstein: 47 chunks of 3,000 tokens over one connection took 472.67 s."""
    found = speed(model(MISTRAL_7B), machine("RTX3090", 1), version="0.2.1")
    levels = book(47).levels(LIKELY_SHARE * 1000)
    assert drive_s(levels, found, 1, SAME, round_trip_s=0.0) == pytest.approx(472.67, rel=0.4)


def test_experts_are_read_as_far_as_tokens_use_them() -> None:
    """Two of eight experts for one token; nearly all of them for many."""
    sparse = speed(model(MIXTRAL_8X7B), machine("A100-80GB", 2), tensor_parallel_size=2)
    steps = [sparse.decode_step_s(running, 0) - sparse.step_s for running in (1, 32)]
    whole = sparse.weights_s + sparse.experts_s
    assert steps[0] == pytest.approx(sparse.weights_s + sparse.experts_s / 4, rel=0.05)
    assert steps[1] == pytest.approx(whole, rel=0.1)
    dense_arithmetic = speed(model(MISTRAL_7B), machine("A100-80GB", 2), tensor_parallel_size=2)
    assert sparse.token_s < 3 * dense_arithmetic.token_s, "a token passes two of eight experts"


def test_an_unknown_model_is_a_guess_and_says_so() -> None:
    assert "guess" in speed_of(None, Machine(), Parallel(), EnginePace()).basis


def test_replicas_share_the_requests() -> None:
    one, two = made_up(), made_up(replicas=2)
    levels = [level(100)]
    assert drive_s(levels, two, 20, SAME, round_trip_s=0) < drive_s(levels, one, 20, SAME, round_trip_s=0)


def test_the_longest_answer_ends_a_level() -> None:
    same, spread = Answers(1000, 0.0), Answers(1000, 0.5)
    cut = Answers(310, 0.5)
    times = [drive_s([level(20)], made_up(), 20, answers, round_trip_s=0) for answers in (same, cut, spread)]
    assert times[0] < times[1] < times[2]


def test_a_round_trip_lies_between_requests_of_one_place() -> None:
    without, with_it = (drive_s([level(40)], made_up(), 4, SAME, round_trip_s=s) for s in (0.0, 1.0))
    assert with_it - without == pytest.approx(10)


NAMES = ("A100-80GB", "RTX3090", "H100-80GB", "L4")


@given(
    st.sampled_from(NAMES),
    st.floats(1.0, 4.0),
    st.floats(1.0, 4.0),
    st.integers(1, 120),
    st.floats(1, 900),
    st.integers(1, 64),
)
def test_more_bandwidth_and_more_arithmetic_are_never_slower(
    name: str, bandwidth: float, arithmetic: float, chunks: int, answer: float, slots: int
) -> None:
    base = machine(name, 1)
    assert base.accelerator is not None
    better = replace(
        base.accelerator,
        bandwidth_gb_s=base.accelerator.bandwidth_gb_s * bandwidth,
        tflops={kind: value * arithmetic for kind, value in base.accelerator.tflops.items()},
    )
    facts, levels = model(MISTRAL_7B), book(chunks).levels(answer)
    times = [
        drive_s(levels, speed_of(facts, one, Parallel(), spoken_for(facts, one)), slots, SAME, round_trip_s=0.003)
        for one in (base, replace(base, accelerator=better))
    ]
    assert times[1] <= times[0] * (1 + 1e-9)


@given(
    st.integers(1, 200),
    st.integers(0, 20),
    st.floats(50, 3000),
    st.floats(1, 500),
    st.integers(1, 64),
    st.floats(0.3, 1.0),
    st.floats(0.3, 1.0),
)
def test_fewer_tokens_and_fewer_requests_never_take_longer(
    requests: int, more: int, prompt: float, answer: float, slots: int, less_prompt: float, less_answer: float
) -> None:
    answers = Answers(1000, 0.4)
    whole = drive_s([level(requests + more, prompt, answer)], made_up(), slots, answers, round_trip_s=0.01)
    less = [
        level(requests, prompt, answer),
        level(requests, prompt * less_prompt, answer),
        level(requests, prompt, answer * less_answer),
    ]
    for one in less:
        assert drive_s([one], made_up(), slots, answers, round_trip_s=0.01) <= whole * (1 + 1e-9)


def simulated_s(work: Work, answer: int, found: Speed, slots: int) -> float:
    """Every prompt and every step, one after the other: the client's queue first in, first out; a document's next level
    only when its last is whole."""
    queue: deque[tuple[int, int, float]] = deque()
    plans = []
    for group in work.groups:
        one = Work(
            groups=(Group(1, group.requests, group.prompt_tokens // group.documents),), max_tokens=work.max_tokens
        )
        plans += [replace(one, joining=work.joining).levels(answer)] * group.documents
    open_requests = {}
    for document, levels in enumerate(plans):
        open_requests[document] = levels[0].requests
        queue.extend([(document, 0, levels[0].prompt_tokens / levels[0].requests)] * int(levels[0].requests))
    running: list[tuple[int, int, float, int]] = []
    now = 0.0
    while queue or running:
        while queue and len(running) < slots:
            document, number, prompt = queue.popleft()
            now += found.prefill_s(prompt)
            running.append((document, number, prompt, answer))
        context = sum(prompt + answer - left for _, _, prompt, left in running) / len(running)
        now += found.decode_step_s(len(running), context)
        ended = [one for one in running if one[3] == 1]
        running = [(document, number, prompt, left - 1) for document, number, prompt, left in running if left > 1]
        for document, number, _, _ in ended:
            open_requests[document] -= 1
            if open_requests[document] == 0 and number + 1 < len(plans[document]):
                following = plans[document][number + 1]
                open_requests[document] = following.requests
                queue.extend(
                    [(document, number + 1, following.prompt_tokens / following.requests)] * int(following.requests)
                )
    return now


@pytest.mark.parametrize("documents", [1, 3, 12])
@pytest.mark.parametrize("slots", [1, 8, 20])
@pytest.mark.parametrize("chunks", [1, 7, 84])
def test_the_sum_over_levels_agrees_with_a_simulation_of_every_step(documents: int, slots: int, chunks: int) -> None:
    """Both with answers of one length. Waves that are not full differ most: the sum lets them begin staggered."""
    joining = Joining(chunk_tokens=3000, overlap_tokens=512, template_tokens=60, max_levels=10)
    group = Group(documents, chunks, documents * chunks * 2900)
    work = Work(groups=(group,), max_tokens=1000, joining=joining)
    exact = simulated_s(work, 200, made_up(), slots)
    answers = Answers(max_tokens=1000, spread=0.0)
    assert drive_s(work.levels(200), made_up(), slots, answers, round_trip_s=0) == pytest.approx(exact, rel=0.25)
