"""The functions of a posterior's draws, at given inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.core import Batch, Classification, LossSurface, Regression, Task
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError, DataError
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.nll import resolve_task, vmap_points
from lowland.evaluate.weights import iter_weights
from lowland.progress import Progress
from lowland.records import FunctionsResult
from lowland.scoring.metric_sums import mixture_moments

_BATCH = 4096  # inputs that go through the network together
SAMPLES = 25  # draws: a picture of more lines is hard to read


def functions(
    surface: LossSurface,
    posterior: Any,
    inputs: Tensor,
    *,
    samples: int | None = None,
    seed: int = 0,
    data: Sequence[Tensor] | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> FunctionsResult:
    r"""\(f(x, w_s)\), \(w_s\) from a posterior over weights, and their average, at n inputs.

    Probabilities of a classifier, or means of a regression in the target's own units. Unlike the
    average alone, they show whether the functions agree away from the data.

    Args:
        posterior, progress, options: as for `predict`; BatchNorm statistics come from the
            surface's examples.
        inputs: (n, d); a picture needs d = 1, or a `regular_grid` of d = 2 for a classifier.
        samples: number of draws, which are all held; None: 25, or the members where there are
            fewer.
        seed: seed of the draws.
        data: (inputs, targets) for the picture, such as the training examples, as the loader
            returns them.

    Raises:
        ConfigError: another task than classification or regression, or independent labels.
            DataError: inputs or data of other shapes.

    >>> from torch import nn
    >>> net = nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(1, 1), torch.ones(1, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=0.25), data)
    >>> result = functions(surface, torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]]))
    >>> result.draws[..., 0], result.variance[:, 0]  # 1/4 + (3 - 1)² / 4 where x = 1
    (tensor([[0., 1.],
            [0., 3.]], dtype=torch.float64), tensor([0.2500, 1.2500], dtype=torch.float64))
    """
    if not isinstance(surface.task, Classification | Regression):
        raise ConfigError(
            f"functions: expected a Classification or Regression, got {surface.task!r}; use "
            "ll.predict for other tasks."
        )
    if not isinstance(inputs, Tensor) or inputs.ndim != 2 or not inputs.numel():
        got = tuple(inputs.shape) if isinstance(inputs, Tensor) else type(inputs).__name__
        raise DataError(f"inputs: expected a tensor (n, d), got {got}.")
    data_inputs, data_targets = _data(surface.task, data, inputs.shape[1])
    eval_options = surface.options.override(**options)
    points, total = iter_weights(surface, posterior, SAMPLES if samples is None else samples, seed)
    sink = _Draws(surface.task, surface.example)
    batches = [Batch((block,), {}, None) for block in inputs.split(_BATCH)]
    evaluation = Evaluation(surface, [(batches, sink)], eval_options, total=total)
    evaluation.run(points, progress=progress, label="functions")
    draws = sink.draws()
    if surface.task.kind == "regression" and data_targets is not None:
        dims, shape = draws.shape[2], tuple(data_targets.shape)
        if shape[1:] != (dims,):
            raise DataError(f"data: expected targets (m, {dims}), got {shape}.")
    return FunctionsResult(
        inputs.detach().cpu(),
        draws,
        *sink.average(draws),
        task=surface.task.kind,
        data_inputs=data_inputs,
        data_targets=data_targets,
        batchnorm=eval_options.batchnorm if surface.has_batchnorm else "none",
    )


def regular_grid(around: Tensor, *, resolution: int = 60, margin: float = 0.2) -> Tensor:
    """Inputs (n, d) on a regular grid around inputs (m, d), d = 1 or 2, with n = resolution ** d.

    Args:
        around: the inputs that the grid covers.
        resolution: points along each axis; the first coordinate varies fastest.
        margin: how far the grid extends to each side, as a fraction of the range of the inputs.

    Raises:
        DataError: inputs of another dimension.

    >>> regular_grid(torch.tensor([[0.0], [10.0]]), resolution=3)
    tensor([[-2.],
            [ 5.],
            [12.]])
    """
    if around.ndim != 2 or around.shape[1] not in (1, 2) or len(around) < 1:
        raise DataError(f"around: expected inputs (m, 1) or (m, 2), got {tuple(around.shape)}.")
    resolution = checks.whole("resolution", resolution, least=2, most=100_000)
    margin = checks.number("margin", margin, above=-0.5)
    low, high = around.min(0).values.double(), around.max(0).values.double()
    extra = torch.where(high > low, margin * (high - low), 1.0)  # 1 where all inputs are equal
    axes = [
        torch.linspace(float(a), float(b), resolution, dtype=torch.float64)
        for a, b in zip(low - extra, high + extra, strict=True)
    ]
    grid = torch.cartesian_prod(*reversed(axes)).reshape(-1, len(axes)).flip(1)
    return grid.to(around.dtype if around.is_floating_point() else torch.get_default_dtype())


class _Draws:
    """A `Sink` that holds the probabilities, or means and variances, of every draw."""

    holds_examples = True

    def __init__(self, task: Task, example: Callable[[], Any] | None) -> None:
        self.task = task
        self.example = example  # returns a labelled batch: inputs alone do not show the task's form
        self._batches: list[dict[str, Tensor]] = []  # of this chunk
        self._chunks: list[dict[str, Tensor]] = []  # (n, N, ...) each

    def add(self, index: int, outputs: Tensor, target: Any) -> None:
        self.task = resolve_task(self.task, outputs, target, self.example)
        if getattr(self.task, "form", None) == "multilabel":
            raise ConfigError(
                "functions: independent labels have no single decision; use ll.predict for them."
            )
        statistics = vmap_points(self.task.statistics, outputs)
        values = statistics["mean" if isinstance(self.task, Regression) else "probs"]
        if values.ndim != 3:
            raise ConfigError(
                f"functions: expected one output per input, (n, D) or (n, C), got "
                f"{tuple(values.shape[1:])}; use ll.predict for sequences and images."
            )
        names = ("mean", "variance") if isinstance(self.task, Regression) else ("probs",)
        self._batches.append({name: statistics[name] for name in names})

    def end(self, first: int, n: int) -> None:
        batches, self._batches = self._batches, []
        self._chunks.append(
            {name: torch.cat([batch[name] for batch in batches], 1).cpu() for name in batches[0]}
        )

    def _all(self, name: str) -> Tensor:
        return torch.cat([chunk[name] for chunk in self._chunks])

    def draws(self) -> Tensor:
        """(S, N, C) probabilities, or (S, N, D) means in the target's units."""
        if not isinstance(self.task, Regression):
            return self._all("probs")
        return _in_units(self.task, self._all("mean"))

    def average(self, draws: Tensor) -> tuple[Tensor, Tensor | None]:
        """The average of the draws, and the total variance of a regression."""
        if not isinstance(self.task, Regression):
            return draws.mean(0), None
        mean, variance = mixture_moments(self._all("mean"), self._all("variance"))
        return _in_units(self.task, mean), variance * self.task.target_std.cpu() ** 2


def _in_units(task: Regression, values: Tensor) -> Tensor:
    return values.double() * task.target_std.cpu() + task.target_mean.cpu()


def _data(
    task: Task, data: Sequence[Tensor] | None, features: int
) -> tuple[Tensor | None, Tensor | None]:
    """The examples for the picture, with targets in their own units."""
    if data is None:
        return None, None
    if not isinstance(data, Sequence) or len(data) != 2:
        raise DataError("data: expected (inputs, targets), two tensors of equal length.")
    x, y = (torch.as_tensor(part).detach().cpu() for part in data)
    if x.ndim != 2 or x.shape[1] != features or len(x) != len(y):
        raise DataError(
            f"data: expected inputs (m, {features}) and as many targets, got {tuple(x.shape)} and "
            f"{tuple(y.shape)}."
        )
    return x, _in_units(task, y) if isinstance(task, Regression) else y
