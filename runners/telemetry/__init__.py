"""Telemetry: what the machine and the engine say of themselves while a run goes on, in telemetry.jsonl."""

from runners.telemetry.metrics import INTERVAL_S, EngineLog, MetricsSampler, Page

__all__ = ["INTERVAL_S", "EngineLog", "MetricsSampler", "Page"]
