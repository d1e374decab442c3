"""How much the loss rises near a minimum, by several measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import LossSurface, Point
from lowland.core.options import EvalKeywords
from lowland.curvature.adaptive import AdaptiveSharpness
from lowland.curvature.average import AverageSharpness
from lowland.curvature.interval import mean_interval
from lowland.curvature.keskar import KeskarSharpness
from lowland.curvature.measure import Measure
from lowland.curvature.objective import Objective
from lowland.curvature.sam import SAMSharpness
from lowland.errors import ConfigError
from lowland.progress import Progress, reporting
from lowland.records import SharpnessResult

MEASURES: dict[str, type[Measure]] = {
    kind.name: kind for kind in (KeskarSharpness, SAMSharpness, AdaptiveSharpness, AverageSharpness)
}
TOLERANCE = 1e-3  # by which values of rescaled networks may differ; rounding is far below it


def sharpness(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    kind: str | Measure = "keskar",
    radius: float | Sequence[float] | None = None,
    loader: Iterable[Any] | None = None,
    invariance: bool = True,
    seed: int = 0,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> SharpnessResult:
    r"""How much the loss rises within a radius of w.

    | kind | formula | paper |
    | --- | --- | --- |
    | "keskar" | \(100\, (\max_C L(w + A z) - L(w)) / (1 + L(w))\) | Keskar et al. 2017 |
    | "sam" | \(\max_{\lvert d \rvert \le \rho} L(w + d) - L(w)\) | Foret et al. 2021 |
    | "adaptive" | \(\max_{\lvert d / w \rvert \le \rho} L(w + d) - L(w)\) | Kwon et al. 2021 |
    | "average" | \(E[L(w + \sigma d)] - L(w)\), d Gaussian | Andriushchenko et al. 2023 |

    The maxima are found by ascent and are lower bounds. `result.invariant` states whether the value
    depends on the function alone: a pair of layers between which the network is positively
    homogeneous (ReLU) is multiplied by 1/2 and 2 and divided by it, and the measure computed again.

    Args:
        w: a minimum, (P,), a `Point`, a model, or an average such as `SWA`; `result.gradient_norm`
            states how far it is from one.
        kind: a name, for the default options, or an object of `lowland.curvature.KeskarSharpness`,
            `SAMSharpness`, `AdaptiveSharpness` or `AverageSharpness`, with others.
        radius: \(\epsilon\), \(\rho\) or \(\sigma\), one or several; None: the measure's own.
        loader: other examples than the surface's.
        invariance: whether to measure it, which takes three times as long at the first radius.
        seed: of restarts and directions.
        progress: True for a bar, or a callable of (evaluations, None); the total is unknown.
        options: `batchnorm`, `count` and others, see `ll.EvalOptions`. "refresh" estimates the
            statistics of BatchNorm layers for every perturbed network.

    Raises:
        ConfigError: no radius, one of 0 or less, an unknown kind, a loss that the measure does not
            suit.
        LayoutError: weights of another model. NonFiniteError: no finite loss at w.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> x = torch.tensor([[2.0, 0.0], [0.0, 1.0]])  # the Hessian is x^T x / 2 = diag(2, 1/2)
    >>> net = nn.Linear(2, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(2, 1))])
    >>> result = sharpness(surface, torch.zeros(2), kind="sam", radius=0.1)
    >>> round(float(result), 4), result.invariant  # 2 * 0.1² / 2; no pair of layers
    (0.01, None)
    """
    if not isinstance(kind, Measure):
        checks.choice("kind", kind, MEASURES)
        kind = MEASURES[kind]()
    radii = checks.numbers("radius", kind.radius if radius is None else radius, above=0)
    if not radii:
        raise ConfigError("radius: expected one or more numbers, got none; leave it out.")
    seed = checks.seed(seed)
    eval_options = surface.options.override(**options)
    surface = kind.prepare(surface)
    with reporting(progress, f"{kind.name} sharpness") as report:
        objective = Objective(surface, w, loader=loader, options=eval_options, report=report)
        losses = [kind.losses(objective, each, seed) for each in radii]
        values = kind.rise(torch.tensor(losses, dtype=torch.float64), objective.loss)
        value, interval = summary(values, worst=kind.worst)
        rescaled = _rescaled_values(kind, objective, radii[0], seed) if invariance else None
    return SharpnessResult(
        kind.name,
        torch.tensor(radii, dtype=torch.float64),
        value,
        interval,
        values,
        loss=objective.loss,
        gradient_norm=objective.gradient_norm,
        invariant=None if rescaled is None else _equal(rescaled, float(value[0])),
        rescaled=rescaled,
        nonfinite=objective.nonfinite,
        evaluations=objective.evaluations,
        batchnorm=objective.batchnorm,
        examples=objective.examples,
        settings=kind.settings(),
    )


def summary(values: Tensor, *, worst: bool) -> tuple[Tensor, Tensor]:  # (r, n) -> (r,), (r, 2)
    """The largest of each row and the row's range, or the mean and its interval at 95%.

    >>> summary(torch.tensor([[1.0, 3.0]]), worst=True)
    (tensor([3.]), tensor([[1., 3.]]))
    """
    if worst:
        return values.amax(1), torch.stack([values.amin(1), values.amax(1)], 1)
    means = torch.tensor([mean_interval(row) for row in values], dtype=torch.float64)
    return means[:, 0], means[:, 1:]


def _rescaled_values(
    kind: Measure, objective: Objective, radius: float, seed: int
) -> Tensor | None:  # (2,)
    """The measure at rescaled weights, (2,); None: nothing can be rescaled."""
    values = []
    for near in objective.rescaled():
        losses = torch.tensor([kind.losses(near, radius, seed)], dtype=torch.float64)
        values.append(summary(kind.rise(losses, near.loss), worst=kind.worst)[0])
    return torch.cat(values) if values else None


def _equal(rescaled: Tensor, value: float) -> bool:
    expected = torch.full_like(rescaled, value)
    return torch.allclose(rescaled, expected, rtol=TOLERANCE, atol=0, equal_nan=True)
