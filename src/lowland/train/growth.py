"""How a simplex grows: what the keyword arguments of `spro` and `connect_modes` stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from lowland import checks
from lowland.train.options import TrainKeywords, TrainOptions


class GrowthKeywords(TrainKeywords, total=False):
    """The keyword arguments that stand for `GrowthRules` and `TrainOptions`."""

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
class GrowthRules:
    """How a vertex is added, fitted and kept: see `spro`."""

    epochs: int
    strength: float
    log_volume: float | None = None
    samples: int = 5
    loader: Iterable[Any] | None = None
    weight_decay: float = 0.0
    strategy: str = "accumulate"  # by the clock, no two runs would end with the same bits
    jitter: float = 1e-2
    rise: float = 0.1
    points: int = 20
    count: int | None = None
    validate: Callable[[Any], Mapping[str, float]] | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("epochs", checks.whole("epochs", self.epochs, least=1)),
            ("samples", checks.whole("samples", self.samples, least=1)),
            ("strength", checks.number("strength", self.strength, least=0)),
            ("jitter", checks.number("jitter", self.jitter, above=0)),
            ("points", checks.whole("points", self.points, least=1)),
        ):
            object.__setattr__(self, name, value)
        if self.count is not None:
            object.__setattr__(self, "count", checks.whole("count", self.count, least=1))
        if not (isinstance(self.rise, float) and self.rise == math.inf):  # as high as it comes
            object.__setattr__(self, "rise", checks.number("rise", self.rise, least=0))


def growth_options(
    epochs: int, strength: float, keywords: GrowthKeywords
) -> tuple[GrowthRules, TrainOptions]:
    """What the keyword arguments of `spro` and `connect_modes` stand for."""
    names = {field.name for field in fields(GrowthRules)}
    own = {name: value for name, value in keywords.items() if name in names}
    train = {name: value for name, value in keywords.items() if name not in names}
    rules = GrowthRules(epochs, strength, **own)  # type: ignore[arg-type]
    return rules, TrainOptions().override(**train)  # type: ignore[arg-type]
