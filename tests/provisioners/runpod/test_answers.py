"""Every class of answer is one type, and each leads somewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from provisioners.providers.runpod import answers
from provisioners.providers.runpod.answers import ApiError, as_no_machine, from_status, seconds_to_wait
from provisioners.providers.runpod.purchase import refused
from recipes.errors import NoCapacity, NoMachine

NOW = datetime(2026, 11, 21, 5, 12, tzinfo=UTC)


def answer(status: int, said: object = None, retry_after: str | None = None) -> ApiError:
    return from_status("POST /pods", status, said, retry_after=retry_after, now=NOW)


@pytest.mark.parametrize(
    ("status", "kind", "done"),
    [
        (307, answers.Invalid, False),
        (400, answers.CapacityRefused, False),
        (401, answers.Unauthorized, False),
        (402, answers.NoCredit, False),
        (403, answers.Forbidden, False),
        (404, answers.NotFound, False),
        (405, answers.Invalid, False),
        (408, answers.Lost, True),
        (409, answers.Conflict, False),
        (410, answers.Retired, False),
        (418, answers.Invalid, False),
        (422, answers.Invalid, False),
        (429, answers.RateLimited, False),
        (500, answers.ServerError, True),
        (502, answers.ServerError, True),
        (503, answers.ServerError, True),
        (504, answers.ServerError, True),
        (599, answers.ServerError, True),
    ],
)
def test_each_status_is_one_class_that_says_whether_it_may_have_been_done(
    status: int, kind: type[ApiError], done: bool
) -> None:
    error = answer(status)
    assert type(error) is kind
    assert isinstance(error, answers.Ambiguous if done else answers.Refusal)
    assert str(status) in error.what


def test_an_error_repeats_what_the_answer_says() -> None:
    said = {"title": "Unprocessable", "detail": "validation failed.", "errors": ["$.disk: must be at least 1", "$.x"]}
    assert answer(422, said).what == "POST /pods → 422: validation failed. ($.disk: must be at least 1; $.x)"
    assert answer(500, {"title": "Oops"}).what == "POST /pods → 500: Oops"
    assert answer(502, "<html>").what == "POST /pods → 502"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("12", 12.0),
        ("0", 0.0),
        ("-3", 0.0),
        ("1.5", 1.5),
        ("Sat, 21 Nov 2026 05:12:30 GMT", 30.0),
        ("Sat, 21 Nov 2026 05:11:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_a_wait_is_asked_for_in_seconds_or_by_a_date(header: str | None, seconds: float | None) -> None:
    assert seconds_to_wait(header, NOW) == seconds


@pytest.mark.parametrize(
    ("status", "way_out"),
    [
        (401, "export RUNPOD_API_KEY"),
        (402, "add some at https://console.runpod.io"),
        (403, "right to read and write"),
        (404, "RECIPE_RUNPOD_URL"),
        (410, "upgrade recipe"),
        (422, "upgrade recipe"),
        (429, "wait a while"),
        (500, "try again"),
    ],
)
def test_people_are_told_the_way_out(status: int, way_out: str) -> None:
    error = as_no_machine(answer(status))
    assert way_out in error.advice
    assert str(status) in error.message


@pytest.mark.parametrize(
    ("status", "another_may_do"), [(400, True), (403, True), (404, True), (401, False), (402, False), (422, False)]
)
def test_a_refused_create_says_whether_another_offer_may_be_had(status: int, another_may_do: bool) -> None:
    error = answer(status, {"detail": "There are no instances"})
    assert isinstance(error, answers.Refusal)
    told = refused(error, "2 × NVIDIA A40")
    assert isinstance(told, NoMachine)
    assert isinstance(told, NoCapacity) is another_may_do
    assert "There are no instances" in told.message
