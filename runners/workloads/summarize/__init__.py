"""The workload `summarize`: each document's chunks are summarised, and their summaries become one."""

from runners.workloads.summarize.plugin import PLUGIN, Summarize

__all__ = ["PLUGIN", "Summarize"]
