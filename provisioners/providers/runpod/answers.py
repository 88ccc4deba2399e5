"""What RunPod answers when it does not do what was asked: one type for each class of answer, mapped in one place.

ApiError
├── Refusal                what was asked has not been done
│   ├── CapacityRefused    400   a rule or no capacity: another candidate may do
│   ├── Unauthorized       401   the key
│   ├── NoCredit           402   the account's balance
│   ├── Forbidden          403   the key or the account may not
│   ├── NotFound           404
│   ├── Conflict           409   not in this state
│   ├── Retired            410   this version of the API has been ended
│   ├── Invalid            422, and every other answer that blames the request
│   ├── RateLimited        429   too many requests
│   └── Unreachable              the request never left
└── Ambiguous              it may have been done
    ├── ServerError        5xx, or an answer that cannot be read
    └── Lost                     the connection broke, or no answer came in time
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from recipes.errors import NoMachine

KEYS_URL = "https://console.runpod.io/user/settings"
BILLING_URL = "https://console.runpod.io/user/billing"
PODS_URL = "https://console.runpod.io/pods"


class ApiError(Exception):
    """RunPod did not do what was asked, or did not say so. `what` is a sentence without secrets."""

    def __init__(self, what: str, *, short: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.short = short or what
        """The same in a word or two: the status, as a rule."""
        self.retry_after_s = retry_after_s


class Refusal(ApiError):
    """What was asked has not been done."""


class CapacityRefused(Refusal):
    """400: the request breaks a rule, or nothing can be placed; nobody can tell the two apart."""


class Unauthorized(Refusal):
    """401."""


class NoCredit(Refusal):
    """402."""


class Forbidden(Refusal):
    """403."""


class NotFound(Refusal):
    """404. No proof that there is nothing: a new pod can be unreadable for a while."""


class Conflict(Refusal):
    """409."""


class Retired(Refusal):
    """410."""


class Invalid(Refusal):
    """422, and whatever else blames the request."""


class RateLimited(Refusal):
    """429."""


class Unreachable(Refusal):
    """No connection was made, so nothing was asked."""


class Ambiguous(ApiError):
    """It may have been done."""


class ServerError(Ambiguous):
    """5xx, or an answer that cannot be read."""


class Lost(Ambiguous):
    """The connection broke after the request had left, or no answer came in time."""


TRANSIENT = (RateLimited, Unreachable, Ambiguous)
"""What another try may mend."""

_BY_STATUS: Mapping[int, type[ApiError]] = {
    400: CapacityRefused,
    401: Unauthorized,
    402: NoCredit,
    403: Forbidden,
    404: NotFound,
    408: Lost,
    409: Conflict,
    410: Retired,
    429: RateLimited,
}


def from_status(asked: str, status: int, answer: Any, *, retry_after: str | None, now: datetime) -> ApiError:
    """The error that an answer of this status is. `answer` is its JSON, or None if it was none."""
    fallback = Invalid if 300 <= status < 500 else ServerError
    kind = _BY_STATUS.get(status, fallback)
    said = ": ".join(filter(None, [f"{asked} → {status}", _said(answer)]))
    return kind(said, short=str(status), retry_after_s=seconds_to_wait(retry_after, now))


def _said(answer: Any) -> str:
    """The answer's own words: its detail, and what it holds against the request."""
    if not isinstance(answer, Mapping):
        return ""
    detail = answer.get("detail") or answer.get("message") or answer.get("error") or answer.get("title") or ""
    errors = answer.get("errors")
    each = [str(e) for e in errors] if isinstance(errors, Iterable) and not isinstance(errors, str | Mapping) else []
    return " ".join(filter(None, [str(detail), f"({'; '.join(each)})" if each else ""]))[:1000]


def seconds_to_wait(retry_after: str | None, now: datetime) -> float | None:
    """What a Retry-After header asks for: seconds, or the time until a date. None if it says nothing usable."""
    if retry_after is None:
        return None
    if re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", retry_after):
        return max(0.0, float(retry_after))
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def as_no_machine(error: ApiError) -> NoMachine:
    """The same as an error for people: what happened, and the way out."""
    for kind, sentence, advice in _FOR_PEOPLE:
        if isinstance(error, kind):
            return NoMachine(f"{sentence}: {error.what}", advice=advice)
    return NoMachine(f"RunPod gives no usable answer: {error.what}", advice="try again; see https://uptime.runpod.io")


_FOR_PEOPLE: tuple[tuple[type[ApiError] | tuple[type[ApiError], ...], str, str], ...] = (
    (
        Unauthorized,
        "RunPod does not accept the key in RUNPOD_API_KEY",
        f"make a key at {KEYS_URL} and export RUNPOD_API_KEY=…",
    ),
    (NoCredit, "the RunPod account has no credit left", f"add some at {BILLING_URL}"),
    (Forbidden, "the key in RUNPOD_API_KEY may not do this", f"give it the right to read and write pods at {KEYS_URL}"),
    (
        Retired,
        "this version of RunPod's API has been ended",
        "upgrade recipe (pip install --upgrade gpu-recipe), or set RECIPE_RUNPOD_URL to the version that replaced it",
    ),
    (
        Invalid,
        "RunPod does not understand the request",
        "correct what it names; if the recipe is right, upgrade recipe",
    ),
    (
        (CapacityRefused, NotFound, Conflict),
        "RunPod refuses what was asked",
        "if RECIPE_RUNPOD_URL is set, see whether it is the address of the API's version 2; if not, upgrade recipe",
    ),
    (RateLimited, "RunPod takes no more requests of this account for now", "wait a while, or start fewer runs at once"),
    (Unreachable, "RunPod cannot be reached", "check the network, and RECIPE_RUNPOD_URL if it is set"),
)
