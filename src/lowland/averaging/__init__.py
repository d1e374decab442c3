"""Which iterates or members to average, with what weights, and how different they are."""

from lowland.averaging.selection import mean_and_error, select

__all__ = ["mean_and_error", "select"]
