"""How much the loss rises near a minimum, by several measures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
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
from lowland.evaluate.fingerprint import model_fingerprint
from lowland.files import PathLike
from lowland.progress import Progress, reporting
from lowland.records import SharpnessResult
from lowland.tensor_files import tensor_checksum

MEASURES: dict[str, type[Measure]] = {
    kind.name: kind for kind in (KeskarSharpness, SAMSharpness, AdaptiveSharpness, AverageSharpness)
}
_KIND = "sharpness"  # of a checkpoint
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
    checkpoint: Checkpoint | PathLike | None = None,
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
        checkpoint: a file: a stopped computation goes on from it after the last complete restart,
            or the last complete radius of "average".
        progress: True for a bar, or a callable of (evaluations, None); the total is unknown.
        options: `batchnorm`, `count` and others, see `ll.EvalOptions`. "refresh" estimates the
            statistics of BatchNorm layers for every perturbed network.

    Raises:
        ConfigError: no radius, one of 0 or less, an unknown kind, a loss that the measure does not
            suit, a checkpoint of other settings.
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
        work = _Work(kind, objective, seed, checkpoint)
        losses = [work.losses(objective, each) for each in radii]
        values = kind.rise(torch.stack(losses), objective.loss)
        value, interval = summary(values, worst=kind.worst)
        rescaled = _rescaled_values(work, radii[0]) if invariance else None
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


class _State(TypedDict):
    """What a checkpoint holds; keys: of `_Work.losses`."""

    losses: dict[str, Tensor]
    evaluations: dict[str, int]
    nonfinite: dict[str, int]


class _Work:
    """A measure and the losses that are complete, in memory and in a checkpoint."""

    def __init__(
        self,
        kind: Measure,
        objective: Objective,
        seed: int,
        checkpoint: Checkpoint | PathLike | None,
    ) -> None:
        self.kind, self.objective, self.seed = kind, objective, seed
        self.checkpoint = Checkpoint.of(checkpoint)
        self.state: _State = {"losses": {}, "evaluations": {}, "nonfinite": {}}
        if self.checkpoint.path is None:
            return
        point = objective.point
        self.same = kind.settings() | {
            "kind": kind.name,
            "seed": seed,
            "batchnorm": objective.batchnorm,
            "model": model_fingerprint(objective.surface),
            "point": tensor_checksum(point.weights, *(point.buffers or {}).values()),
            "examples": objective.data.checksum,
        }
        state = self.checkpoint.load(kind=_KIND, same=self.same, form=_State)
        self.state = state or self.state

    def losses(self, objective: Objective, radius: float, network: str = "w") -> Tensor:  # (n,)
        """Those of all restarts or directions around a network."""
        key = f"{network}, radius {radius!r}"
        state = self.state
        losses = state["losses"].get(key, torch.zeros(0, dtype=torch.float64))
        if key in state["evaluations"]:
            objective.evaluations = state["evaluations"][key]
            objective.nonfinite = state["nonfinite"][key]
        for part in self.kind.losses(objective, radius, self.seed, first=len(losses)):
            losses = torch.cat([losses, torch.tensor(part, dtype=torch.float64)])
            state["losses"][key] = losses
            state["evaluations"][key] = objective.evaluations
            state["nonfinite"][key] = objective.nonfinite
            if self.checkpoint.path is not None:
                self.checkpoint.save(state, kind=_KIND, same=self.same)
        return losses


def _rescaled_values(work: _Work, radius: float) -> Tensor | None:  # (2,)
    """The measure at rescaled weights, (2,); None: nothing can be rescaled."""
    kind, values = work.kind, []
    for number, near in enumerate(work.objective.rescaled()):
        losses = work.losses(near, radius, f"rescaled {number}")
        values.append(summary(kind.rise(losses[None], near.loss), worst=kind.worst)[0])
    return torch.cat(values) if values else None


def _equal(rescaled: Tensor, value: float) -> bool:
    expected = torch.full_like(rescaled, value)
    return torch.allclose(rescaled, expected, rtol=TOLERANCE, atol=0, equal_nan=True)
