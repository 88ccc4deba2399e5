"""One run from its plan to its result: lease, prepare, launch, drive, collect, and let go whatever happens."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from provisioners.acquire import Acquisition, describe
from provisioners.contract import Bill, Gone, Host, Lease, MayStillBill, Observed, Offer, Order, Release
from provisioners.journal import Entry, Journal
from provisioners.masking import Mask
from provisioners.preflight import clear
from recipes.errors import ExitCode, MayStillBillError, NoMachine, UsageError
from runners import events
from runners.budget import Deadline, PhaseLimit, adopted_deadline, brief, lease_deadline, phase_limit
from runners.checking import checking
from runners.client import open_transport
from runners.clock import Clock
from runners.drive import Measured, drive
from runners.driver.remote import HostDrive
from runners.failures import FAILURE_IN, failure, kept, unwritten, waited_for
from runners.forecast.month import budget_warnings
from runners.keeping import keep
from runners.launch import Running, engine_port, launch
from runners.ledger import Ledger
from runners.ordering import host_env, order_of
from runners.outcome import Completed, Failed, Interrupted, Outcome, exit_code, masked
from runners.plan import Plan
from runners.plan_document import document_of
from runners.prepare import Prepared, prepare
from runners.result import Facts, build_result, caveats, known
from runners.run_folder import RunFolder
from runners.telemetry import EngineLog, TelemetryFile
from runners.telemetry.host import HostSampler
from runners.watching import billed, taken_away, until_taken_away, without_machine


class Session:
    """Runs a plan once, or goes on with a run whose client died.

    Nothing that happens in it keeps the lease from being let go.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RunFolder,
        clock: Clock,
        ledger: Ledger,
        env: Mapping[str, str],
        *listeners: events.Listener,
        adopted: Entry | None = None,
        keep: bool = False,
    ) -> None:
        """`keep`: after work that was completed the machine stays until somebody ends it, or a limit does."""
        self._plan, self._folder, self._clock, self._ledger, self._env = plan, folder, clock, ledger, env
        self._secrets = [env.get(name, "") for name in (*plan.recipe.secrets, *plan.provisioner.secrets)]
        self._mask = Mask(self._secrets)
        self._journal = Journal(ledger.path, lambda text: self._mask(text))
        self._emit = events.EventLog(folder.path / "events.jsonl", *listeners)
        self._phase = "plan"
        self._adopted, self._keep = adopted, keep
        self._acquisition = Acquisition(plan.provisioner, self._journal, adopted.lease if adopted else None)
        self._deadline: Deadline | None = None
        self._signal: str | None = None
        self._hurried = False
        self._taken: Observed | None = None
        self._out_of_reach = False
        self._limit: tuple[asyncio.Timeout, PhaseLimit] | None = None
        self._stoppable: asyncio.Task[None] | None = None
        self._host: Host | None = None
        self._watching: asyncio.Task[None] | None = None
        self._log: EngineLog | None = None
        self._prepared: Prepared | None = None
        self._running: Running | None = None
        self._driver: HostDrive | None = None
        self._bill: Bill | None = None
        self._measured = Measured()
        rows = folder.path / "telemetry.jsonl"
        self._telemetry = TelemetryFile(rows, lambda row: self._emit(events.Sampled(row)), self._warn)
        self._sampler = HostSampler(self._telemetry)
        self._warnings: list[str] = []

    async def run(self) -> dict[str, Any]:
        """The run's result, which is in the folder and in the ledger when this returns.

        Raises MayStillBillError if the machine was not proven gone and no result could be made either.
        """
        self._begin()
        try:
            outcome = await self._attempt(self._work())
            self._out_of_reach = isinstance(outcome, Failed) and outcome.exit_code == NoMachine.exit_code
            if self._host is not None and not self._hurried and self._taken is None:
                outcome = self._worse(outcome, await self._attempt(self._collect(self._host)))
            if self._keep and isinstance(outcome, Completed) and self._running is not None:
                await self._hold(self._running)
        finally:
            release = await self._let_go()
        if self._signal is not None:
            outcome = self._worse(outcome, Interrupted(self._phase, self._signal))
        try:
            return self._conclude(outcome, release)
        except Exception as error:
            if isinstance(release, MayStillBill):
                raise MayStillBillError(release.reason, advice=release.command) from error
            if isinstance(error, OSError | UsageError):
                raise unwritten(error, release, self._folder.path / "result.json") from error
            raise

    def interrupt(self, name: str) -> None:
        """The wish to stop. The first ends the work, the second also the collecting; letting go is never cut short."""
        self._hurried = self._signal is not None
        self._emit(events.Interrupted(name, second=self._hurried))
        self._signal = name
        if self._stoppable is not None:
            self._stoppable.cancel()

    def heed_wish(self) -> None:
        """Stop if somebody has asked for the end of this run from another terminal."""
        if self._folder.wishes_to_stop() and self._signal is None:
            self.interrupt("down")

    def _worse(self, outcome: Outcome, later: Outcome) -> Outcome:
        """What happened first counts; what failed after it is a warning."""
        if isinstance(outcome, Completed):
            return later
        if isinstance(later, Failed):
            self._warn(f"{later.phase}: {later.error}")
        return outcome

    def _begin(self) -> None:
        recipe, folder = self._plan.recipe, self._folder
        if self._adopted is None:
            self._use_offer(self._plan.offer)
            began = self._clock.started_at.isoformat()
            digest = self._plan.loaded.digest
            self._ledger.begin(folder.run_id, recipe.name, digest, began, os.getpid(), known(self._plan))
            folder.write_text("recipe.yaml", self._plan.loaded.text)
            folder.write_json("resolved.json", recipe.resolved())
            folder.write_json("plan.json", document_of(self._plan))
        else:
            self._adopt(self._adopted)
        deadline = self._deadline.at.isoformat(timespec="seconds") if self._deadline else None
        self._emit(events.RunStarted(folder.run_id, recipe.name, str(folder.path), recipe.limits.max_cost, deadline))
        self._end_phase("before" if self._adopted else "plan", note=self._plan.counted)
        self._warn(*budget_warnings(self._plan.findings))

    def _use_offer(self, offer: Offer) -> None:
        billable = self._plan.provisioner.billable
        self._clock.price_usd_per_h, self._clock.storage_usd_per_h = offer.price_usd_per_h, offer.storage_usd_per_h
        self._deadline = lease_deadline(self._plan.recipe.limits, offer.usd_per_h, datetime.now(UTC), billable=billable)

    def _adopt(self, entry: Entry) -> None:
        """Take over what another client has begun: its machine bills on, and its deadline stands."""
        lease = entry.lease
        self._clock.price_usd_per_h, self._clock.storage_usd_per_h = lease.price_usd_per_h, lease.storage_usd_per_h
        self._clock.leased(entry.asked_at or entry.changed_at)
        if entry.lease.deadline:
            self._deadline = adopted_deadline(entry.lease.deadline, datetime.now(UTC))
        self._ledger.adopt(self._folder.run_id, os.getpid())

    async def _attempt(self, work: Coroutine[Any, Any, None]) -> Outcome:
        """How the work ended; never raises."""
        self._stoppable = asyncio.create_task(work)
        try:
            await self._stoppable
        except asyncio.CancelledError:
            if self._taken is not None and self._signal is None:
                return without_machine(Failed(self._phase, "", "", ExitCode.NO_MACHINE), self._taken, self._mask)
            return Interrupted(self._phase, self._signal or "cancelled")
        except Exception as error:
            return await self._explained(failure(error, self._phase, self._mask, self._folder.path))
        finally:
            self._stoppable = None
        return Completed()

    async def _explained(self, failed: Failed) -> Failed:
        """A machine that was taken away is the cause of whatever failed on it."""
        lease, phase = self._acquisition.lease, failed.phase
        if lease is None or phase in ("provision", "collect") or not self._plan.provisioner.billable:
            return failed
        self._taken = await taken_away(self._plan.provisioner, lease)
        return without_machine(failed, self._taken, self._mask) if self._taken else failed

    async def _watch(self, lease: Lease) -> None:
        self._taken = await until_taken_away(self._plan.provisioner, lease)
        if self._stoppable is not None:
            self._stoppable.cancel()

    async def _work(self) -> None:
        plan, folder, env = self._plan, self._folder, host_env(self._plan, self._env)
        told = (folder, self._measured, self._emit, self._clock.spent_usd, self._telemetry)
        if plan.recipe.workload.where == "host":
            self._driver = HostDrive(plan, *told)
        driver = self._driver
        if self._signal is not None:
            raise asyncio.CancelledError
        async with self._timed("provision"):
            host = await self._provision()
        async with self._timed("prepare"):
            log_path = folder.free_for("install.log")
            self._prepared = prepared = await prepare(plan, host, env, log_path, self._mask, self._emit, driver)
        async with open_transport() as transport, checking(plan, transport, self._warn) as check:
            async with self._timed("launch"):
                self._log = EngineLog(folder.free_for("engine.log"), plan.engine, self._mask)
                port = await engine_port(plan, host, folder)
                self._running = await launch(plan, host, prepared, env, port, self._log, transport, driver)
                if self._running.way not in ("direct", "on the host"):
                    self._emit(events.Noted("launch", f"through {self._running.way}"))
                await check.before_load(self._running)
            async with self._timed("drive"):
                running = self._running
                await (driver.drive() if driver else drive(plan, running, transport, *told))

    async def _provision(self) -> Host:
        plan = self._plan
        if self._adopted is None:
            clearance = clear(plan.findings)
            retry_s = plan.recipe.resources.retry
            try:
                await self._acquisition.get(plan.offers, self._order, clearance, retry_s=retry_s, note=self._refused)
            except NoMachine:
                self._clock.not_leased()
                raise
        lease = self._acquisition.lease
        assert lease is not None
        self._clock.price_usd_per_h, self._clock.storage_usd_per_h = lease.price_usd_per_h, lease.storage_usd_per_h
        self._emit(events.LeaseChanged(lease.name, "created"))
        self._emit(events.Advanced("provision", f"{lease.id or lease.name}: waiting until it can be used"))
        self._warn(*lease.details.get("warnings", ()))
        self._host = host = await plan.provisioner.host(lease)
        self._acquisition.reached()
        self._mask = Mask([*self._secrets, host.key])
        self._sampler.begin(host, self._folder)
        self._warn(*host.notes)
        if plan.provisioner.billable:
            self._watching = asyncio.create_task(self._watch(lease))
        return host

    def _order(self, offer: Offer) -> Order:
        """What is asked for with this offer; from now on it may be billing."""
        self._clock.leased()
        self._use_offer(offer)
        self._limit_phase("provision")
        deadline = self._deadline.at if self._deadline else None
        order = order_of(self._plan, offer, self._folder.run_id, deadline, self._env)
        self._emit(events.LeaseChanged(order.lease.name, "intended"))
        self._emit(events.Advanced("provision", f"asking for {describe(offer)}"))
        return order

    def _refused(self, message: str) -> None:
        self._clock.not_leased()
        if self._limit is not None:
            self._limit_phase("provision", self._limit[0])
        self._emit(events.Noted("provision", self._mask(message)))

    async def _collect(self, host: Host) -> None:
        async with self._timed("collect"):
            if self._running is not None and self._running.process is not None:
                await self._running.process.catch_up()
            if self._driver is not None:
                await self._driver.catch_up()
            await self._sampler.catch_up()
            for pattern in self._plan.recipe.collect:
                found = await host.fetch(pattern, self._folder.path / "collected")
                if not found:
                    self._warn(f"collect: {pattern} matches nothing in {host.work_dir}")

    async def _hold(self, running: Running) -> None:
        """What was done stays done, however this ends."""
        self._phase = "keep"
        self._emit(events.PhaseStarted("keep"))
        until = self._deadline.work_until if self._deadline else None
        told = (self._emit, self._clock.spent_usd, self._telemetry)
        ended = await self._attempt(keep(running, self._folder, until, *told))
        self._signal = None  # its end was wished for, not that of the work
        if isinstance(ended, Failed):
            self._warn(ended.error)
        self._end_phase("keep")

    async def _let_go(self) -> Release:
        """Always; it cannot be interrupted, and its own failures are answers."""
        self._phase = "release"
        if self._watching is not None:
            self._watching.cancel()
        lease = self._acquisition.lease
        if lease is None:
            self._clock.not_leased()
            self._close_log()
            return Gone("nothing was leased")
        self._emit(events.PhaseStarted("release"))
        with suppress(Exception):  # the journal says already that it may be billing
            self._journal.releasing(lease)
        release = masked(await self._destroyed(lease), self._mask)
        try:
            self._journal.released(lease, release)
        except Exception as error:
            self._warn(f"the lease journal could not be written: {error}")
        match release:
            case Gone(proof, at):
                self._clock.released(at)
                self._emit(events.LeaseChanged(lease.name, "gone", proof))
            case MayStillBill(reason, _):
                self._emit(events.LeaseChanged(lease.name, "may-still-bill", reason))
        self._close_log()
        self._end_phase("release", ok=isinstance(release, Gone))
        self._bill = await billed(self._plan.provisioner, lease)
        return release

    async def _destroyed(self, lease: Lease) -> Release:
        provisioner = self._plan.provisioner
        try:
            destroying = asyncio.ensure_future(
                provisioner.destroy(lease, patience_s=self._plan.recipe.limits.deadlines.release)
            )
            if self._host is not None:
                with suppress(Exception):
                    await self._sampler.finish()
                    await asyncio.wait_for(self._host.close(), 5)
            return await destroying
        except (Exception, asyncio.CancelledError) as error:
            kept(traceback.format_exc(), self._mask, self._folder.path)
            return MayStillBill(f"{type(error).__name__}: {error}", provisioner.command_to_end(lease))

    def _close_log(self) -> None:
        for file in (self._log, self._driver, self._telemetry):
            if file is not None:
                file.close()

    def _conclude(self, outcome: Outcome, release: Release) -> dict[str, Any]:
        workload, records = self._plan.recipe.workload, self._measured.records
        self._warn(*caveats(records, workload, self._measured.earlier))
        code = ExitCode.STILL_BILLING if isinstance(release, MayStillBill) else exit_code(outcome)
        self._emit(events.RunEnded(self._folder.run_id, type(outcome).__name__.lower(), code))
        self._emit.close()
        facts = Facts(
            lease=self._acquisition.lease,
            offer=self._acquisition.offer or self._plan.offer,
            way=self._running.way if self._running else None,
            bill=self._bill,
            adopted=self._adopted is not None,
            prepared=self._prepared,
        )
        self._measured.telemetry = self._telemetry.figures.row()
        run = (self._plan, self._folder, self._clock, self._measured)
        result = build_result(*run, outcome, release, self._warnings, facts, exit_code=code)
        self._folder.write_json("result.json", result)
        self._ledger.end(result)
        return result

    @asynccontextmanager
    async def _timed(self, phase: str) -> AsyncIterator[None]:
        """A phase with its deadline: its own, or the lease's if that comes first."""
        self._phase = phase
        self._emit(events.PhaseStarted(phase))
        try:
            async with asyncio.timeout(None) as timeout:
                limit = self._limit_phase(phase, timeout)
                yield
        except (TimeoutError, asyncio.CancelledError) as error:
            self._end_phase(phase, ok=False)
            # Python 3.11 can let a cancellation through that was the timeout's own.
            if not timeout.expired() or self._signal is not None:
                raise
            limit = self._limit[1] if self._limit else limit
            waited = waited_for(error)
            what = f"{phase} did not end within {limit.name}" + (f": {waited}" if waited else "")
            raise FAILURE_IN[phase](what, advice=limit.advice) from error
        except BaseException:
            self._end_phase(phase, ok=False)
            raise
        self._end_phase(phase)

    def _limit_phase(self, phase: str, timeout: asyncio.Timeout | None = None) -> PhaseLimit:
        """Give the phase its deadline; again when a lease is asked for, which has one of its own."""
        leased = self._deadline if self._acquisition.lease or timeout is None else None
        timeout = timeout or (self._limit[0] if self._limit else None)
        limit = phase_limit(phase, self._plan.recipe, leased, self._clock.usd_per_h, self._clock.billed_seconds())
        if phase == "collect" and self._out_of_reach:
            limit = brief(limit)
        if timeout is not None:
            seconds = limit.seconds
            timeout.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)
            self._limit = (timeout, limit)
        return limit

    def _end_phase(self, phase: str, *, ok: bool = True, note: str = "") -> None:
        ended = self._clock.end_phase(phase)
        self._emit(events.PhaseEnded(phase, ended.seconds, ended.usd, ok, note))

    def _warn(self, *messages: str) -> None:
        for message in map(self._mask, messages):
            self._warnings.append(message)
            self._emit(events.Warned(self._phase, message))
