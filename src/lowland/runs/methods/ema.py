"""The exponential moving average of iterates."""

from __future__ import annotations

from lowland.runs.methods.averaging import AverageMethod


class EMA(AverageMethod):
    """The moving average of the trajectory that SWA averages; its decay is chosen."""

    name = "ema"
    title = "EMA"
    of = "ema"
