"""The slots double does what an engine does: queues what is over its slots, counts, preempts, and tells the truth."""

from __future__ import annotations

import asyncio
import json
from http.client import HTTPConnection
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tests.conftest import eventually
from tests.emulators.slots import SlotsDouble, slots_double

FAST = ("--ttft", "0.05", "--per-token", "0.01", "--tokens", "8")


async def ask(url: str, prompts: list[str], **more: object) -> list[bytes]:
    """The bodies of the answers to prompts that are sent at the same time, as they come over the wire."""

    async def one(prompt: str) -> bytes:
        body = json.dumps({"model": "double", "prompt": prompt, "stream": True, **more}).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(url).port)
        head = f"POST /v1/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"0\r\n\r\n")
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    return await asyncio.gather(*(one(prompt) for prompt in prompts))


def metric(url: str, name: str) -> float:
    with urlopen(f"{url}/metrics") as response:
        line = next(line for line in response.read().decode().splitlines() if line.startswith(name))
    return float(line.split()[-1])


def test_more_than_its_slots_wait_in_the_order_of_arrival() -> None:
    with slots_double("--slots", "4", *FAST) as double:
        asyncio.run(ask(double.url, [f"prompt {i}" for i in range(12)]))
        rows = double.requests()
    assert [row["status"] for row in rows] == ["done"] * 12
    moments = sorted([(r["admitted_s"], 1) for r in rows] + [(r["last_sent_s"], -1) for r in rows])
    running = 0
    for _, change in moments:
        running += change
        assert running <= 4
    assert sorted(rows, key=lambda r: r["admitted_s"]) == sorted(rows, key=lambda r: r["complete_s"])
    for row in rows:
        assert row["first_sent_s"] - row["admitted_s"] >= 0.049
        # Seven gaps after the moment at which the first was due: if that came late, the others catch up. The loop's
        # clock counts milliseconds.
        assert row["last_sent_s"] - row["first_due_s"] >= 0.068


def test_the_same_prompt_gets_the_same_answer() -> None:
    with slots_double("--slots", "4", "--zero", "--spread", "0.5", "--tokens", "40") as double:
        one, other, again = asyncio.run(ask(double.url, ["a", "b", "a"]))
    assert one == again != other


def test_an_answer_is_as_long_as_asked_for() -> None:
    with slots_double("--slots", "4", "--zero") as double:
        body = {"max_tokens": 5, "stream_options": {"include_usage": True}}
        answer = asyncio.run(ask(double.url, ["a"], **body))[0]
        longer = asyncio.run(ask(double.url, ["a"], **body | {"max_tokens": 200}, ignore_eos=True))[0]
    assert b'"completion_tokens": 5}' in answer
    assert b'"finish_reason": "length"' in answer
    assert b'"completion_tokens": 200}' in longer


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ("vllm", ("vllm:num_requests_running", "vllm:num_requests_waiting")),
        ("llamacpp", ("llamacpp:requests_processing", "llamacpp:requests_deferred")),
    ],
)
def test_its_metrics_say_what_runs_and_waits(form: str, names: tuple[str, str]) -> None:
    async def look(double: SlotsDouble) -> tuple[float, ...]:
        asking = asyncio.create_task(ask(double.url, [str(i) for i in range(5)]))
        while len(await asyncio.to_thread(double.requests)) < 5:
            await asyncio.sleep(0.01)
        seen = tuple(metric(double.url, name) for name in names)
        asking.cancel()
        return seen

    with slots_double("--slots", "2", "--ttft", "600", "--tokens", "1", "--metrics", form) as double:
        assert asyncio.run(look(double)) == (2.0, 3.0)


def test_what_does_not_fit_is_preempted_and_finished_later() -> None:
    # They begin late enough for all eight to have come by then.
    with slots_double("--slots", "8", "--kv-tokens", "60", *FAST, "--ttft", "1") as double:
        answers = asyncio.run(ask(double.url, ["a prompt of 40 characters, ten tokens..."] * 8))
        rows = double.requests()
        assert metric(double.url, "vllm:num_preemptions_total") >= 1
    assert len(set(answers)) == 1
    assert sum(row["preempted"] for row in rows) >= 1


def test_slots_change_after_the_first_request() -> None:
    async def both(url: str) -> None:
        await ask(url, ["a"])  # which is answered after the change
        await ask(url, ["b", "c"])

    with slots_double("--slots", "2", "--slots-at", "0.1:1", "--ttft", "0.2", "--tokens", "1") as double:
        asyncio.run(both(double.url))
        _, second, third = double.requests()
    assert third["admitted_s"] >= second["last_sent_s"]


def test_a_client_that_goes_away_gives_its_slot_back() -> None:
    with slots_double("--slots", "1", "--ttft", "600", "--tokens", "1") as double:
        gone = HTTPConnection("127.0.0.1", urlsplit(double.url).port or 0)
        gone.request("POST", "/v1/completions", json.dumps({"prompt": "a", "stream": True}))
        assert gone.getresponse().status == 200
        assert metric(double.url, "vllm:num_requests_running") == 1
        gone.close()
        eventually(lambda: not metric(double.url, "vllm:num_requests_running"), what="the slot's return")
        assert double.requests()[0]["status"] == "gone"


def test_a_full_queue_refuses() -> None:
    with slots_double("--slots", "1", "--most-waiting", "0", "--ttft", "600") as double:
        port = urlsplit(double.url).port or 0
        first, second = HTTPConnection("127.0.0.1", port), HTTPConnection("127.0.0.1", port)
        body = json.dumps({"prompt": "a", "stream": True})
        first.request("POST", "/v1/completions", body)
        assert first.getresponse().status == 200
        second.request("POST", "/v1/completions", body)
        refused = second.getresponse()
        assert (refused.status, refused.headers["Retry-After"]) == (429, "1")
        first.close()
        second.close()


def test_it_takes_up_as_many_as_it_is_told_and_the_others_later() -> None:
    async def both(double: SlotsDouble) -> list[bytes]:
        asking = asyncio.create_task(ask(double.url, [str(i) for i in range(5)]))
        while [row["status"] for row in await asyncio.to_thread(double.requests)].count("done") < 3:
            await asyncio.sleep(0.01)
        assert metric(double.url, "vllm:num_requests_running") == 0
        await asyncio.to_thread(double.admit, None)
        return await asking

    with slots_double("--slots", "2", "--zero", "--tokens", "1") as double:
        double.admit(3)
        assert len(asyncio.run(both(double))) == 5
        assert [row["status"] for row in double.requests()] == ["done"] * 5
