"""Every measure of curvature for one solution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

import lowland as ll
from lowland.curvature import AdaptiveSharpness, AverageSharpness, KeskarSharpness, SAMSharpness


@dataclass(frozen=True)
class Effort:
    """What a solution's measures may cost: some five minutes on one core by default.

    Attributes:
        steps, restarts: of ascents. subspace: dimensions. directions: of averages. rays: of widths.
        lanczos: products of the full spectrum. probes: of the trace, where there is no spectrum.
    """

    steps: int = 10
    restarts: int = 2
    subspace: int = 100
    directions: int = 10
    rays: int = 3
    lanczos: int = 60
    probes: int = 5

    def kinds(self) -> dict[str, Any]:
        """Name in tables -> kind of sharpness."""
        ascent = {"steps": self.steps, "restarts": self.restarts}
        average = partial(AverageSharpness, directions=self.directions)
        return {
            "Keskar": KeskarSharpness(iterations=self.steps, restarts=self.restarts),
            "Keskar, 100 directions": KeskarSharpness(
                subspace=self.subspace, iterations=self.steps, restarts=1
            ),
            "SAM": SAMSharpness(**ascent),
            "adaptive, l2": AdaptiveSharpness(**ascent),
            "adaptive, l-inf": AdaptiveSharpness(norm=math.inf, **ascent),
            "adaptive, normalised logits": AdaptiveSharpness(normalised_logits=True, **ascent),
            "average": average(),
            "average, filter": average(normalise="filter"),
        }


SMOKE = Effort(steps=1, restarts=1, subspace=2, directions=2, rays=1, lanczos=3, probes=1)
KEYS = ("nll", "error")
#: all that are compared with the test error
MEASURES = [*Effort().kinds(), "top eigenvalue", "trace", "1 / width", "gradient norm"]


def measure(
    surface: ll.LossSurface, model: nn.Module, *, density: bool, effort: Effort, seed: int = 0
) -> dict[str, Any]:
    """Values of all measures, their seconds, and the number of Hessian products.

    Args:
        density: the full spectrum, from one random vector.
    """
    w = surface.point(model)
    values: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 1)
        return result

    for name, kind in effort.kinds().items():
        record = timed(
            name, lambda kind=kind: ll.sharpness(surface, w, kind=kind, invariance=False, seed=seed)
        )
        values[name] = float(record.value[0])
        values["gradient norm"] = record.gradient_norm
    spectrum = timed(
        "spectrum",
        lambda: ll.spectrum(
            surface,
            w,
            top=5 if density else 1,
            probes=1 if density else effort.probes,
            steps=effort.lanczos if density else 1,
            tolerance=1e-2,
            seed=seed,
        ),
    )
    values["top eigenvalue"] = float(spectrum.eigenvalues[0])
    values["trace"] = float(spectrum.trace)
    widths = timed(
        "widths",
        lambda: ll.widths(surface, w, directions=effort.rays, points=9, tolerance=1e-2, seed=seed),
    )
    values["1 / width"] = float((1 / widths.width).mean())
    out = {"measures": values, "seconds": seconds, "products": spectrum.products}
    if density:
        out["spectrum"] = {
            "eigenvalues": spectrum.eigenvalues.tolist(),
            "nodes": spectrum.nodes.tolist(),
            "weights": spectrum.weights.tolist(),
        }
    return out


def losses(surface: ll.LossSurface, model: nn.Module, test: Any) -> dict[str, float]:
    """Mean loss and error (a fraction): of the measured training examples, of the test examples."""
    w = surface.point(model)
    rows = {"train": surface.evaluate(w), "test": surface.evaluate(w, loader=test)}
    return {
        f"{split} {key}": float(table.columns[key][0])
        for split, table in rows.items()
        for key in KEYS
    }
