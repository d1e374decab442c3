"""Which iterates or members to average, with what weights, and how different they are."""

from lowland.averaging.cycles import cycle_series
from lowland.averaging.iterates import iterate_metrics
from lowland.averaging.linearization import linearization
from lowland.averaging.selection import mean_and_error, select

__all__ = ["cycle_series", "iterate_metrics", "linearization", "mean_and_error", "select"]
