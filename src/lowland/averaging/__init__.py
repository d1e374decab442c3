"""Which iterates or members to average, with what weights, and how different they are."""

from lowland.averaging.cycles import cycle_series
from lowland.averaging.diversity import diversity
from lowland.averaging.iterates import iterate_metrics
from lowland.averaging.linearization import linearization
from lowland.averaging.post_hoc_ema import post_hoc_ema
from lowland.averaging.selection import mean_and_error, select
from lowland.averaging.soup import Soup, soup
from lowland.averaging.tune_average import TunedAverage, tune_average

__all__ = [
    "Soup",
    "TunedAverage",
    "cycle_series",
    "diversity",
    "iterate_metrics",
    "linearization",
    "mean_and_error",
    "post_hoc_ema",
    "select",
    "soup",
    "tune_average",
]
