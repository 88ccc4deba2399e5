"""From an exception to how the run ended."""

from __future__ import annotations

import asyncio
import sqlite3
import traceback
from collections.abc import Mapping
from pathlib import Path

from provisioners.contract import Gone
from provisioners.masking import Mask
from recipes.errors import (
    EngineFailed,
    ExitCode,
    HostCommandFailed,
    NoMachine,
    RecipeError,
    UsageError,
    WorkloadFailed,
)
from runners.outcome import Failed

FAILURE_IN: Mapping[str, type[RecipeError]] = {
    "provision": NoMachine,
    "prepare": HostCommandFailed,
    "launch": EngineFailed,
    "drive": WorkloadFailed,
    "collect": HostCommandFailed,
    "keep": EngineFailed,
}
"""What a phase that cannot be finished is."""


def failure(error: Exception, phase: str, mask: Mask, folder: Path) -> Failed:
    """The outcome that an exception of a phase means; a bug's traceback is kept in the folder."""
    error = _innermost(error)
    if isinstance(error, RecipeError):
        return Failed(phase, mask(error.message), mask(error.advice), error.exit_code)
    what = mask(f"{type(error).__name__}: {error}")
    if isinstance(error, OSError | sqlite3.OperationalError):
        advice = "see whether the disk is full, and whether RECIPE_HOME may be written"
        return Failed(phase, what, advice, FAILURE_IN[phase].exit_code)
    trace = "".join(traceback.format_exception(error))
    return Failed(phase, f"a bug in recipe: {what}", kept(trace, mask, folder), ExitCode.BUG)


def kept(trace: str, mask: Mask, folder: Path) -> str:
    """Add a traceback to bug.log; returns the advice to attach it."""
    trace = mask(trace)
    path = folder / "bug.log"
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(trace)
    except OSError:
        return f"please report it; there was no place for its log:\n{trace}"
    return f"please report it with {path}"


def unwritten(error: OSError | UsageError, release: Gone, result: Path) -> UsageError:
    """What to raise for a result that could not be written: what matters most is that the machine is gone."""
    what = error.message if isinstance(error, UsageError) else str(error)
    gone = f"; the machine is gone, proven: {release.proof}"
    if result.is_file():
        message = f"{what}; {result} is whole{gone}"
        return UsageError(message, advice="make room; the next command takes the result into the log")
    message = f"the result could not be written: {what}{gone}"
    return UsageError(message, advice="see whether the disk is full, and whether RECIPE_HOME may be written")


def waited_for(error: BaseException | None) -> str:
    """What a cancelled wait says that it waited for, if it does."""
    while error is not None:
        if isinstance(error, asyncio.CancelledError) and error.args:
            return str(error.args[0])
        error = error.__cause__ or error.__context__
    return ""


def _innermost(error: Exception) -> Exception:
    """The first error of a group of tasks, or the error itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
