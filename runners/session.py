"""One run from its plan to its result: lease, prepare, launch, drive, collect, and let go whatever happens."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
import traceback
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from provisioners.contract import Gone, Host, Lease, MayStillBill, Release
from provisioners.journal import Journal
from provisioners.preflight import clear
from recipes.errors import (
    EngineFailed,
    ExitCode,
    HostCommandFailed,
    MayStillBillError,
    NoMachine,
    RecipeError,
    WorkloadFailed,
)
from runners import events
from runners.client import open_session
from runners.clock import Clock
from runners.drive import Measured, drive
from runners.launch import launch
from runners.ledger import Ledger
from runners.masking import Mask
from runners.outcome import Completed, Failed, Interrupted, Outcome, exit_code
from runners.plan import Plan
from runners.prepare import prepare
from runners.result import build_result
from runners.run_folder import RunFolder
from runners.telemetry import EngineLog
from runners.terminal.words import plural

# What a phase that cannot be finished is.
_FAILURE_IN: Mapping[str, type[RecipeError]] = {
    "provision": NoMachine,
    "prepare": HostCommandFailed,
    "launch": EngineFailed,
    "drive": WorkloadFailed,
    "collect": HostCommandFailed,
}

# Kept back from max_cost, so that collecting and letting go are paid for as well: so long, but no more than this share.
_AFTERWARDS_S, _AFTERWARDS_SHARE = 60.0, 0.2
# What a date can hold, and more than any run takes.
_LONGEST_S = 3650 * 86400.0


class Session:
    """Runs a plan once. Nothing that happens in it keeps the lease from being let go."""

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        clock: Clock,
        ledger: Ledger,
        env: Mapping[str, str],
        *listeners: events.Listener,
    ) -> None:
        self._plan, self._folder, self._clock, self._ledger, self._env = plan, folder, clock, ledger, env
        self._key = secrets.token_urlsafe(24)
        self._mask = Mask([*(env.get(name, "") for name in plan.recipe.secrets), self._key])
        self._journal = Journal(ledger.path)
        self._emit = events.EventLog(folder.path / "events.jsonl", *listeners)
        self._phase = "plan"
        self._deadline: tuple[datetime, str] | None = None
        self._signal: str | None = None
        self._hurried = False
        self._stoppable: asyncio.Task[None] | None = None
        self._lease: Lease | None = None
        self._nothing_created = False
        self._host: Host | None = None
        self._log: EngineLog | None = None
        self._measured = Measured()
        self._warnings: list[str] = []

    async def run(self) -> dict[str, Any]:
        """The run's result, which is in the folder and in the ledger when this returns.

        Raises MayStillBillError if the machine was not proven gone and no result could be made either.
        """
        self._begin()
        try:
            outcome = await self._attempt(self._work())
            if self._host is not None and not self._hurried:
                outcome = self._worse(outcome, await self._attempt(self._collect(self._host)))
        finally:
            release = await self._let_go()
        if self._signal is not None:
            outcome = self._worse(outcome, Interrupted(self._phase, self._signal))
        try:
            return self._conclude(outcome, release)
        except Exception as error:
            if isinstance(release, MayStillBill):
                raise MayStillBillError(release.reason, advice=release.command) from error
            raise

    def interrupt(self, name: str) -> None:
        """The wish to stop. The first ends the work, the second also the collecting; letting go is never cut short."""
        self._hurried = self._signal is not None
        self._emit(events.Interrupted(name, second=self._hurried))
        self._signal = name
        if self._stoppable is not None:
            self._stoppable.cancel()

    def _worse(self, outcome: Outcome, later: Outcome) -> Outcome:
        """What happened first counts; what failed after it is a warning."""
        if isinstance(outcome, Completed):
            return later
        if isinstance(later, Failed):
            self._warn(f"{later.phase}: {later.error}")
        return outcome

    def _begin(self) -> None:
        recipe, folder = self._plan.recipe, self._folder
        self._clock.price_usd_per_h = self._plan.offer.price_usd_per_h
        self._deadline = self._lease_deadline()
        self._ledger.begin(
            folder.run_id, recipe.name, self._plan.loaded.digest, self._clock.started_at.isoformat(), os.getpid()
        )
        folder.write_text("recipe.yaml", self._plan.loaded.text)
        folder.write_json("resolved.json", recipe.resolved())
        folder.write_json("plan.json", self._plan.document())
        deadline = self._deadline[0].isoformat(timespec="seconds") if self._deadline else None
        self._emit(events.RunStarted(folder.run_id, recipe.name, str(folder.path), recipe.limits.max_cost, deadline))
        self._end_phase("plan", note=_counted(self._plan))

    def _lease_deadline(self) -> tuple[datetime, str] | None:
        """The earlier of max_duration and the moment at which max_cost is spent, and which of the two it is."""
        allowed = {"limits.max_duration": self._plan.recipe.limits.max_duration}
        if (affordable := self._affordable_s()) is not None:
            allowed["limits.max_cost"] = affordable - min(_AFTERWARDS_S, affordable * _AFTERWARDS_SHARE)
        known = [(seconds, name) for name, seconds in allowed.items() if seconds is not None]
        if not known:
            return None
        seconds, name = min(known)
        return datetime.now(UTC) + timedelta(seconds=min(seconds, _LONGEST_S)), name

    def _affordable_s(self) -> float | None:
        """How long the lease may last before max_cost is spent."""
        limit, price = self._plan.recipe.limits.max_cost, self._plan.offer.price_usd_per_h
        return limit / price * 3600 if limit is not None and price else None

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> Outcome:
        """How the work ended; never raises."""
        self._stoppable = asyncio.create_task(work)
        try:
            await self._stoppable
        except asyncio.CancelledError:
            return Interrupted(self._phase, self._signal or "cancelled")
        except Exception as error:
            return self._failure(_innermost(error))
        finally:
            self._stoppable = None
        return Completed()

    def _failure(self, error: Exception) -> Failed:
        if isinstance(error, RecipeError):
            return Failed(self._phase, self._mask(error.message), error.advice, error.exit_code)
        what = self._mask(f"{type(error).__name__}: {error}")
        if isinstance(error, OSError | sqlite3.OperationalError):
            advice = "see whether the disk is full, and whether RECIPE_HOME may be written"
            return Failed(self._phase, what, advice, _FAILURE_IN[self._phase].exit_code)
        return Failed(self._phase, f"a bug in recipe: {what}", self._kept(traceback.format_exc()), ExitCode.BUG)

    def _kept(self, trace: str) -> str:
        """Add a traceback to bug.log; returns the advice to attach it."""
        trace = self._mask(trace)
        path = self._folder.path / "bug.log"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(trace)
        except OSError:
            return f"please report it; there was no place for its log:\n{trace}"
        return f"please report it with {path}"

    async def _work(self) -> None:
        plan, folder, env = self._plan, self._folder, self._host_env()
        if self._signal is not None:
            raise asyncio.CancelledError
        async with self._timed("provision"):
            host = await self._provision()
        async with self._timed("prepare"):
            prepared = await prepare(plan, host, env, folder.path / "install.log", self._mask, self._emit)
        async with open_session() as session:
            async with self._timed("launch"):
                self._log = EngineLog(folder.path / "engine.log", plan.engine, self._mask)
                running = await launch(plan, host, prepared, env, self._key, self._log, session)
            async with self._timed("drive"):
                await drive(plan, running, session, folder, self._measured, self._emit, self._clock.spent_usd)

    def _host_env(self) -> dict[str, str]:
        recipe = self._plan.recipe
        return {**recipe.env, **{name: self._env[name] for name in recipe.secrets if name in self._env}}

    async def _provision(self) -> Host:
        plan, run_id = self._plan, self._folder.run_id
        clearance = clear(plan.findings)
        self._lease = Lease(
            provider=plan.provisioner.name,
            name=f"recipe-{run_id}",
            run_id=run_id,
            price_usd_per_h=plan.offer.price_usd_per_h,
            deadline=self._deadline[0] if self._deadline else None,
        )
        self._journal.intend(self._lease)
        self._emit(events.LeaseChanged(self._lease.name, "intended"))
        try:
            self._lease = await plan.provisioner.create(plan.offer, clearance, self._lease)
        except NoMachine:
            self._nothing_created = True
            raise
        self._journal.created(self._lease)
        self._emit(events.LeaseChanged(self._lease.name, "created"))
        self._host = await plan.provisioner.host(self._lease)
        return self._host

    async def _collect(self, host: Host) -> None:
        async with self._timed("collect"):
            for pattern in self._plan.recipe.collect:
                found = await host.fetch(pattern, self._folder.path / "collected")
                if not found:
                    self._warn(f"collect: {pattern} matches nothing in {host.work_dir}")

    async def _let_go(self) -> Release:
        """Always; it cannot be interrupted, and its own failures are answers."""
        self._phase = "release"
        if self._lease is None:
            self._clock.nothing_leased()
            return Gone("nothing was leased")
        self._emit(events.PhaseStarted("release"))
        try:
            release = await self._plan.provisioner.destroy(self._lease)
        except (Exception, asyncio.CancelledError) as error:
            self._kept(traceback.format_exc())
            command = self._plan.provisioner.command_to_end(self._lease)
            release = MayStillBill(f"{type(error).__name__}: {error}", command)
        try:
            self._journal.released(self._lease, release)
        except Exception as error:
            self._warn(f"the lease journal could not be written: {error}")
        match release:
            case Gone(proof):
                if self._nothing_created:
                    self._clock.nothing_leased()
                self._emit(events.LeaseChanged(self._lease.name, "gone", proof))
            case MayStillBill(reason, _):
                self._emit(events.LeaseChanged(self._lease.name, "may-still-bill", reason))
        if self._log is not None:
            self._log.close()
        self._end_phase("release", ok=isinstance(release, Gone))
        return release

    def _conclude(self, outcome: Outcome, release: Release) -> dict[str, Any]:
        if truncated := sum(r.finish_reason == "length" for r in self._measured.records):
            total = len(self._measured.records)
            self._warn(
                f"{truncated} of {total} answers were cut off at max_tokens {self._plan.recipe.workload.max_tokens}"
            )
        code = ExitCode.STILL_BILLING if isinstance(release, MayStillBill) else exit_code(outcome)
        self._emit(events.RunEnded(self._folder.run_id, type(outcome).__name__.lower(), code))
        self._emit.close()
        result = build_result(
            self._plan, self._folder, self._clock, self._measured, outcome, release, self._warnings, exit_code=code
        )
        self._folder.write_json("result.json", result)
        self._ledger.end(result)
        return result

    @asynccontextmanager
    async def _timed(self, phase: str) -> AsyncIterator[None]:
        """A phase with its deadline: its own, or the lease's if that comes first."""
        self._phase = phase
        self._emit(events.PhaseStarted(phase))
        allowed_s, limit = self._allowed_s(phase)
        try:
            async with asyncio.timeout(allowed_s) as deadline:
                yield
        except TimeoutError as error:
            self._end_phase(phase, ok=False)
            if not deadline.expired():
                raise
            raise _FAILURE_IN[phase](f"{phase} did not end within {limit}", advice=f"raise {limit}") from error
        except BaseException:
            self._end_phase(phase, ok=False)
            raise
        self._end_phase(phase)

    def _allowed_s(self, phase: str) -> tuple[float | None, str]:
        """How long the phase may take, and the limit that says so."""
        own: float | None = getattr(self._plan.recipe.limits.deadlines, phase)
        if phase == "collect":
            # What there is comes home also after the lease's deadline, for half of what was kept back.
            affordable = self._affordable_s()
            left = None if affordable is None else max(0.0, affordable - self._clock.billed_seconds()) / 2
            name = "limits.max_cost"
        elif self._deadline is not None:
            left, name = max(0.0, (self._deadline[0] - datetime.now(UTC)).total_seconds()), self._deadline[1]
        else:
            return own, f"limits.deadlines.{phase}"
        return (left, name) if left is not None and (own is None or left < own) else (own, f"limits.deadlines.{phase}")

    def _end_phase(self, phase: str, *, ok: bool = True, note: str = "") -> None:
        ended = self._clock.end_phase(phase)
        self._emit(events.PhaseEnded(phase, ended.seconds, ended.usd, ok, note))

    def _warn(self, message: str) -> None:
        message = self._mask(message)
        self._warnings.append(message)
        self._emit(events.Warned(self._phase, message))


def _innermost(error: Exception) -> Exception:
    """The first error of a group of tasks, or the error itself."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


def _counted(plan: Plan) -> str:
    estimate = plan.estimate
    counts = (plural(estimate.documents, "document"), plural(estimate.requests, "chunk"))
    return f"{', '.join(counts)}, {estimate.prompt_tokens:,} prompt tokens"
