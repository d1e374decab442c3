"""The loss that sharpness-aware minimisation (SAM) minimises."""

from __future__ import annotations

from lowland.curvature.measure import WorstCase


class SAMSharpness(WorstCase):
    r"""\(\max_{|d|_2 \le \rho} L(w + d) - L(w)\) (Foret, Kleiner, Mobahi, Neyshabur 2021).

    At a minimum it is \(\lambda_{max} \rho^2 / 2\) to second order. `steps=1, restarts=1` is the
    paper's \(d = \rho\, g / |g|\), a poor maximum where the gradient is small.

    Args:
        steps: of projected ascent. restarts: the first at w, the others on the sphere.

    Raises:
        ConfigError: numbers below 1.

    >>> SAMSharpness(steps=1, restarts=1).settings()
    {'steps': 1, 'restarts': 1, 'norm': 2.0}
    """

    name = "sam"
    radius = (0.05,)

    def __init__(self, *, steps: int = 20, restarts: int = 3) -> None:
        super().__init__(steps=steps, restarts=restarts, norm=2)
