"""A run as it goes on, in one value: for the metrics page, for who watches, and as live.json for other processes."""

from runners.live.run import LIVE, SCHEMA_VERSION, LiveRun

__all__ = ["LIVE", "SCHEMA_VERSION", "LiveRun"]
