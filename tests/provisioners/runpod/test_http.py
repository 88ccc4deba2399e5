"""The conversation over HTTP: what is tried again, what never, and that nothing secret is repeated."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest

from provisioners.providers.runpod import answers
from provisioners.providers.runpod.answers import ApiError
from provisioners.providers.runpod.http import Http, Request, seconds_of_scarcity
from provisioners.providers.runpod.pace import PACE, Pace
from tests.provisioners.runpod.scripted import KEY, QUICK, Script, serving

T = TypeVar("T")
FINE = (200, {"fine": True})


def talk(what: Callable[[Http, Script], Awaitable[T]], *script: Any, pace: Pace = QUICK, key: str = KEY) -> T:
    async def conversation() -> T:
        async with serving(*script) as server, Http(server.url, key, pace) as http:
            return await what(http, server)

    return asyncio.run(conversation())


def ask(method: str = "GET", again_s: float = 0.0, **given: Any) -> Callable[[Http, Script], Awaitable[Any]]:
    async def asking(http: Http, script: Script) -> tuple[Any, Script]:
        try:
            return await http.ask(Request(method, "/things", **given), again_s=again_s), script
        except ApiError as error:
            return error, script

    return asking


def test_the_key_travels_in_a_header_alone() -> None:
    answer, script = talk(ask(query={"count": "2"}), FINE)
    assert answer == {"fine": True}
    assert script.lines == ["GET /v2/things?count=2"]
    assert script.asked[0].headers["Authorization"] == f"Bearer {KEY}"


def test_an_answer_without_content_is_none() -> None:
    assert talk(ask("DELETE"), (204, ""))[0] is None


@pytest.mark.parametrize("trouble", [(500, {}), (502, "<html>bad gateway"), (429, {}, {"Retry-After": "0"}), "hang up"])
def test_a_read_is_asked_again_until_it_is_answered(trouble: Any) -> None:
    answer, script = talk(ask(again_s=60.0), trouble, trouble, FINE)
    assert answer == {"fine": True}
    assert len(script.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 410, 422])
def test_what_no_repetition_mends_is_not_repeated(status: int) -> None:
    error, script = talk(ask(again_s=5.0), (status, {"detail": "no"}))
    assert isinstance(error, answers.Refusal)
    assert len(script.asked) == 1


def test_a_read_is_given_up_after_its_time() -> None:
    error, script = talk(ask(again_s=1.0), (500, {"detail": "down"}))
    assert isinstance(error, answers.ServerError)
    assert len(script.asked) > 1


@pytest.mark.parametrize("trouble", [(500, {}), (429, {}, {"Retry-After": "0"}), "hang up"])
def test_without_time_nothing_is_repeated(trouble: Any) -> None:
    error, script = talk(ask("POST", body={"name": "a"}), trouble)
    assert isinstance(error, ApiError)
    assert len(script.asked) == 1


def test_a_wait_that_is_asked_for_is_kept() -> None:
    async def timed(http: Http, script: Script) -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await http.ask(Request("GET", "/things"), again_s=5.0)
        return loop.time() - began

    assert talk(timed, (429, {}, {"Retry-After": "0.3"}), FINE) >= 0.3


def test_a_wait_beyond_the_time_is_an_error_at_once() -> None:
    error, script = talk(ask(again_s=5.0), (429, {}, {"Retry-After": "3600"}))
    assert isinstance(error, answers.RateLimited)
    assert error.retry_after_s == 3600
    assert len(script.asked) == 1


def test_no_answer_in_time_leaves_open_what_was_done() -> None:
    error, _ = talk(ask("POST", answer_s=1.0), "silence")
    assert isinstance(error, answers.Lost)
    assert "no answer in time" in error.what


def test_a_connection_that_breaks_leaves_open_what_was_done() -> None:
    assert isinstance(talk(ask("POST"), "hang up")[0], answers.Lost)


def test_a_connection_that_was_never_made_means_that_nothing_was_done() -> None:
    async def nobody(port: int) -> ApiError:
        async with Http(f"http://127.0.0.1:{port}", KEY, PACE) as http:
            with pytest.raises(answers.Unreachable) as caught:
                await http.ask(Request("POST", "/pods"))
            return caught.value

    with socket.socket() as deaf:  # it has the port, and does not listen
        deaf.bind(("127.0.0.1", 0))
        assert "POST /pods" in asyncio.run(nobody(deaf.getsockname()[1])).what


@pytest.mark.parametrize("content", ["<html>welcome</html>", "{", "[1,"])
def test_an_answer_that_is_no_json_is_no_answer(content: str) -> None:
    assert isinstance(talk(ask(), (200, content))[0], answers.ServerError)


def test_a_redirect_is_not_followed() -> None:
    error, script = talk(ask("POST"), (302, "", {"Location": "/elsewhere"}))
    assert isinstance(error, answers.Invalid)
    assert len(script.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 422, 500])
def test_no_error_repeats_a_secret(status: int) -> None:
    quoted = 'a"quoted secret'
    said = {"detail": f"token {KEY} is bad", "errors": [f"env.HF_TOKEN: {quoted} is too long"]}
    error, _ = talk(ask("POST", body={"x": quoted}, hide=(quoted,)), (status, said))
    shown = f"{error} {error!r} {error.what} {error.short}"
    assert "***" in shown
    assert KEY not in shown
    assert "quoted" not in shown


def test_no_repr_has_a_secret() -> None:
    http = Http("http://127.0.0.1", KEY, PACE)
    request = Request("POST", "/pods", body={"env": "hidden"}, hide=("hidden",))
    assert KEY not in repr(http)
    assert "hidden" not in f"{request!r} {request}"


def test_everything_that_the_library_raises_is_mapped() -> None:
    """Each of aiohttp's own errors is one of those that are caught."""
    raised = [kind for kind in vars(aiohttp).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    foreign = [kind.__name__ for kind in raised if not issubclass(kind, aiohttp.ClientError | TimeoutError | OSError)]
    # These come from its websockets and its readers of forms and uploads, which are not used.
    unused = {"WebSocketError", "WSMessageTypeError", "EofStream"}
    assert {name for name in foreign if not name.startswith("BadContentDisposition")} <= unused


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ('"minute";r=3;t=12, "hour";r=2800;t=1812', 12.0),
        ('"hour";r=1;t=1812, "minute";t=40;r=0', 40.0),
        ('"minute";r=59;t=12', 0.0),
        ('"minute";r=3;t=4000', 60.0),
        ('"hour";r=0;t=1812', 0.0),
        ('"minute"', 0.0),
        ('"minute";r=x;t=y', 0.0),
        ("", 0.0),
    ],
)
def test_a_minute_of_which_little_is_left_is_noticed(header: str, seconds: float) -> None:
    assert seconds_of_scarcity(header) == seconds


def test_what_can_wait_waits_for_the_next_minute() -> None:
    async def left(http: Http, script: Script) -> list[float]:
        before = http.scarce_s
        await http.ask(Request("GET", "/things"))
        return [before, http.scarce_s]

    before, after = talk(left, (200, {}, {"RateLimit": '"minute";r=2;t=30'}))
    assert before == 0.0
    assert 20.0 < after <= 30.0
