"""The two services that a program talks to: the resource monitor and the engine's log."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Event, Lock
from typing import Any

from google.protobuf import empty_pb2

from .deployment import Deployment
from .errors import UpdateFailed
from .goals import Goal
from .steps import Steps
from .values import plain_outputs
from .wire import (
    OPTIONS,
    engine_pb2,
    engine_pb2_grpc,
    from_struct,
    grpc,
    resource_pb2,
    resource_pb2_grpc,
    to_struct,
)

FEATURES = ("SECRETS", "RESOURCE_REFERENCES", "OUTPUT_VALUES")
SEVERITIES = {0: "debug", 1: "info", 2: "warning", 3: "error"}
NOT_KNOWN = ("importId", "deletedWith", "replace_with", "transforms", "state_migrations", "remote")
"""Options that would change what is done: better no answer than a wrong one."""
SHUT_DOWN = "resource monitor shut down while waiting on step's done channel"


@dataclass
class Monitor(resource_pb2_grpc.ResourceMonitorServicer):  # type: ignore[misc]
    """Registrations become steps; what fails ends the program, as the real monitor does."""

    deployment: Deployment
    finished: Event = field(default_factory=Event)
    _finishing: Lock = field(default_factory=Lock)

    def GetDeploymentInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        stack = self.deployment.stack
        features = [getattr(resource_pb2, f"RESOURCE_MONITOR_FEATURE_{name}") for name in FEATURES]
        return resource_pb2.DeploymentInfo(
            project=stack.project,
            stack=stack.name,
            organization="organization",
            dryRun=self.deployment.steps.dry_run,
            supportedFeatures=features,
        )

    def SupportsFeature(self, request: Any, context: Any) -> Any:  # noqa: N802
        known = {"secrets", "resourceReferences", "outputValues"}
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in known)

    def RegisterResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        goal = Goal.read(self.deployment.stack, request)
        for name in NOT_KNOWN:
            if getattr(request, name):
                self.deployment.steps.fail(goal.urn, f"the double knows no {name}")
        try:
            made = self.deployment.register(goal)
        except UpdateFailed:
            if self.deployment.steps.continue_on_error and request.supportsResultReporting:
                return resource_pb2.RegisterResourceResponse(urn=goal.urn, result=resource_pb2.FAIL)
            return self._shut_down(context)
        return resource_pb2.RegisterResourceResponse(
            urn=made.urn, id=made.id, object=to_struct(made.outputs or made.inputs)
        )

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        wanted = resource_pb2.RegisterResourceRequest(
            type=request.type,
            name=request.name,
            custom=True,
            parent=request.parent,
            object=request.properties,
            dependencies=request.dependencies,
            additionalSecretOutputs=request.additionalSecretOutputs,
        )
        try:
            found = self.deployment.read(Goal.read(self.deployment.stack, wanted), request.id)
        except UpdateFailed:
            return self._shut_down(context)
        return resource_pb2.ReadResourceResponse(urn=found.urn, id=found.id, properties=to_struct(found.outputs))

    def RegisterResourceOutputs(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.deployment.outputs(request.urn, plain_outputs(from_struct(request.outputs)))
        return empty_pb2.Empty()

    def SignalAndWaitForShutdown(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The program has registered all that it has: the rest is deleted, then it may end."""
        self.finish()
        return empty_pb2.Empty()

    def finish(self) -> None:
        """Deletes what was not registered; once, and not after a failure."""
        with self._finishing:
            if not self.finished.is_set() and not self.deployment.steps.ended:
                self.deployment.delete_the_rest()
            self.finished.set()

    def _shut_down(self, context: Any) -> Any:
        """Nothing answers any more once the steps that still run have ended."""
        self.deployment.steps.settle()
        context.abort(grpc.StatusCode.UNAVAILABLE, SHUT_DOWN)


@dataclass
class EngineLog(engine_pb2_grpc.EngineServicer):  # type: ignore[misc]
    """What programs say with pulumi.log."""

    steps: Steps
    root: str = ""

    def Log(self, request: Any, context: Any) -> Any:  # noqa: N802
        severity = SEVERITIES[request.severity]
        self.steps.events.diagnostic(severity, request.message, request.urn, ephemeral=request.ephemeral)
        return empty_pb2.Empty()

    def GetRootResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def SetRootResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def RequirePulumiVersion(self, request: Any, context: Any) -> Any:  # noqa: N802
        return engine_pb2.RequirePulumiVersionResponse()


def serve(monitor: Monitor, log: EngineLog) -> tuple[Any, str]:
    """A server with both, and its address."""
    server = grpc.server(ThreadPoolExecutor(64), options=OPTIONS)
    resource_pb2_grpc.add_ResourceMonitorServicer_to_server(monitor, server)
    engine_pb2_grpc.add_EngineServicer_to_server(log, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"
