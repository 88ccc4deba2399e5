"""The real process of dynamic providers, started and asked as the engine does."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock, Thread
from typing import IO, Any

from .children import end, start_provider
from .values import Properties, changed_keys, is_secret, revealed, secret_keys, secret_like
from .wire import OPTIONS, from_struct, grpc, provider_pb2, provider_pb2_grpc, said, to_struct


class ProviderFailed(Exception):
    """The provider said no, or died. The text is its own."""


@dataclass(frozen=True)
class Difference:
    changes: bool
    replaces: list[str]
    delete_before_replace: bool
    keys: list[str]
    """Names of the inputs that differ, known only if the provider leaves the comparison to the engine."""


@dataclass
class DynamicProvider:
    """`python -u -m pulumi.dynamic`, from its first use to `close`."""

    folder: Path
    project: str
    config: Mapping[str, Any]
    says: Callable[[str, str], None]
    """Is told the severity and the text of each line that the process prints."""
    _process: subprocess.Popen[bytes] | None = None
    _stub: Any = None
    _lock: Lock = field(default_factory=Lock)
    _listeners: list[Thread] = field(default_factory=list)

    def check(self, urn: str, olds: Properties, news: Properties) -> tuple[Properties, list[str]]:
        """The inputs as the provider wants them, and what is wrong with them, as the engine says it."""
        request = provider_pb2.CheckRequest(urn=urn, olds=_struct(olds), news=_struct(news), **_named(urn))
        answer = self._ask("Check", request)
        wrong = [_problem(one, news) for one in answer.failures]
        return secret_like(from_struct(answer.inputs), news), wrong

    def diff(self, urn: str, identity: str, old_inputs: Properties, olds: Properties, news: Properties) -> Difference:
        request = provider_pb2.DiffRequest(
            id=identity, urn=urn, old_inputs=_struct(old_inputs), olds=_struct(olds), news=_struct(news), **_named(urn)
        )
        answer = self._ask("Diff", request)
        changes, keys = answer.changes == provider_pb2.DiffResponse.DIFF_SOME, list(answer.diffs)
        if answer.changes == provider_pb2.DiffResponse.DIFF_UNKNOWN:
            keys = changed_keys(old_inputs, news)
            changes = bool(keys)
        return Difference(changes, list(answer.replaces), answer.deleteBeforeReplace, keys)

    def create(self, urn: str, news: Properties, secrets: list[str]) -> tuple[str, Properties]:
        request = provider_pb2.CreateRequest(urn=urn, properties=_struct(news), **_named(urn))
        answer = self._ask("Create", request)
        if not answer.id:
            raise ProviderFailed(f"create {urn}: provider returned an empty resource ID")
        return answer.id, _outputs(answer.properties, news, secrets)

    def update(
        self, urn: str, identity: str, old_inputs: Properties, olds: Properties, news: Properties, secrets: list[str]
    ) -> Properties:
        request = provider_pb2.UpdateRequest(
            id=identity, urn=urn, old_inputs=_struct(old_inputs), olds=_struct(olds), news=_struct(news), **_named(urn)
        )
        return _outputs(self._ask("Update", request).properties, news, secrets)

    def read(
        self, urn: str, identity: str, inputs: Properties, outputs: Properties, secrets: list[str]
    ) -> tuple[str, Properties, Properties]:
        """Its id ("" if it is gone), inputs and outputs as they are now."""
        request = provider_pb2.ReadRequest(
            id=identity, urn=urn, inputs=_struct(inputs), properties=_struct(outputs), **_named(urn)
        )
        answer = self._ask("Read", request)
        found = secret_like(from_struct(answer.inputs), inputs) if answer.HasField("inputs") else inputs
        return answer.id, found, _outputs(answer.properties, {**inputs, **outputs}, secrets)

    def delete(self, urn: str, identity: str, inputs: Properties, outputs: Properties) -> None:
        request = provider_pb2.DeleteRequest(
            id=identity, urn=urn, old_inputs=_struct(inputs), properties=_struct(outputs), **_named(urn)
        )
        self._ask("Delete", request)

    def cancel(self) -> None:
        """Tells a running provider that the operation is to end."""
        if self._stub is not None:
            self._ask("Cancel", provider_pb2.google_dot_protobuf_dot_empty__pb2.Empty())

    def close(self) -> None:
        if self._process is not None:
            end(self._process)
            for listener in self._listeners:
                listener.join(10)  # all of its pipe's other ends are closed

    def _ask(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._started(), method)(request)
        except grpc.RpcError as error:
            raise ProviderFailed(said(error)) from None

    def _started(self) -> Any:
        with self._lock:
            if self._stub is None:
                self._process, port = self._start()
                channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS)
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                stub.Configure(provider_pb2.ConfigureRequest(args=_struct(dict(self.config)), acceptSecrets=True))
                self._stub = stub
            return self._stub

    def _start(self) -> tuple[subprocess.Popen[bytes], int]:
        process = start_provider(
            "127.0.0.1:0",
            self.folder,
            {"PULUMI_PROJECT": self.project, "PULUMI_CONFIG": json.dumps(revealed(dict(self.config)))},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        self._listen(process.stderr, "info#err")
        line = process.stdout.readline()
        if not line.strip().isdigit():
            end(process)
            raise ProviderFailed(f"could not read plugin [pulumi-resource-pulumi-python] stdout: {line!r}")
        self._listen(process.stdout, "info")
        return process, int(line)

    def _listen(self, stream: IO[bytes], severity: str) -> None:
        def listen() -> None:
            for line in stream:
                self.says(severity, line.decode(errors="replace").rstrip("\n"))

        thread = Thread(target=listen, daemon=True)
        thread.start()
        self._listeners.append(thread)


def _problem(failure: Any, inputs: Properties) -> str:
    if not failure.property:
        return f" has a problem: {failure.reason}"
    value = inputs.get(failure.property)
    shown = "a secret" if is_secret(value) else f"{{{value:g}}}" if isinstance(value, float) else f"{{{value}}}"
    return f": property {failure.property} value {shown} has a problem: {failure.reason}"


def _named(urn: str) -> dict[str, str]:
    _, _, types, name = urn.split("::", 3)
    return {"name": name, "type": types.rsplit("$", 1)[-1]}


def _struct(properties: Properties) -> Any:
    return to_struct(revealed(properties))


def _outputs(struct: Any, ins: Properties, secrets: list[str]) -> Properties:
    return secret_keys(secret_like(from_struct(struct), ins), secrets)
