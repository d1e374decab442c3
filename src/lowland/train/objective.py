"""The objective that is minimised over a shape."""

from __future__ import annotations

from dataclasses import dataclass

from lowland import checks
from lowland.errors import ConfigError
from lowland.geometry import Barycentric, Curve, Shape

MEASURES = ("coords", "arc")


@dataclass(frozen=True)
class Objective:
    r"""\(E_t [L(w(t)) + \tfrac{\lambda}{2} |w(t)|^2] - \lambda_V \log V\), see `fit`.

    Args:
        weight_decay: λ. log_volume: λ_V. samples: t a step. measure: how t is distributed.
        strategy: how several t are evaluated together; None: the faster one.

    Raises:
        ConfigError: numbers out of range, an unknown measure or strategy.
    """

    weight_decay: float = 0.0
    log_volume: float = 0.0
    samples: int = 1
    measure: str = "coords"
    strategy: str | None = None

    def __post_init__(self) -> None:
        checks.fields(self, checks.whole, "samples", least=1)
        checks.fields(self, checks.number, "weight_decay", "log_volume", least=0)
        checks.choice("measure", self.measure, MEASURES)
        checks.choice("strategy", self.strategy, (None, "accumulate", "vmap"))

    def require_fits(self, shape: Shape) -> None:
        """Raises `ConfigError` for a shape that has no free anchor, length or volume."""
        if not any(shape.free):
            raise ConfigError(
                f"{shape!r} has no free anchor to fit; make a curve with bends, such as "
                "ll.Bezier.between(w0, w1), or let a simplex grow()."
            )
        if self.measure == "arc" and not isinstance(shape, Curve):
            raise ConfigError(f"measure: 'arc' is for curves, and {shape!r} has no length.")
        volume = isinstance(shape, Barycentric) and any(cell[1:] for cell in shape.cells)
        if self.log_volume and not volume:
            raise ConfigError(
                f"log_volume: {shape!r} has no volume; give a simplex of two vertices or more, or "
                "a complex of them."
            )
