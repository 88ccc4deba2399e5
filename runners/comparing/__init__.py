"""Runs compared: groups of repetitions, what differed, by how much, and whether that is more than noise. Pure."""

from runners.comparing.changes import Change
from runners.comparing.comparison import Comparison, compared
from runners.comparing.differences import Difference, Pair
from runners.comparing.groups import Estimate, Group, groups_of
from runners.comparing.metrics import METRICS, Metric, metric
from runners.comparing.pareto import Front, Place, pareto

__all__ = [
    "METRICS",
    "Change",
    "Comparison",
    "Difference",
    "Estimate",
    "Front",
    "Group",
    "Metric",
    "Pair",
    "Place",
    "compared",
    "groups_of",
    "metric",
    "pareto",
]
