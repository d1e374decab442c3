"""Which iterates or members to average, with what weights, and how different they are."""

from lowland.averaging.linearization import linearization
from lowland.averaging.selection import mean_and_error, select

__all__ = ["linearization", "mean_and_error", "select"]
