"""The load's client against the engine double: what it measures, and when it tries again."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any

import pytest

from recipes.spec import Workload
from runners.client import Answer, Client, Endpoint, RequestFailed, open_transport
from tests.emulators.engine import (
    LLAMACPP_CONTEXT,
    VLLM_CONTEXT,
    Break,
    EngineDouble,
    Fault,
    Refuse,
    Say,
    SendEvent,
    error_event,
)

TEXT = "One two three four. And some more that the double leaves out."
FIRST = "One two three four."


class Sleeper:
    """Takes the client's pauses down and lets none of them pass."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


def settings(**changes: Any) -> Workload:
    return Workload.model_validate({"inputs": ["unused.txt"], "concurrency": 4, "retries": 3, **changes})


def with_client(
    engine: EngineDouble,
    use: Callable[[Client], Awaitable[Any]],
    *,
    key: str | None = None,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    jitter: float = 0.5,
    **changes: Any,
) -> Any:
    """What `use` returns, in a loop of its own, with the double running."""

    async def main() -> Any:
        async with engine, open_transport() as transport:
            endpoint = Endpoint(engine.url, "double", key)
            client = Client(transport, endpoint, settings(**changes), sleep=sleep or Sleeper(), jitter=lambda: jitter)
            return await use(client)

    return asyncio.run(main())


def ask(engine: EngineDouble, **options: Any) -> Answer:
    answer = with_client(engine, lambda client: client.complete(TEXT), **options)
    assert isinstance(answer, Answer)
    return answer


def fail(engine: EngineDouble, **options: Any) -> RequestFailed:
    with pytest.raises(RequestFailed) as caught:
        ask(engine, **options)
    return caught.value


def faults(*each: Fault) -> dict[int, Fault]:
    return dict(enumerate(each, 1))


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_an_answer_with_its_usage(api: str) -> None:
    engine = EngineDouble()
    answer = ask(engine, api=api, max_tokens=77, temperature=0.5, seed=3)
    assert (answer.text, answer.finish_reason, answer.tries) == (FIRST, "stop", 1)
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (12, 4, 0)
    (asked,) = engine.asked
    assert asked.prompt == TEXT
    assert asked.path == ("/v1/chat/completions" if api == "chat" else "/v1/completions")
    assert {k: asked.body[k] for k in ("model", "max_tokens", "temperature", "seed", "stream")} == {
        "model": "double",
        "max_tokens": 77,
        "temperature": 0.5,
        "seed": 3,
        "stream": True,
    }


def test_no_seed_is_sent_unless_there_is_one() -> None:
    engine = EngineDouble()
    ask(engine)
    assert "seed" not in engine.asked[0].body


def test_times_are_those_of_the_wire() -> None:
    """Both ends read one clock, so that each of the client's figures is bounded by what the double saw."""
    engine = EngineDouble(prompt_pause_s=0.08, piece_pause_s=0.03)
    before = time.monotonic()
    answer = ask(engine)
    (asked,) = engine.asked
    first, second, *_, last = asked.sent_at
    assert answer.ttft_s is not None
    assert first - asked.at <= answer.ttft_s + 1e-3, "the first token cannot come before it was sent"
    assert answer.ttft_s <= second - before, "it was read as it came, not with the second"
    assert answer.e2e_s >= last - asked.at - 1e-3
    assert answer.e2e_s - answer.ttft_s >= last - second - 1e-3
    assert answer.e2e_s <= time.monotonic() - before


def test_an_engine_without_usage_reports_no_counts() -> None:
    answer = ask(EngineDouble(usage=False))
    assert (answer.text, answer.prompt_tokens, answer.output_tokens) == (FIRST, None, None)


def test_an_empty_answer_has_no_time_to_first_token() -> None:
    answer = ask(EngineDouble(faults=faults(Say(""))))
    assert (answer.text, answer.ttft_s, answer.finish_reason) == ("", None, "stop")


def test_a_truncated_answer_says_so() -> None:
    assert ask(EngineDouble(faults=faults(Say("cut off at", "length")))).finish_reason == "length"


