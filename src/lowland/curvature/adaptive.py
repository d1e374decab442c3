"""Adaptive sharpness: the largest loss in a ball whose axes are as long as the weights."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor

from lowland import checks
from lowland.core import Classification, LossSurface
from lowland.curvature.measure import WorstCase
from lowland.errors import ConfigError


class AdaptiveSharpness(WorstCase):
    r"""\(\max_{|T_w^{-1} d|_p \le \rho} L(w + d) - L(w)\), \(T_w = |w| + \eta\) (Kwon et al. 2021).

    With \(\eta = 0\) it does not change where one layer is multiplied by a number and the next
    divided by it; with \(\eta > 0\) it does.

    Args:
        eta: added to the absolute values; the paper trains with 0.01.
        norm: p, 2 or infinity.
        normalised_logits: divide the logits of each example by their standard deviation over the
            classes, which makes the measure independent of the scale of the outputs, too
            (Andriushchenko et al. 2023).
        steps: of projected ascent. restarts: the first at w, the others at random.

    Raises:
        ConfigError: a negative eta, another norm, logits of a task that has none.

    >>> AdaptiveSharpness(norm=math.inf).radius, AdaptiveSharpness().radius
    ((0.01,), (0.5,))
    """

    name = "adaptive"

    def __init__(
        self,
        *,
        eta: float = 0.0,
        norm: float = 2,
        normalised_logits: bool = False,
        steps: int = 20,
        restarts: int = 3,
    ) -> None:
        super().__init__(steps=steps, restarts=restarts, norm=norm)
        self.eta = checks.number("eta", eta, least=0)
        self.normalised_logits = normalised_logits
        self.radius = (0.01,) if self.norm == math.inf else (0.5,)

    def scale(self, weights: Tensor) -> Tensor:
        return weights.abs() + self.eta

    def prepare(self, surface: LossSurface) -> LossSurface:
        return with_normalised_logits(surface) if self.normalised_logits else surface


def with_normalised_logits(surface: LossSurface) -> LossSurface:
    r"""The surface with logits \(f / \sqrt{\frac1C \sum_c (f_c - \bar f)^2}\) of each example.

    Raises:
        ConfigError: a task without classes.
    """
    task = surface.task
    if not isinstance(task, Classification) or task.form not in (None, "multiclass"):
        raise ConfigError(
            f"normalised_logits: expected multiclass classification, got {task!r}; leave it out."
        )

    def output(raw: Any) -> Tensor:
        logits = task.output(raw)
        axis = 1 if task.class_dim is None else task.class_dim
        spread = logits.std(axis, correction=0, keepdim=True)
        return logits / spread.clamp_min(1e-12)

    normalised = copy.copy(surface)
    normalised.task = task.replace(output=output)
    return normalised
