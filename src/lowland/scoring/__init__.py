"""Metrics of predictions, computed: their names and titles are declared in `lowland.metrics`."""

from lowland.scoring.regression import crps, scores
from lowland.scoring.reliability import reliability

__all__ = ["crps", "reliability", "scores"]
