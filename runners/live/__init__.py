"""A run as it goes on, in one value: for the metrics page, for who watches, and for other processes as live.json."""

from runners.live.file import LiveFile
from runners.live.run import LIVE, SCHEMA_VERSION, LiveRun

__all__ = ["LIVE", "SCHEMA_VERSION", "LiveFile", "LiveRun"]
