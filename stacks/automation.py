"""One Pulumi stack through the Automation API. Importing this imports nothing of Pulumi; its methods do."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from provisioners.at_once import all_of
from provisioners.contract import Site
from provisioners.threads import in_thread
from stacks.agreed import making
from stacks.asking import asked
from stacks.backend import backend_of, drop_copies, engine_env, work_dir
from stacks.driving import LAST_WORD_S, Driver
from stacks.engine import need
from stacks.log import Log, log_of
from stacks.masks import mask_of
from stacks.reference import PROGRAMS, StackRef
from stacks.report import Report
from stacks.values import Changes, Heard, NoSuchStack, Secret, StackBusy, StackFailed, StackSummary

if TYPE_CHECKING:
    from pulumi.automation import OutputMap, Stack

    from stacks.events import Steps
    from stacks.sdk import Command

_LAST_WORDS_SHARE = 1 / 3
"""Of a destroy's patience, at most: what LAST_WORD_S takes of it."""
_QUIETLY: Any = {"color": "never", "suppress_outputs": True, "suppress_progress": True}


T = TypeVar("T")


def _nobody(line: str) -> None:
    """For whom nobody listens."""


class Managed:
    """One Pulumi stack. Its methods raise what the resources' providers reported, else StackFailed with the error.

    A cancelled method asks the engine to finish its running step and to write its state; a second cancellation, or
    LAST_WORD_S, ends it at once. Several may work at the same time in one process; each does one thing at a time.
    """

    def __init__(
        self,
        site: Site,
        project: str,
        name: str,
        stack: Stack,
        driver: Driver,
        *,
        fresh: bool,
        make: Callable[[], object] | None,
    ) -> None:
        """Made by `open`. `make` makes the stack once more, where it was to be made at all."""
        self._site, self._project, self._name = site, project, name
        self._stack, self._driver, self._make = stack, driver, make
        self.fresh = fresh
        """Made by this `open`."""

    @property
    def report(self) -> Report:
        """What providers told during the last operation."""
        return self._driver.report

    @classmethod
    async def open(
        cls, site: Site, project: str, name: str, program: Callable[[], None] | None = None, *, create: bool
    ) -> Self:
        """The stack, made if it is not there and `create` says so. Raises NoSuchStack, NoEngine, UsageError."""
        backend = backend_of(site)
        engine = await in_thread(need, site)
        folder = work_dir(site, project, name)
        # Its key may be that of an earlier stack of this name, which a colleague has made anew: the state has its own.
        (folder / f"Pulumi.{name}.yaml").unlink(missing_ok=True)
        env = engine_env(site, backend, folder)
        log = Log(log_of(site, project, name), mask_of(env))

        def command() -> Command:
            from stacks.sdk import Command

            return Command(engine, env, log.write)

        driver = Driver(site, str(StackRef.of(project, name)), await in_thread(command), log)

        def stack() -> tuple[Stack, bool]:
            from stacks.sdk import stack_of

            work_dir(site, project, name)
            return stack_of(driver.command, folder, backend.stack(project, name), program, create=create)

        found, fresh = await driver.call("open", stack)
        return cls(site, project, name, found, driver, fresh=fresh, make=stack if create else None)

    async def preview(self, heard: Heard = _nobody, *, refresh: bool = False) -> Changes:
        """What `up` would do. Sends no writing request. `refresh`: resources are looked at, not only their state."""
        steps, _ = await self._steps("preview", heard, self._stack.preview, refresh=refresh)
        return steps.changes

    async def up(
        self, heard: Heard = _nobody, *, refresh: bool = False, makes: frozenset[str] | None = None
    ) -> Mapping[str, Any]:
        """Make it so; returns the outputs, secrets as `Secret`. `refresh`: what is gone meanwhile is made again.

        `makes`: the kinds of which something was agreed to be made, if not all. Raises NoMachine where it took another.
        """
        with making(makes, self._driver.command.env):
            _, result = await self._steps("up", heard, self._stack.up, show_secrets=False, refresh=refresh)
        return _values(result.outputs)

    async def preview_destroy(self, heard: Heard = _nobody) -> Changes:
        """What `destroy` would delete."""
        steps, _ = await self._steps("preview", heard, self._stack.preview_destroy)
        return steps.changes

    async def destroy(self, heard: Heard = _nobody, *, patience_s: float) -> None:
        """Delete everything in it; the stack itself stays, empty. Raises StackFailed when patience is over."""
        last_word_s = min(LAST_WORD_S, patience_s * _LAST_WORDS_SHARE)
        try:
            async with asyncio.timeout(patience_s - last_word_s):
                await self._steps("destroy", heard, self._stack.destroy, last_word_s=last_word_s, show_secrets=False)
        except TimeoutError:
            if self.report.error is not None:
                raise self.report.error from None
            message = f"Pulumi did not destroy {self} within {patience_s:.0f} s"
            raise StackFailed(message, advice=f"all that it said: {self._driver.log.path}") from None

    async def outputs(self) -> Mapping[str, Any]:
        """As of the last update; secrets as `Secret`."""
        return _values(await self._driver.call("output", self._stack.outputs))

    async def unlock(self) -> None:
        """Lift whoever's lock. Only where it is known that he has died: two updates at once spoil the state."""
        await self._driver.call("cancel", self._stack.cancel)

    async def remove(self, *, force: bool = False) -> None:
        """Forget the stack and its folder here. It must be empty, unless `force`: then its log stays as well."""
        stack = self._stack
        await self._driver.call("stack rm", lambda: stack.workspace.remove_stack(stack.name, force=force))
        if backend_of(self._site).own:
            drop_copies(self._site, self._project, self._name)
        shutil.rmtree(work_dir(self._site, self._project, self._name), ignore_errors=True)
        if not force:
            self._driver.log.remove()

    def __str__(self) -> str:
        return str(StackRef.of(self._project, self._name))

    async def _steps(
        self, what: str, heard: Heard, call: Callable[..., T], *, last_word_s: float = LAST_WORD_S, **how: bool
    ) -> tuple[Steps, T]:
        """An operation whose steps are followed; tried once more where a process that has died left its lock.

        And where the stack has gone since it was opened: whoever only looked takes away what it made for that, an empty
        stack and its folder. What a provider has told of is no such stack.
        """
        from stacks.events import Steps

        loop, mask = asyncio.get_running_loop(), self._driver.log.masked

        def told(line: str) -> None:
            loop.call_soon_threadsafe(heard, mask(line))

        async def followed() -> tuple[Steps, T]:
            steps = Steps(told)
            work = partial(call, on_event=steps.hear, **_QUIETLY, **how)
            return steps, await self._driver.operate(what, work, heard, steps.errors, last_word_s=last_word_s)

        try:
            return await followed()
        except StackBusy:
            if not self._lifted(heard):
                raise
        except (NoSuchStack, StackFailed) as error:
            has_gone = isinstance(error, NoSuchStack) or not Path(self._stack.workspace.work_dir).is_dir()
            if self._make is None or not has_gone or self.report.notes:
                raise
            await self._driver.call("open", self._make)
        return await followed()

    def _lifted(self, heard: Heard) -> bool:
        """Whether all locks were of processes of this machine that have died, and are gone now."""
        holder = self._driver.lifted()
        if holder is not None:
            heard(f"lifts the lock of {holder}: that process has ended")
        return holder is not None


def _values(outputs: OutputMap) -> dict[str, Any]:
    return {name: Secret(output.value) if output.secret else output.value for name, output in outputs.items()}


async def stacks(site: Site) -> list[StackSummary]:
    """The stacks of both programs in the backend, without the SDK. Raises NoEngine, StackFailed, UsageError."""
    projects = [StackRef(program).project for program in PROGRAMS]
    found = await all_of(asked(site, project, "stack", "ls", "--json") for project in projects)
    return [_summary(project, one) for project, told in zip(projects, found, strict=True) for one in told]


def _summary(project: str, told: Mapping[str, Any]) -> StackSummary:
    at = told.get("lastUpdate")
    return StackSummary(
        project=project,
        name=str(told["name"]).rpartition("/")[2],
        updated_at=datetime.fromisoformat(at) if at else None,
        resources=told.get("resourceCount"),
        busy=told.get("updateInProgress"),
    )
