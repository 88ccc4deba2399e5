"""How a run ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from provisioners.contract import Gone, MayStillBill, Release
from recipes.errors import ExitCode


@dataclass(frozen=True)
class Completed:
    """Everything was done."""


@dataclass(frozen=True)
class Failed:
    """It failed in a phase: why, what to do, and the exit code that says where."""

    phase: str
    error: str
    advice: str
    exit_code: ExitCode


@dataclass(frozen=True)
class Interrupted:
    """Somebody or something asked it to stop."""

    phase: str
    signal: str


Outcome = Completed | Failed | Interrupted


def exit_code(outcome: Outcome) -> ExitCode:
    match outcome:
        case Completed():
            return ExitCode.DONE
        case Failed():
            return outcome.exit_code
        case Interrupted():
            return ExitCode.INTERRUPTED
        case _:
            assert_never(outcome)


def masked(release: Release, mask: Callable[[str], str]) -> Release:
    """A release as it may be shown: what a provider says can repeat a key."""
    match release:
        case Gone(proof, at):
            return Gone(mask(proof), at)
        case MayStillBill(reason, command):
            return MayStillBill(mask(reason), mask(command))
        case _:
            assert_never(release)


def as_row(outcome: Outcome) -> dict[str, str | None]:
    """The `outcome` of result.json."""
    match outcome:
        case Completed():
            return {"status": "completed", "phase": None, "error": None}
        case Failed():
            return {"status": "failed", "phase": outcome.phase, "error": outcome.error, "advice": outcome.advice}
        case Interrupted():
            return {"status": "interrupted", "phase": outcome.phase, "error": outcome.signal}
        case _:
            assert_never(outcome)


def release_row(release: Release) -> dict[str, str]:
    """How letting go ended, as results have it."""
    match release:
        case Gone(proof, _):
            return {"state": "gone", "proof": proof}
        case MayStillBill(reason, command):
            return {"state": "may-still-bill", "proof": "", "reason": reason, "command": command}
        case _:
            assert_never(release)
