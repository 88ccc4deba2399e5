"""Runs the program: through the Automation API's language server, or as the language host runs a plain one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

from .monitor import EngineLog, Monitor, serve
from .project import Project
from .values import Properties, is_secret, revealed
from .wire import OPTIONS, grpc, language_pb2, language_pb2_grpc, said

EXECUTOR = Path(__file__).parent / "executor.py"


@dataclass
class Program:
    """A program and what it is told."""

    project: Project
    monitor: Monitor
    log: EngineLog
    config: Properties
    parallel: int
    client: str | None

    def run(self, woken: Event) -> str:
        """Runs it to its end, or until an operation is stopped. Returns what went wrong, or ""."""
        server, address = serve(self.monitor, self.log)
        answer: list[str] = []

        def wait() -> None:
            answer.append(self._served(address) if self.client else self._plain(address))
            woken.set()

        Thread(target=wait, daemon=True).start()
        woken.wait()
        self.monitor.deployment.steps.settle()
        if not answer:
            self._stopped(woken, answer)
        server.stop(0)
        return answer[0] if answer else ""

    def _stopped(self, woken: Event, answer: list[str]) -> None:
        """After a signal the program has a moment to end by itself: the monitor answers nothing any more."""
        woken.clear()
        if not answer:
            woken.wait(1.0)

    def _served(self, address: str) -> str:
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
            return f"an unhandled error occurred: program exited: {said(error)}"
        return str(answer.error)

    def _plain(self, address: str) -> str:
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
        python = os.environ.get("PULUMI_PYTHON_CMD") or "python3"
        ended = subprocess.Popen(
            [python, "-u", str(EXECUTOR), json.dumps(told)],
            cwd=told["folder"],
            env={**os.environ, **keys},
            stdin=subprocess.DEVNULL,
            stdout=sys.stdout,
            process_group=0,
        ).wait()
        return "" if ended == 0 else f"Program exited with non-zero exit code: {ended}"

    def _texts(self) -> dict[str, str]:
        return {key: str(value) for key, value in revealed(self.config).items()}

    def _secret_keys(self) -> list[str]:
        return [key for key, value in self.config.items() if is_secret(value)]