@pytest.mark.parametrize(
    "fault",
    [
        Refuse(429),
        Refuse(500),
        Refuse(503),
        Refuse(502, body=b"\xff\xfe not UTF-8"),
        Break.RESET,
        Break.CUT,
        Break.UNFINISHED,
        error_event("worker died"),
        SendEvent("{not JSON"),
        SendEvent('["not an object"]'),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(fault: Fault) -> None:
    sleeper = Sleeper()
    engine = EngineDouble(faults=faults(fault, fault))
    answer = ask(engine, sleep=sleeper)
    assert (answer.text, answer.tries, len(engine.asked)) == (FIRST, 3, 3)
    assert sleeper.pauses == [0.5, 1.0]


def test_pauses_grow_with_jitter_up_to_a_limit() -> None:
    for jitter, expected in [(0.0, [0.25, 0.5, 1.0, 2.0]), (1.0, [0.75, 1.5, 3.0, 6.0])]:
        sleeper = Sleeper()
        failed = fail(EngineDouble(faults=faults(*[Refuse(503)] * 12)), sleep=sleeper, jitter=jitter, retries=11)
        assert failed.tries == 12
        assert sleeper.pauses[:4] == expected
        assert sleeper.pauses == sorted(sleeper.pauses)
        assert max(sleeper.pauses) <= 30


def test_retry_after_is_obeyed() -> None:
    sleeper = Sleeper()
    ask(EngineDouble(faults=faults(Refuse(429, retry_after="7"), Refuse(503, retry_after="0"))), sleep=sleeper)
    assert sleeper.pauses == pytest.approx([7.05, 0.05])
    assert all(pause >= asked for pause, asked in zip(sleeper.pauses, [7, 0], strict=True)), "never sooner than asked"


def test_retry_after_as_a_date_falls_back_on_backing_off() -> None:
    sleeper = Sleeper()
    ask(EngineDouble(faults=faults(Refuse(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))), sleep=sleeper)
    assert sleeper.pauses == [0.5]


@pytest.mark.parametrize(("fault", "words"), [(Refuse(503, "overloaded"), "HTTP 503: overloaded"), (Break.RESET, "")])
def test_it_gives_up_after_the_last_retry(fault: Fault, words: str) -> None:
    engine = EngineDouble(faults=faults(*[fault] * 9))
    failed = fail(engine, retries=2)
    assert (failed.kind, failed.tries, len(engine.asked)) == ("given-up", 3, 3)
    assert words in failed.message
    assert failed.message
    assert 0 < failed.e2e_s < 60


def test_no_retries_means_one_try() -> None:
    engine = EngineDouble(faults=faults(Refuse(500)))
    assert fail(engine, retries=0).tries == len(engine.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not_tried_again(status: int) -> None:
    sleeper = Sleeper()
    engine = EngineDouble(faults=faults(Refuse(status, "max_tokens must be positive")))
    failed = fail(engine, sleep=sleeper)
    assert (failed.kind, failed.tries, len(engine.asked), sleeper.pauses) == ("refused", 1, 1, [])
    assert failed.message == f"HTTP {status}: max_tokens must be positive"


@pytest.mark.parametrize("fault", [VLLM_CONTEXT, LLAMACPP_CONTEXT], ids=["vllm", "llamacpp"])
def test_a_prompt_beyond_the_context_is_its_own_kind(fault: Refuse) -> None:
    engine = EngineDouble(faults=faults(fault))
    failed = fail(engine)
    assert (failed.kind, len(engine.asked)) == ("context", 1)
    assert fault.message in failed.message


def test_a_refusal_inside_the_stream_is_one_as_well() -> None:
    engine = EngineDouble(faults=faults(error_event(VLLM_CONTEXT.message, 400)))
    failed = fail(engine)
    assert (failed.kind, len(engine.asked)) == ("context", 1)
    assert failed.message == f"an error in the stream: {VLLM_CONTEXT.message}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"object": "error", "message": "old form", "code": 400}', "HTTP 400: old form"),
        (b'{"detail": "Not Found"}', "HTTP 400: Not Found"),
        (b'{"error": "as text"}', "HTTP 400: as text"),
        (b"<html>\n bad \n</html>", "HTTP 400: <html> bad </html>"),
        (b"", "HTTP 400: no reason given"),
        (b"[]", "HTTP 400: []"),
    ],
)
def test_the_servers_own_words_are_kept(body: bytes, words: str) -> None:
    assert fail(EngineDouble(faults=faults(Refuse(400, body=body)))).message == words


def test_a_request_that_takes_too_long_is_tried_again() -> None:
    engine = EngineDouble(faults=faults(Break.HANG))
    client_of: list[Client] = []

    async def patient_now(_: float) -> None:
        """The second try has as much time as a slow machine may need."""
        client_of[0]._workload = settings()

    async def use(client: Client) -> Answer:
        client_of.append(client)
        return await client.complete(TEXT)

    answer = with_client(engine, use, sleep=patient_now, request_timeout="0.2s")
    assert (answer.text, answer.tries, len(engine.asked)) == (FIRST, 2, 2)


def test_a_request_that_never_ends_is_given_up() -> None:
    failed = fail(EngineDouble(faults=faults(Break.HANG, Break.HANG)), request_timeout="0.05s", retries=1)
    assert (failed.kind, failed.tries, failed.message) == ("given-up", 2, "no answer in 0.05 s")
    assert failed.e2e_s >= 0.05


def test_nobody_listens() -> None:
    async def main() -> RequestFailed:
        with socket.socket() as taken:  # its port is nobody else's meanwhile, and nobody listens there
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            return await asked(url)

    async def asked(url: str) -> RequestFailed:
        async with open_transport() as transport:
            client = Client(transport, Endpoint(url, "double"), settings(), sleep=Sleeper())
            with pytest.raises(RequestFailed) as caught:
                await client.complete(TEXT)
        return caught.value

    failed = asyncio.run(main())
    assert (failed.kind, failed.tries) == ("given-up", 4)


def test_connections_are_kept() -> None:
    engine = EngineDouble(drop_kept=True)

    async def in_turn(client: Client) -> None:
        for _ in range(3):
            await client.complete(TEXT)

    with_client(engine, in_turn)
    assert engine.dropped >= 1, "no connection was used twice"


def test_a_kept_connection_that_went_stale_is_no_try() -> None:
    engine, sleeper = EngineDouble(drop_kept=True), Sleeper()

    async def in_turn(client: Client) -> list[Answer]:
        return [await client.complete(TEXT) for _ in range(4)]

    answers = with_client(engine, in_turn, sleep=sleeper, retries=0)
    assert [answer.tries for answer in answers] == [1, 1, 1, 1]
    assert (engine.dropped > 0, len(engine.asked), sleeper.pauses) == (True, 4, [])


@pytest.mark.parametrize("fault", [Break.CUT, Refuse(500)])
def test_a_kept_connection_that_answered_is_a_try(fault: Fault) -> None:
    engine, sleeper = EngineDouble(faults={2: fault}), Sleeper()

    async def in_turn(client: Client) -> list[Answer]:
        return [await client.complete(TEXT) for _ in range(2)]

    answers = with_client(engine, in_turn, sleep=sleeper)
    assert [answer.tries for answer in answers] == [1, 2]
    assert sleeper.pauses == [0.5]


def test_a_server_that_closes_after_each_answer_costs_no_try() -> None:
    engine = EngineDouble(close_after_answer=True)

    async def many(client: Client) -> list[Answer]:
        return await asyncio.gather(*(client.complete(TEXT) for _ in range(30)))

    answers = with_client(engine, many, retries=0)
    assert [answer.tries for answer in answers] == [1] * 30


def test_the_key_is_shown_to_the_engine_and_to_nobody_else() -> None:
    key = "sk-very-secret"
    engine = EngineDouble(key=key)
    assert ask(engine, key=key).text == FIRST
    assert engine.asked[0].headers["Authorization"] == f"Bearer {key}"
    endpoint = Endpoint("http://127.0.0.1:1", "double", key)
    assert key not in repr(endpoint) + str(endpoint) + f"{endpoint}"
    failed = fail(EngineDouble(key="another"), key=key)
    assert (failed.kind, failed.message) == ("refused", "HTTP 401: Unauthorized")
    assert key not in repr(failed)


def test_without_a_key_no_header_is_sent() -> None:
    engine = EngineDouble()
    ask(engine)
    assert "Authorization" not in engine.asked[0].headers


def test_cached_tokens_are_read() -> None:
    usage = '{"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}'
    event = f'{{"choices": [{{"text": "", "finish_reason": "stop"}}], "usage": {usage}}}'
    answer = ask(EngineDouble(faults=faults(SendEvent(event))))
    assert (answer.prompt_tokens, answer.output_tokens, answer.cached_tokens) == (9, 1, 8)


@pytest.mark.parametrize("event", ['{"choices": null, "usage": null}', '{"id": "no choices at all"}'])
def test_events_without_choices_say_nothing(event: str) -> None:
    """Such a stream has no finish_reason either, and is tried again."""
    assert ask(EngineDouble(faults=faults(SendEvent(event)))).tries == 2


def test_gaps_between_tokens_and_the_time_of_sending_are_parts_of_the_whole() -> None:
    engine = EngineDouble(prompt_pause_s=0.05, piece_pause_s=0.03)
    before = time.monotonic()
    answer = ask(engine)
    (asked,) = engine.asked
    assert answer.ttft_s is not None
    assert len(answer.itl_s) == 3, "four pieces"
    arrived = list(accumulate([answer.ttft_s, *answer.itl_s]))
    for came, sent in zip(arrived, asked.sent_at, strict=True):
        assert came >= sent - asked.at - 1e-3, "no piece comes before it was sent"
    for came, following in zip(arrived, asked.sent_at[1:], strict=False):
        assert came <= following - before + 1e-3, "each was read as it came, not with the next"
    assert answer.ttft_s + sum(answer.itl_s) <= answer.e2e_s + 1e-5
    assert 0 <= answer.send_s < answer.ttft_s


def test_further_fields_are_sent_and_belong_to_the_key() -> None:
    engine = EngineDouble()
    extra = {"ignore_eos": True, "min_tokens": 7}

    async def use(client: Client) -> list[str]:
        await client.complete(TEXT, max_tokens=7, extra=extra)
        return [client.key(TEXT), client.key(TEXT, extra=extra), client.key(TEXT, max_tokens=7)]

    keys = with_client(engine, use)
    assert {name: engine.asked[0].body[name] for name in (*extra, "max_tokens")} == {**extra, "max_tokens": 7}
    assert len(set(keys)) == 3


def test_a_key_that_cannot_be_sent_is_refused_and_not_repeated() -> None:
    engine = EngineDouble()
    failed = fail(engine, key="sk-secret\n")
    assert (failed.kind, failed.tries, engine.asked) == ("refused", 1, [])
    assert "secret" not in failed.message


def test_half_a_character_becomes_a_question_mark() -> None:
    event = '{"choices": [{"text": "\\ud83d", "finish_reason": "stop"}]}'
    assert ask(EngineDouble(faults=faults(SendEvent(event)))).text.endswith("?")
