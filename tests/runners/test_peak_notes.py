"""Why the peaks of throughput differ, where they do: each reason from numbers that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from runners.engine import EngineSample, LogSample
from runners.measurement import Timed, throughput
from runners.peak_notes import counters_note, peaks_note
from runners.records import RequestRecord

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)
Count = Callable[[float], float]


def request(second: float, ttft_s: float = 0.5, answer_s: float = 4.5, **changes: Any) -> RequestRecord:
    record = RequestRecord(
        id=str(second),
        document="d",
        level=1,
        index=0,
        status="ok",
        tries=1,
        started_at=BEGIN + timedelta(seconds=second),
        prompt_tokens=1000,
        output_tokens=450,
        ttft_s=ttft_s,
        e2e_s=ttft_s + answer_s,
    )
    return replace(record, **changes)


def load(seconds: int = 30, **changes: Any) -> list[RequestRecord]:
    """One request a second, so that from the fifth on 1000 prompt and 450 output tokens a second are served."""
    return [request(float(n), **changes) for n in range(seconds)]


def page(prompt: Count, output: Count, seconds: Iterable[float]) -> list[Timed[EngineSample]]:
    return [
        Timed(
            BEGIN + timedelta(seconds=at), EngineSample(prompt_tokens_total=prompt(at), output_tokens_total=output(at))
        )
        for at in seconds
    ]


def log(rate: float, times: Sequence[float], of: Any = "engine") -> list[Timed[LogSample]]:
    return [
        Timed(BEGIN + timedelta(seconds=at), LogSample(prompt_tokens_per_s=rate, output_tokens_per_s=rate, of=of))
        for at in times
    ]


def notes(
    records: Sequence[RequestRecord],
    metrics: Sequence[Timed[EngineSample]] = (),
    lines: Sequence[Timed[LogSample]] = (),
) -> list[str]:
    return peaks_note(records, metrics, lines, throughput(records, metrics, lines)["peak_at"])


def even(records: Sequence[RequestRecord], kind: str) -> Count:
    """What an engine counts that counts each token when it comes."""

    def total(at: float) -> float:
        done = 0.0
        for r in records:
            start = (r.started_at - BEGIN).total_seconds()
            assert r.ttft_s is not None
            begin, end = (start, start + r.ttft_s) if kind == "prompt" else (start + r.ttft_s, start + r.e2e_s)
            tokens = r.prompt_tokens if kind == "prompt" else r.output_tokens
            done += tokens * min(1.0, max(0.0, (at - begin) / (end - begin)))
        return done

    return total


def at_once(records: Sequence[RequestRecord], kind: str, *, cached: int = 0) -> Count:
    """What an engine counts that counts a prompt when it has been read, and an answer when it has ended."""

    def total(at: float) -> float:
        moments = [(r.first_token_at if kind == "prompt" else r.ended_at) for r in records]
        done = sum((moment - BEGIN).total_seconds() <= at for moment in moments)
        return done * (1000 - cached if kind == "prompt" else 450)

    return total


def test_sources_that_agree_have_nothing_to_explain() -> None:
    records = load()
    seconds = [0.37 + n for n in range(36)]
    assert notes(records, page(even(records, "prompt"), even(records, "output"), seconds)) == []
    assert notes(records) == notes([]) == notes(records[:1]) == []


def test_a_peak_between_two_looks_is_the_same_for_both_between_these_looks() -> None:
    """A short burst, cut in two by the engine's page."""
    records = [*load(), *(request(12.0 + n / 10, ttft_s=0.5, answer_s=0.5, output_tokens=5) for n in range(5))]
    told = notes(records, page(even(records, "prompt"), even(records, "output"), [0.5 + n for n in range(36)]))
    assert told == [
        "prompt: the engine's page reaches 4,000 tok/s, the requests 6,000: the peak lasted no longer than from one "
        "look at the page to the next; between the same looks, give or take 1 s, the requests reach 4,000 tok/s"
    ]


def test_an_engine_that_counts_answers_when_they_end_is_said_to() -> None:
    """Five at once, each five seconds: the page says nothing for five seconds, then all of it."""
    records = [request(5.0 * n) for n in range(6) for _ in range(5)]
    told = notes(records, page(at_once(records, "prompt"), at_once(records, "output"), range(36)))
    (output,) = [note for note in told if note.startswith("output")]
    assert "the engine's page reaches 2,250 tok/s, the requests 500" in output
    assert "counts an answer's tokens when it has ended; counted so, the requests reach 2,250 tok/s there" in output


def test_an_engine_that_counts_a_prompt_when_it_is_read_is_said_to() -> None:
    """Requests that wait for nine seconds have their prompts spread over the waiting."""
    records = [request(10.0 * n, ttft_s=9.0, answer_s=1.0) for n in range(3) for _ in range(4)]
    (prompt, *_) = notes(records, page(at_once(records, "prompt"), even(records, "output"), range(32)))
    assert prompt.startswith("prompt: the engine's page reaches 4,000 tok/s, the requests 444: ")
    assert "counts a prompt when it has read it" in prompt


def test_prompts_from_the_cache_are_named_with_their_number() -> None:
    records = load(cached_tokens=800)
    fresh = [replace(record, prompt_tokens=200) for record in records]
    seconds = [0.2 + n for n in range(36)]
    (prompt,) = notes(records, page(even(fresh, "prompt"), even(records, "output"), seconds))
    assert "leaves out the 24,000 prompt tokens that came from its cache" in prompt


