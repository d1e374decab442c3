"""The mean loss under Gaussian perturbations of the weights."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from lowland import checks
from lowland.curvature.measure import Measure
from lowland.curvature.objective import Objective
from lowland.landscape.directions import NORMALISE, iter_directions


class AverageSharpness(Measure):
    r"""\(E[L(w + \sigma d)] - L(w)\), d Gaussian; \(\sigma\) is the radius.

    Plain, \(d \sim N(0, I)\), it is \(\sigma^2\, \mathrm{tr}(\nabla^2 L) / 2\) to second order.
    With `normalise="filter"` each filter of d has the norm of the weights' filter, as in
    `ll.directions`: then it does not change where one layer is multiplied by a number and the next
    divided by it. Each direction is taken in both senses, which cancels the gradient.

    Args:
        directions: their number. normalise: None, "filter" or "layer".

    Raises:
        ConfigError: no direction, an unknown normalisation.

    >>> AverageSharpness(normalise="filter").radius, AverageSharpness().radius
    ((0.1,), (0.01,))
    """

    name = "average"
    worst = False

    def __init__(self, *, directions: int = 20, normalise: str | None = None) -> None:
        self.directions = checks.whole("directions", directions, least=1)
        checks.choice("normalise", normalise, NORMALISE)
        self.normalise = normalise
        self.radius = (0.01,) if normalise is None else (0.1,)

    def losses(
        self, objective: Objective, radius: float, seed: int, *, first: int = 0
    ) -> Iterator[list[float]]:
        numbers = range(first, self.directions)

        def displacements() -> Iterator[Tensor]:
            for direction in iter_directions(
                objective.surface,
                objective.weights,
                numbers,
                seed=seed,
                normalise=self.normalise,
            ):
                yield radius * direction
                yield -radius * direction

        if numbers:
            rows = iter(objective.rows(displacements(), 2 * len(numbers)))
            yield [(one["loss"] + other["loss"]) / 2 for one, other in zip(rows, rows, strict=True)]
