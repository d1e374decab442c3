"""Every measure of curvature for one solution."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import lowland as ll
from lowland.curvature import AdaptiveSharpness, AverageSharpness, KeskarSharpness, SAMSharpness

#: name in tables -> measure; two restarts each, which is what two core-minutes a solution allow
SHARPNESS: dict[str, Any] = {
    "Keskar": KeskarSharpness(restarts=2),
    "Keskar, 100 directions": KeskarSharpness(subspace=100, restarts=1),
    "SAM": SAMSharpness(steps=10, restarts=2),
    "adaptive, l2": AdaptiveSharpness(steps=10, restarts=2),
    "adaptive, l-inf": AdaptiveSharpness(norm=math.inf, steps=10, restarts=2),
    "adaptive, normalised logits": AdaptiveSharpness(
        normalised_logits=True, steps=10, restarts=2
    ),
    "average": AverageSharpness(directions=10),
    "average, filter": AverageSharpness(directions=10, normalise="filter"),
}
KEYS = ("nll", "error")
#: all that are compared with the test error
MEASURES = [*SHARPNESS, "top eigenvalue", "trace", "1 / width", "gradient norm"]


def measure(
    surface: ll.LossSurface, model: nn.Module, *, density: bool, seed: int = 0
) -> dict[str, Any]:
    """Values of all measures, their seconds, and the number of Hessian products.

    Args:
        density: the full spectrum, by 60 products from one random vector.
    """
    w = surface.point(model)
    values: dict[str, float] = {}
    seconds: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 1)
        return result

    for name, kind in SHARPNESS.items():
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
            probes=1 if density else 5,
            steps=60 if density else 1,
            tolerance=1e-2,
            seed=seed,
        ),
    )
    values["top eigenvalue"] = float(spectrum.eigenvalues[0])
    values["trace"] = float(spectrum.trace)
    widths = timed(
        "widths", lambda: ll.widths(surface, w, directions=3, points=9, tolerance=1e-2, seed=seed)
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
    """Mean loss and error (a fraction) of the measured training examples and of the test examples."""
    w = surface.point(model)
    rows = {"train": surface.evaluate(w), "test": surface.evaluate(w, loader=test)}
    return {
        f"{split} {key}": float(table.columns[key][0]) for split, table in rows.items() for key in KEYS
    }
