"""Measures an engine under load: closed loops, arrivals at a rate, and sweeps of either."""

from runners.workloads.load.plugin import PLUGIN

__all__ = ["PLUGIN"]
