"""`up`, `preview`, `refresh` and `destroy`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FrameType

from .backend import VERSION
from .context import Context
from .deployment import Deployment
from .display import Display
from .errors import CommandFailed, UpdateFailed
from .events import Events
from .monitor import EngineLog, Monitor
from .program import Program
from .project import Project, StackName
from .provider import DynamicProvider
from .secrets import Crypter
from .snapshot import Snapshot
from .steps import Steps
from .values import Properties, masked

CANCELLING = (
    "^C received; cancelling. If you would like to terminate immediately, press ^C again.\n"
    "Note that terminating immediately may lead to orphaned resources and other inconsistencies.\n"
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
        """0, or 255 if it failed; the state is kept in any case."""
        if self.dry_run:
            return self._run()
        with self.context.backend.locked(self.stack):
            return self._run()

    def _run(self) -> int:
        began = time.time()
        display = Display(self.dry_run, quiet=self.options.json)
        display.title(TITLES[self.kind], self.stack.name)
        events = Events.to(display, self.options.event_log, dry_run=self.dry_run)
        deployment = self._deployment(events)
        steps = deployment.steps
        events.prelude({key: str(value) for key, value in masked(self.config).items()})
        failed = ""
        try:
            failed = self._act(deployment)
        except UpdateFailed:
            pass
        finally:
            steps.settle()
            steps.provider.close()
        ok = not (failed or steps.failed or steps.stopping.is_set())
        self._end(events, deployment, failed, ok, began)
        return 0 if ok else 255

    def _deployment(self, events: Events) -> Deployment:
        snapshot = Snapshot.load(self.context.backend, self.stack, self.crypter, writes=not self.dry_run)
        provider = DynamicProvider(self.project.folder, self.stack.project, self.config, self.dry_run)
        steps = Steps(snapshot, provider, events, self.dry_run, self.options.continue_on_error)
        return Deployment(self.stack, steps, self.config, self.options.replace)

    def _act(self, deployment: Deployment) -> str:
        steps = deployment.steps
        woken = threading.Event()
        self._on_signals(steps, woken)
        if self.options.clear_pending_creates:
            steps.snapshot.clear_pending()
        self._warn_of_pending(steps)
        if self.kind == "refresh" or self.options.refresh:
            deployment.refresh_all()
        if self.kind == "refresh":
            return ""
        if self.kind == "destroy":
            deployment.delete_the_rest()
            return ""
        program = Program(
            self.project,
            Monitor(deployment),
            EngineLog(steps),
            self.config,
            self.options.parallel,
            self.options.client,
        )
        failed = program.run(woken)
        if not failed:
            program.monitor.finish()
        return failed

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
                raise SystemExit(255)
            sys.stderr.write(CANCELLING)
            sys.stderr.flush()
            steps.stopping.set()
            threading.Thread(target=steps.provider.cancel, daemon=True).start()
            woken.set()

        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, heard)

    def _end(self, events: Events, deployment: Deployment, failed: str, ok: bool, began: float) -> None:
        steps = deployment.steps
        changes = {op: count for op, count in steps.changes.items() if count}
        root = next((one.urn for one in steps.snapshot.resources if one.type == "pulumi:pulumi:Stack"), "")
        if steps.stopping.is_set():
            events.diagnostic("error", f"{'preview' if self.dry_run else 'update'} canceled", root)
        elif not ok:
            events.diagnostic("error", f"{'preview' if self.dry_run else 'update'} failed", root)
        events.summary(changes, time.time() - began)
        events.display.ending(deployment.exported(), changes, show_outputs=not self.options.suppress_outputs)
        if not self.dry_run:
            self._record(changes, ok, began)
        events.close()
        if ok and self.kind == "destroy" and not self.dry_run:
            events.display.line(
                "The resources in the stack have been deleted, but the history and configuration associated with the "
                f"stack are still maintained. \nIf you want to remove the stack completely, run `pulumi stack rm "
                f"{self.stack.name}`."
            )

    def _record(self, changes: dict[str, int], ok: bool, began: float) -> None:
        config = {key: {"value": value, "secret": False} for key, value in self.config.items()}
        update = {
            "kind": {"up": "update"}.get(self.kind, self.kind),
            "startTime": int(began),
            "message": self.options.message or "",
            "environment": {"exec.kind": self.options.exec_kind, "pulumi.version": VERSION},
            "config": masked(config),
            "result": "succeeded" if ok else "failed",
            "endTime": int(time.time()),
            "resourceChanges": changes,
        }
        self.context.backend.record(self.stack, update)


def run(kind: str, context: Context, options: Namespace) -> int:
    if not (options.yes or options.skip_preview or kind == "preview" or options.preview_only):
        raise CommandFailed("--yes or --skip-preview must be passed in to proceed when running in non-interactive mode")
    return Operation(kind, context, context.stack(options.stack), options).run()


Command = Callable[[str, Context, Namespace], int]
