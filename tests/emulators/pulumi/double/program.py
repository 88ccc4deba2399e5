"""Runs the program: through the Automation API's language server, or as the language host runs a plain one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from .children import end, start_program
from .monitor import EngineLog, Monitor, serve
from .project import Project
from .values import Properties, is_secret, revealed
from .wire import OPTIONS, grpc, language_pb2, language_pb2_grpc, said

UNHANDLED = "an unhandled error occurred"
ALREADY_TOLD = 32
"""The executor's exit code after an exception that it has shown."""
EXECUTOR = Path(__file__).parent / "executor.py"


@dataclass(frozen=True)
class Ended:
    """How a program ended, and what is to be said of it if it was not well."""

    well: bool
    text: str = ""


@dataclass
class Program:
    """A program and what it is told."""

    project: Project
    monitor: Monitor
    log: EngineLog
    config: Properties
    parallel: int
    client: str | None
    _process: subprocess.Popen[bytes] | None = None

    def run(self, woken: Event) -> Ended:
        """Runs it to its end, or until the operation is stopped."""
        server, address = serve(self.monitor, self.log)
        endings: list[Ended] = []

        def wait() -> None:
            endings.append(self._served(address) if self.client else self._plain(address))
            woken.set()

        Thread(target=wait, daemon=True).start()
        woken.wait()
        self.monitor.deployment.steps.settle()
        if not endings:
            self._stop(woken, endings)
        server.stop(0)
        return endings[0] if endings else Ended(well=False)

    def _stop(self, woken: Event, endings: list[Ended]) -> None:
        """After a signal the program has a moment to end by itself: the monitor answers nothing any more."""
        woken.clear()
        if not endings:
            woken.wait(1.0)
        if self._process is not None:
            end(self._process)

    def _served(self, address: str) -> Ended:
        deployment = self.monitor.deployment
        channel = grpc.insecure_channel(self.client, options=OPTIONS)
        request = language_pb2.RunRequest(
            project=deployment.stack.project,
            stack=deployment.stack.name,
            pwd=str(self.project.folder),
            program=".",
            args=[address],
            config=self._texts(),
            configSecretKeys=self._secret_keys(),
            dryRun=deployment.steps.dry_run,
            parallel=self.parallel,
            monitor_address=address,
            organization="organization",
        )
        try:
            answer = language_pb2_grpc.LanguageRuntimeStub(channel).Run(request)
        except grpc.RpcError as error:
            return Ended(well=False, text=said(error))
        return Ended(well=not answer.error, text=f"{UNHANDLED}: {answer.error}")

    def _plain(self, address: str) -> Ended:
        deployment = self.monitor.deployment
        told = {
            "project": deployment.stack.project,
            "stack": deployment.stack.name,
            "monitor": address,
            "engine": address,
            "parallel": self.parallel,
            "dry_run": deployment.steps.dry_run,
            "folder": str(self.project.folder / str(self.project.settings.get("main") or "")),
        }
        keys = {
            "PULUMI_CONFIG": json.dumps(self._texts()),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(self._secret_keys()),
        }
        arguments = [str(EXECUTOR), json.dumps(told)]
        self._process = start_program(arguments, Path(told["folder"]), keys, stdout=sys.stdout)
        code = self._process.wait()
        if code == ALREADY_TOLD:
            return Ended(well=False)
        return Ended(well=code == 0, text=f"{UNHANDLED}: program exited with non-zero exit code: {code}")

    def _texts(self) -> dict[str, str]:
        return {key: str(value) for key, value in revealed(self.config).items()}

    def _secret_keys(self) -> list[str]:
        return [key for key, value in self.config.items() if is_secret(value)]
