"""`up`, `preview`, `refresh` and `destroy`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import FrameType

from .backend import VERSION
from .context import Context
from .deployment import Deployment
from .display import Display, as_document
from .errors import CHANGES_SEEN, FAILED, WRONG_CALL, CommandFailed, UpdateFailed
from .events import Events
from .monitor import EngineLog, Monitor
from .program import Program
from .project import Project, StackName
from .provider import DynamicProvider
from .secrets import Crypter
from .snapshot import Snapshot
from .steps import Steps
from .values import Properties, is_secret, masked, revealed

CANCELLING = (
    "{what} received; cancelling. If you would like to terminate immediately, {again} again.\n"
    "Note that terminating immediately may lead to orphaned resources and other inconsistencies.\n"
)
ASKED = {
    signal.SIGINT: {"what": "^C", "again": "press ^C"},
    signal.SIGTERM: {"what": "SIGTERM", "again": "send SIGTERM"},
}
NOT_CONFIRMED = (
    "--yes or --skip-preview or --preview-only must be passed in to proceed when running in non-interactive mode"
)
STILL_THERE = (
    "The resources in the stack have been deleted, but the history and configuration associated with the stack are "
    "still maintained. \nIf you want to remove the stack completely, run `pulumi stack rm {stack}`."
)
TITLES = {"up": "Updating", "destroy": "Destroying", "refresh": "Refreshing", "preview": "Previewing update"}
PENDING = (
    "Attempting to deploy or update resources with {count} pending operations from previous deployment.\n{each}\n"
    "These resources are in an unknown state because the Pulumi CLI was interrupted while waiting for changes to these "
    "resources to complete. You should confirm whether or not the operations listed completed successfully by checking "
    "the state of the appropriate provider. Once you have confirmed the status of the interrupted operations, you can "
    "repair your stack using `pulumi refresh`, which will refresh the state from the provider you are using and clear "
    "the pending operations if there are any.\n"
    "Note that `pulumi refresh` will need to be run interactively to clear pending CREATE operations."
)


@dataclass
class Operation:
    """One of them, on one stack."""

    kind: str
    context: Context
    stack: StackName
    options: Namespace

    @property
    def dry_run(self) -> bool:
        return self.kind == "preview" or self.options.preview_only

    @cached_property
    def crypter(self) -> Crypter:
        return self.context.crypter(self.stack)

    @cached_property
    def config(self) -> Properties:
        return self.context.config(self.stack, self.crypter)

    @property
    def project(self) -> Project:
        return self.context.the_project

    def run(self) -> int:
        """0, or what it failed with; the state is kept in any case."""
        if self.dry_run:
            return self._run()
        with self.context.backend.locked(self.stack):
            self.context.backend.back_up(self.stack)
            return self._run()

    def _run(self) -> int:
        began = time.time()
        display = Display(self.stack, self.dry_run, quiet=self.options.json)
        display.title(TITLES[self.kind])
        events = Events.to(display, self.options.event_log, dry_run=self.dry_run)
        deployment = self._deployment(events)
        steps = deployment.steps
        events.prelude({key: str(value) for key, value in masked(self.config).items()})
        try:
            self._act(deployment)
        except UpdateFailed:
            pass
        finally:
            steps.settle()
            steps.provider.close()
        deployment.finish()
        steps.snapshot.close()
        return self._end(events, deployment, began)

    def _deployment(self, events: Events) -> Deployment:
        snapshot = Snapshot.load(
            self.context.backend, self.stack, self.context.state_crypter(self.stack), writes=not self.dry_run
        )
        provider = DynamicProvider(self.project.folder, self.stack.project, self.config, events.diagnostic)
        steps = Steps(snapshot, provider, events, self.dry_run, self.options.continue_on_error)
        return Deployment(self.stack, steps, self.config, self.options.replace)

    def _act(self, deployment: Deployment) -> None:
        steps = deployment.steps
        woken = threading.Event()
        self._on_signals(steps, woken)
        if self.options.clear_pending_creates:
            steps.snapshot.clear_pending()
        if self.kind == "refresh" or self.options.refresh:
            deployment.refresh_all()
        elif not self.dry_run:
            self._warn_of_pending(steps)
        if self.kind == "destroy":
            deployment.delete_the_rest()
        if self.kind in ("up", "preview"):
            self._run_program(deployment, woken)

    def _run_program(self, deployment: Deployment, woken: threading.Event) -> None:
        monitor, log = Monitor(deployment), EngineLog(deployment.steps)
        told = self.options
        program = Program(self.project, monitor, log, self.config, told.parallel, told.client)
        ended = program.run(woken)
        if ended.well:
            monitor.finish()
        elif not deployment.steps.ended:
            deployment.steps.failed = True
            if ended.text:
                deployment.steps.events.diagnostic("error", ended.text)

    def _warn_of_pending(self, steps: Steps) -> None:
        pending = steps.snapshot.pending
        if pending:
            each = "\n".join(f"  * {one['resource']['urn']}, interrupted while {one['type']}" for one in pending)
            steps.events.diagnostic("warning", PENDING.format(count=len(pending), each=each))

    def _on_signals(self, steps: Steps, woken: threading.Event) -> None:
        """The first one asks for the end, the second one ends at once."""

        def heard(number: int, frame: FrameType | None) -> None:
            if steps.stopping.is_set():
                steps.provider.close()
                os._exit(FAILED)
            steps.stopping.set()
            threading.Thread(target=stop, args=(number,), daemon=True).start()

        def stop(number: int) -> None:
            steps.events.display.line(CANCELLING.format(**ASKED[number]))
            steps.provider.cancel()
            woken.set()

        for number in ASKED:
            signal.signal(number, heard)

    def _end(self, events: Events, deployment: Deployment, began: float) -> int:
        steps = deployment.steps
        changes = {op: count for op, count in steps.changes.items() if count}
        code = self._verdict(steps, changes)
        events.summary(changes, time.time() - began)
        if self.options.json:
            print(as_document(events.planned, changes, events.display.diagnostics))
        events.display.ending(deployment.exported(), changes, show_outputs=not self.options.suppress_outputs)
        if not self.dry_run:
            self._record(changes, code == 0, began)
        events.close()
        if self.kind == "destroy" and not self.dry_run and code == 0:
            events.display.line(STILL_THERE.format(stack=self.stack.name))
        return code

    def _verdict(self, steps: Steps, changes: Mapping[str, int]) -> int:
        what = "preview" if self.dry_run else "update"
        if steps.failed:
            steps.events.diagnostic("error", f"{what} failed")
        elif steps.stopping.is_set():
            steps.events.diagnostic("error", f"{what} canceled")
        elif self.options.expect_no_changes and set(changes) - {"same"}:
            sys.stderr.write("error: no changes were expected but changes were proposed\n")
            return CHANGES_SEEN
        else:
            return 0
        return FAILED

    def _record(self, changes: dict[str, int], ok: bool, began: float) -> None:
        config = {key: {"value": revealed(value), "secret": is_secret(value)} for key, value in self.config.items()}
        hidden = {key: {**one, "value": "[secret]"} if one["secret"] else one for key, one in config.items()}
        update = {
            "kind": {"up": "update"}.get(self.kind, self.kind),
            "startTime": int(began),
            "message": self.options.message or "",
            "environment": {"exec.kind": self.options.exec_kind or "cli", "pulumi.version": VERSION},
            "config": hidden,
            "result": "succeeded" if ok else "failed",
            "endTime": int(time.time()),
            "resourceChanges": changes,
        }
        self.context.backend.record(self.stack, update)


def run(kind: str, context: Context, options: Namespace) -> int:
    """The command's exit code."""
    if not (options.yes or options.skip_preview or kind == "preview" or options.preview_only):
        raise CommandFailed(NOT_CONFIRMED, WRONG_CALL)
    if options.target:
        raise CommandFailed("the double knows no --target", WRONG_CALL)
    return Operation(kind, context, context.stack(options.stack), options).run()
