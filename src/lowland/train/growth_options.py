"""Options of `spro` and `connect_modes`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from lowland import checks
from lowland.train.options import TrainKeywords, TrainOptions


class GrowthKeywords(TrainKeywords, total=False):
    """The keyword arguments that stand for `GrowthOptions` and `TrainOptions`."""

    log_volume: float | None
    samples: int
    loader: Iterable[Any] | None
    weight_decay: float
    strategy: str
    jitter: float
    rise: float
    points: int
    count: int | None
    validate: Callable[[Any], Mapping[str, float]] | None


@dataclass(frozen=True)
class GrowthOptions:
    """How a vertex is added, fitted and accepted: see `spro`."""

    epochs: int
    strength: float
    log_volume: float | None = None
    samples: int = 5
    loader: Iterable[Any] | None = None
    weight_decay: float = 0.0
    strategy: str = "accumulate"  # chosen by timing, two runs would differ in their last bits
    jitter: float = 1e-2
    rise: float = 0.1
    points: int = 20
    count: int | None = None
    validate: Callable[[Any], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        checks.fields(self, checks.whole, "epochs", "samples", "points", "count", least=1)
        checks.fields(self, checks.number, "strength", "log_volume", "weight_decay", least=0)
        checks.fields(self, checks.number, "jitter", above=0)
        if not (isinstance(self.rise, float) and self.rise == math.inf):  # no bound
            checks.fields(self, checks.number, "rise", least=0)


def growth_options(
    epochs: int, strength: float, keywords: GrowthKeywords
) -> tuple[GrowthOptions, TrainOptions]:
    """The options that the keyword arguments of `spro` and `connect_modes` stand for."""
    names = {field.name for field in fields(GrowthOptions)}
    growth = {name: value for name, value in keywords.items() if name in names}
    train = {name: value for name, value in keywords.items() if name not in names}
    options = GrowthOptions(epochs, strength, **growth)  # type: ignore[arg-type]
    return options, TrainOptions().override(**train)  # type: ignore[arg-type]
