"""The averages of one branch of SGD iterates that compete, by their NLLs on validation examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from lowland import checks
from lowland.averaging.learned_weights import held_out_nlls, learned_weights
from lowland.averaging.members import MemberPoints
from lowland.averaging.validation import Validation
from lowland.averaging.weighted_mean import WeightedMean, weighted_mean
from lowland.core import Point
from lowland.errors import ConfigError
from lowland.posteriors import Gaussian, PointMass, Posterior
from lowland.trajectory import SWAG
from lowland.uncertainty.tune_scale import SCALES

LAST = "last"
_LEAST_FOR_SWAG = 3  # iterates: two span a line


@dataclass(frozen=True)
class AverageOptions:
    """Which averages are candidates: see `tune_average`."""

    tails: int = 6
    decays: Sequence[float] = (0.8, 0.9, 0.95)
    learned: bool = True
    steps: int = 10
    swag_rank: int = 0
    scales: Sequence[float] = SCALES
    samples: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        values = {
            "tails": checks.whole("tails", self.tails, least=0),
            "decays": checks.numbers("decays", self.decays, above=0, below=1),
            "steps": checks.whole("steps", self.steps, least=1),
            "swag_rank": checks.whole("swag_rank", self.swag_rank, least=0),
            "scales": [s for s in checks.numbers("scales", self.scales, least=0) if s > 0],
            "samples": checks.whole("samples", self.samples, least=1),
            "seed": checks.seed(self.seed),
        }
        if self.swag_rank == 1:
            raise ConfigError("swag_rank: expected 0, for no SWAG, or at least 2, got 1.")
        if self.swag_rank and not values["scales"]:
            raise ConfigError("scales: expected at least one number above 0 for SWAG.")
        for name, value in values.items():
            object.__setattr__(self, name, value)


@dataclass(frozen=True, eq=False)
class Candidate:
    """An average, by the NLLs of validation items (items,).

    `posterior` makes it again, and `iterate_weights` gives the shares (n,) of the iterates in it,
    where it is one of a branch: both once it is selected.
    """

    nlls: Tensor
    posterior: Callable[[], Posterior]
    iterate_weights: Callable[[], Tensor] | None = None
    scale: float = 0.0


def tail_lengths(n: int, tails: int) -> list[int]:
    """1, and up to `tails` more lengths that grow geometrically up to n.

    >>> tail_lengths(20, 6), tail_lengths(3, 6), tail_lengths(1, 6)
    ([1, 2, 3, 4, 7, 12, 20], [1, 2, 3], [1])
    """
    lengths = {round(n ** (i / tails)) for i in range(1, tails + 1)} if tails else set()
    return sorted(lengths | {1})


def iterate_candidates(
    members: MemberPoints, validation: Validation, options: AverageOptions
) -> dict[str, Candidate]:
    """The candidates of a branch by name: the last iterate, tails, EMAs, learned weights, SWAG.

    Iterates are read once, from the last to the first, with running sums for all of them.
    """
    n = len(members)
    lengths = tail_lengths(n, options.tails)
    emas = {decay: WeightedMean() for decay in options.decays if 1 / (1 - decay) < n}
    tail, block, blocks = WeightedMean(), WeightedMean(), []
    candidates: dict[str, Candidate] = {}

    def add(name: str, point: Point, weights: Tensor) -> None:
        candidates[name] = Candidate(
            validation.nlls(point),
            lambda: PointMass(weighted_mean(members, weights)),
            lambda: weights,
        )

    for age, i in enumerate(reversed(range(n))):
        point = members[i]
        tail.add(point)
        if options.learned:
            block.add(point)
        for decay, mean in emas.items():
            mean.add(point, decay**age)
        length = age + 1
        if length in lengths:
            name = LAST if length == 1 else f"tail {length}"
            add(name, tail.point, _tail_weights(n, length))
            if options.learned:
                blocks.append(block.point)
                block = WeightedMean()
    for decay, mean in emas.items():
        weights = decay ** torch.arange(n - 1, -1, -1, dtype=torch.float64)
        add(f"EMA {decay:g}", mean.point, weights / weights.sum())
    if len(blocks) > 1:
        candidates["learned"] = _learned(members, blocks, lengths, validation, options)
    for length in lengths:
        if options.swag_rank and length >= _LEAST_FOR_SWAG:
            candidates[f"SWAG {length}"] = _swag(members, length, validation, options)
    return candidates


def _tail_weights(n: int, length: int) -> Tensor:
    weights = torch.zeros(n, dtype=torch.float64)
    weights[n - length :] = 1 / length
    return weights


def _learned(
    members: MemberPoints,
    blocks: list[Point],
    lengths: list[int],
    validation: Validation,
    options: AverageOptions,
) -> Candidate:
    """Weights of the blocks of iterates between the starts of the tails, the last block first."""
    sizes = torch.tensor(lengths).diff(prepend=torch.zeros(1, dtype=torch.long))

    @cache
    def iterate_weights() -> Tensor:
        weights = learned_weights(validation, blocks, start=sizes, steps=options.steps)
        by_age = (weights / sizes).repeat_interleave(sizes)
        older = torch.zeros(len(members) - len(by_age), dtype=torch.float64)
        return torch.cat([by_age, older]).flip(0)

    return Candidate(
        held_out_nlls(validation, blocks, start=sizes, steps=options.steps),
        lambda: PointMass(weighted_mean(members, iterate_weights())),
        iterate_weights,
    )


def _swag(
    members: MemberPoints, length: int, validation: Validation, options: AverageOptions
) -> Candidate:
    """SWAG of a tail at the scale that is best on the other half of the examples."""

    def gaussian() -> Gaussian:
        swag = SWAG(members.surface.layout, rank=min(options.swag_rank, length))
        for point in members[-length:]:
            swag.update(point)
        return Gaussian(swag.mean, swag.variance, swag.deviations, buffers=swag.buffers)

    posterior, draws = gaussian(), {"samples": options.samples, "seed": options.seed}
    trials = [validation.nlls(posterior.with_scale(s), **draws) for s in options.scales]
    best, nlls = validation.best_of(torch.stack(trials))
    scale = options.scales[best]
    return Candidate(
        nlls,
        lambda: gaussian().with_scale(scale),
        lambda: _tail_weights(len(members), length),
        scale,
    )