def test_somebody_else_who_asks_is_noticed() -> None:
    records = load()
    own = even(records, "output")
    (output,) = notes(records, page(even(records, "prompt"), lambda at: own(at) + 2000 * at, range(36)))
    assert "somebody else asks it too" in output
    assert "and the requests 13,500" in output


def test_a_page_that_was_not_read_at_the_peak_is_the_reason() -> None:
    burst = [request(15.0, answer_s=1.0, output_tokens=9000)]
    records = [*load(), *burst]
    seconds = [*range(12), *range(20, 36)]
    told = notes(records, page(even(records, "prompt"), even(records, "output"), seconds))
    assert any("at the requests' peak the page was not read for 9.0 s" in note for note in told)


def test_a_run_too_short_for_a_peak_of_the_page_says_so() -> None:
    records = [request(0.0, ttft_s=0.1, answer_s=0.2)]
    told = notes(records, page(even(records, "prompt"), even(records, "output"), (0.0, 0.31)))
    assert told == [
        f"{kind}: the engine's page was read twice within 0.31 s, too short for a peak of its own"
        for kind in ("prompt", "output")
    ]


@pytest.mark.parametrize(("rate", "count"), [(450.0, 1), (1000.0, 1)])
def test_a_log_of_means_is_held_against_the_requests_means(rate: float, count: int) -> None:
    """One kind is at that rate; of the other the log says something else, and no mean of the requests comes near."""
    told = notes(load(), (), log(rate, range(10, 40, 10)))
    assert len(told) == count
    assert "it tells means over 10 s" in told[0]


def test_a_short_burst_is_lower_in_a_mean_over_ten_seconds() -> None:
    records = [*load(), request(15.0, answer_s=1.0, output_tokens=4500)]
    lines = [*log(0.0, [5.0]), Timed(BEGIN + timedelta(seconds=15), LogSample(output_tokens_per_s=900.0))]
    lines.append(Timed(BEGIN + timedelta(seconds=25), LogSample(output_tokens_per_s=850.0)))
    (note,) = [one for one in notes(records, (), lines) if one.startswith("output")]
    assert "the engine's log reaches 900 tok/s, the requests 2,7" in note
    assert "it tells means over 10 s; over the same stretches, give or take 1 s, the requests reach 900 tok/s" in note


def test_one_line_of_a_short_load_is_no_peak() -> None:
    told = notes(load(4), (), log(100.0, [6.0]))
    assert len(told) == 2
    assert all("it wrote one line, each a mean over a stretch of its own" in note for note in told)


def test_the_speed_of_single_requests_is_no_peak_of_all() -> None:
    (note,) = notes(load(), (), log(3000.0, range(30), of="request"))
    assert "the speed of one request at a time (prompt up to 3,000 tok/s, output up to 3,000 tok/s)" in note


def test_equal_peaks_at_different_moments_are_explained() -> None:
    """Two bursts of which each source finds another one a little higher."""
    records = [*load(), *(request(second, ttft_s=1.0, answer_s=1.0, output_tokens=0) for second in (10.0, 20.0))]
    counted = even(records, "prompt")

    def more_in_the_second(at: float) -> float:
        return counted(at) + 80 * min(1.0, max(0.0, at - 20))

    (note,) = [one for one in notes(records, page(more_in_the_second, lambda _: 0.0, range(36))) if "prompt" in one]
    assert note == (
        "prompt: the requests' peak is at 00:00:10, that of the engine's page at 00:00:20: it was as high more than "
        "once, and the page has 2,000 tok/s at the former as well"
    )


def test_a_log_of_seconds_that_are_cut_elsewhere_is_lower() -> None:
    """Bursts of a second that the log's lines cut in two; the reason names what the requests come to there."""
    records = [request(float(second), ttft_s=1.0, answer_s=1.0, output_tokens=0) for second in range(0, 30, 3)]
    lines = [
        Timed(BEGIN + timedelta(seconds=n + 0.4), LogSample(prompt_tokens_per_s=rate))
        for n in range(1, 30)
        for rate in [{0: 400.0, 1: 600.0, 2: 0.0}[n % 3]]
    ]
    (note,) = notes(records, (), lines)
    assert note == (
        "prompt: the engine's log reaches 600 tok/s, the requests 1,000: it tells means over 1 s; over the same "
        "stretches, give or take 1 s, the requests reach 600 tok/s"
    )


def test_a_log_that_is_far_lower_is_not_explained_by_means() -> None:
    told = notes(load(), (), log(100.0, range(2, 30)))
    assert [note.rpartition(": ")[2] for note in told] == [
        "it counts tokens at another moment than they arrive here, or it leaves some out"
    ] * 2


def test_requests_of_the_warm_up_are_named_where_the_engine_counts_more() -> None:
    row = throughput(load(4), page(lambda at: 1200 * at, lambda at: 450 * at, range(5)), [])
    assert (
        counters_note(row, 2)
        == "The engine also counted the 2 requests of the warm-up, which are no part of the figures."
    )
    assert counters_note(row, 0) == ""
    assert counters_note({**row, "engine_counters": None}, 2) == ""
    assert counters_note({**row, "engine_counters": {"prompt_tokens": 4000, "output_tokens": None}}, 2) == ""
