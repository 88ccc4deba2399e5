"""Telemetry: what the machine and the engine say of themselves while a run goes on, in telemetry.jsonl."""

from runners.telemetry.file import TelemetryFile
from runners.telemetry.metrics import EngineLog, MetricsSampler, Page
from runners.telemetry.rows import INTERVAL_S

__all__ = ["INTERVAL_S", "EngineLog", "MetricsSampler", "Page", "TelemetryFile"]
