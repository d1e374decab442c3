"""The sharpness of Keskar et al. 2017: the largest relative rise of the loss in a small box."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.core.seeds import seed_for
from lowland.curvature.ascent import FIRST_STEP, random_start
from lowland.curvature.measure import WorstCase
from lowland.curvature.objective import Objective
from lowland.curvature.random_matrix import RandomMatrix
from lowland.errors import ConfigError


class KeskarSharpness(WorstCase):
    r"""\(100\, (\max_{z \in C_\epsilon} L(w + A z) - L(w)) / (1 + L(w))\) (Keskar et al. 2017).

    \(C_\epsilon = \{z : |z_i| \le \epsilon\, (|(A^+ w)_i| + 1)\}\), \(\epsilon\) the radius. In the
    full space, A = I, the maximum is found by projected ascent. In a random subspace A is P x k
    with standard normal entries; each restart has another A, its maximum is found by L-BFGS-B from
    a random point of the box, and the value is the mean over restarts.

    Args:
        subspace: k, 100 in the paper; None: the full space, where the maximum is over more
            directions and nothing is random but restarts. A is generated in chunks from the seed;
            one of at most 256 MB stays in memory, which saves generating it for each product.
        iterations: of L-BFGS-B, or steps of ascent.
        restarts: number of ascents, or of subspaces.

    Raises:
        ConfigError: more dimensions than weights. LowlandError: scipy is missing, for subspaces.

    >>> KeskarSharpness(subspace=100).settings()
    {'steps': 10, 'restarts': 3, 'norm': 'inf', 'subspace': 100}
    """

    name = "keskar"
    radius = (1e-3, 5e-4)

    def __init__(
        self, *, subspace: int | None = None, iterations: int = 10, restarts: int = 3
    ) -> None:
        super().__init__(steps=iterations, restarts=restarts, norm=math.inf)
        self.subspace = None if subspace is None else checks.whole("subspace", subspace, least=1)
        self.worst = subspace is None

    def scale(self, weights: Tensor) -> Tensor:
        return weights.abs() + 1

    def rise(self, loss: Tensor, at_w: float) -> Tensor:
        if at_w <= -1:  # as of a density
            raise ConfigError(
                f"kind='keskar' divides by 1 + L(w), and the loss is {at_w:.4g}; it is meant for "
                "losses of at least 0, so take another kind."
            )
        return 100 * (loss - at_w) / (1 + at_w)

    def maximum(self, objective: Objective, radius: float, seed: int, number: int) -> float:
        if self.subspace is None:
            return super().maximum(objective, radius, seed, number)
        optimize = checks.package(
            "scipy.optimize", extra="curvature", purpose="sharpness in a subspace, by L-BFGS-B,"
        )
        matrix_seed = seed_for("sharpness subspace", seed, number)
        matrix = RandomMatrix(len(objective.weights), self.subspace, seed=matrix_seed)
        bound = (radius * (matrix.pseudo_inverse_times(objective.weights).abs() + 1)).numpy()
        # at w itself, a minimum, the gradient is 0, and L-BFGS-B would stop
        like = torch.zeros(len(bound), dtype=torch.float64)
        start = random_start(like, 1.0, math.inf, seed=seed, number=number)
        largest, unit = objective.loss, 0.0

        def negative(u: np.ndarray) -> tuple[float, np.ndarray]:  # u = z / bound
            nonlocal largest, unit
            displacement = matrix.times(torch.from_numpy(bound * u).float())
            value, gradient = objective.value_and_grad(displacement.to(objective.weights))
            largest = max(largest, value)
            if not math.isfinite(value):
                raise _InfiniteLoss
            slope = bound * matrix.transposed_times(gradient).numpy()
            # L-BFGS-B first steps by the gradient itself: in these units it reaches the border
            unit = unit or FIRST_STEP / max(np.abs(slope).max(), 1e-300)
            return -unit * value, -unit * slope

        options: dict[str, Any] = {"maxiter": self.steps, "ftol": 0, "gtol": 0}
        with suppress(_InfiniteLoss):
            optimize.minimize(
                negative,
                start.numpy(),
                jac=True,
                method="L-BFGS-B",
                bounds=[(-1, 1)] * len(bound),
                options=options,
            )
        return largest


class _InfiniteLoss(Exception):
    """Ends the search: no larger loss can be found."""
