"""What choices on validation examples may cost, which limits the candidates that they compare."""

from __future__ import annotations

import math
from collections.abc import Sequence, Sized
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lowland.runs.setup import Setup

# Some seconds on one core: with small networks, steps take longer than their multiplications.
FREE_MULTIPLICATIONS = 2e10
_LEAST_SAMPLES = 4  # of a model average that is compared


def evaluations(setup: Setup, share: float, *, multiplications: float = 0.0) -> float:
    """How many evaluations of a network on the validation examples cost this share of training, or
    so many multiplications, whichever is more.

    A training step costs three forward passes over its batch. An evaluation is a forward pass over
    the validation examples, and with BatchNorm another one over the examples that statistics are
    estimated from. Infinite where a loader does not tell the number of its examples.
    """
    train, validation = _examples(setup.clean), _examples(setup.validation)
    if not train or not validation:
        return math.inf
    if setup.surface.has_batchnorm:
        validation += min(setup.config.bn_rows, _examples(setup.batchnorm) or train)
    passes: float = share * 3 * train * setup.config.train.epochs / validation
    if multiplications > 0:
        passes = max(passes, multiplications / (validation * max(1.0, setup.multiplications)))
    return passes


def tails_within(evaluations: float, branches: int, *, most: int) -> int:
    """How many lengths of tails are compared on each branch of iterates, one at least.

    Besides, the last iterate of each branch is evaluated, and the default.

    >>> [tails_within(n, 2, most=6) for n in (1, 9.5, 1000)]
    [1, 3, 6]
    """
    return _between(1, (evaluations - 1) / branches - 1, most)


def samples_within(evaluations: float, posteriors: int, *, most: int) -> int:
    """Draws from each of so many posteriors: 0 where fewer than four each are within the limit.

    >>> [samples_within(n, 10, most=10) for n in (39, 65, 1000)]
    [0, 6, 10]
    """
    samples = _between(0, evaluations / posteriors, most)
    return samples if samples >= min(most, _LEAST_SAMPLES) else 0


def scales_within(
    evaluations: float, scales: Sequence[float], branches: int, *, most: int
) -> tuple[list[float], int]:
    """The scales that are compared on each branch, and draws for each of them.

    First there are fewer draws, down to four, then fewer scales, evenly spread, one at least.

    >>> scales = [0.1, 0.25, 0.5, 1.0, 2.0]
    >>> scales_within(1000, scales, 2, most=10)
    ([0.1, 0.25, 0.5, 1.0, 2.0], 10)
    >>> scales_within(18, scales, 2, most=10), scales_within(1, scales, 2, most=10)
    (([0.25, 1.0], 4), ([0.5], 4))
    """
    samples = samples_within(evaluations, branches * len(scales), most=most)
    if samples:
        return list(scales), samples
    samples = min(most, _LEAST_SAMPLES)
    n = _between(1, evaluations / (branches * samples), len(scales))
    middles = [int((i + 0.5) * len(scales) / n) for i in range(n)]
    return [scales[i] for i in middles], samples


def _between(least: int, value: float, most: int) -> int:
    return max(least, math.floor(min(value, most)))


def _examples(loader: Any) -> int | None:
    """The number of a loader's examples, where it is known."""
    if hasattr(loader, "num_examples"):
        number: int | None = loader.num_examples
        return number
    dataset = getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None
