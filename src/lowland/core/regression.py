"""Gaussian likelihoods."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowland import checks
from lowland.core.axes import axis_of, require_axis
from lowland.core.task import Task, Unpack, at_least_float32, count_examples
from lowland.errors import DataError
from lowland.records.predictive import default_target_axis

VARIANCE_FLOOR = 1e-6


class Regression(Task):
    r"""Gaussian likelihood: targets (N, D), an item is an example; or (N, T, D), (N, D, H, W),
    where an item is a position of a sequence or a pixel.

    \(-\log N(y; m, v) = \tfrac12 \sum_d [\log 2\pi v_d + (y_d - m_d)^2 / v_d]\)

    Args:
        noise_variance: None: the model has 2 D outputs (means, then raw variances) and
            v = softplus(raw) + 1e-6; a number: v is that, and the model has D outputs; "learned":
            the model is a `GaussianHead`, whose 2 D outputs are means and variances.
        target_mean, target_std: what targets were standardised with, a number or D of them.
            Predictions and metrics are in the target's own units; L(w) is that of the standardised
            targets.
        target_dim: the axis of the D targets, and of the outputs' means and variances. None: the
            last of sequences (N, T, D), axis 1 of all else, as of images (N, D, H, W).
        unpack: see `Task`.

    Raises:
        DataError: shapes of output and target that do not match; they are never broadcast.

    >>> Regression(noise_variance=1.0).nll(torch.zeros(1, 1), torch.zeros(1, 1))  # log(2 pi) / 2
    tensor([0.9189])
    """

    kind = "regression"
    tensor_targets = True

    def __init__(
        self,
        noise_variance: float | str | None = None,
        *,
        target_mean: float | Tensor = 0.0,
        target_std: float | Tensor = 1.0,
        target_dim: int | None = None,
        unpack: Unpack | None = None,
    ) -> None:
        super().__init__(unpack=unpack)
        self.noise_variance: float | str | None
        if noise_variance is None or (
            isinstance(noise_variance, str) and noise_variance == "learned"
        ):
            self.noise_variance = noise_variance
        else:
            self.noise_variance = checks.number("noise_variance", noise_variance, above=0)
        mean = checks.numbers("target_mean", target_mean)
        std = checks.numbers(
            "target_std",
            target_std,
            above=0,
            hint="a constant target has nothing to predict",
        )
        self.target_mean = torch.tensor(mean, dtype=torch.float64)
        self.target_std = torch.tensor(std, dtype=torch.float64)
        self.target_dim = require_axis("target_dim", target_dim)

    def axis(self, shape: Sequence[int]) -> int:
        """The axis of outputs or targets of this shape that the D targets lie on."""
        return target_axis(shape, self.target_dim)

    def moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the standardised target, in the target's shape each."""
        output = at_least_float32(output)
        axis = self.axis(output.shape)
        if isinstance(self.noise_variance, int | float):
            self._require_units(output.shape[axis])
            return output, torch.full_like(output, self.noise_variance)
        if output.shape[axis] % 2:
            raise DataError(
                f"regression: expected 2 outputs a target (mean and variance) on axis {axis}, got "
                f"{tuple(output.shape)}; give the model twice as many outputs, or name another "
                "target_dim=, or fix noise_variance=, or wrap the model in GaussianHead with "
                "noise_variance='learned'."
            )
        mean, variance = output.chunk(2, axis)
        self._require_units(mean.shape[axis])
        if self.noise_variance is None:
            variance = F.softplus(variance) + VARIANCE_FLOOR
        return mean, variance

    def _require_units(self, targets: int) -> None:
        for name in ("target_mean", "target_std"):
            count = len(getattr(self, name))
            if count not in (1, targets):
                raise DataError(
                    f"regression: {name} has {count} numbers, and the model predicts {targets} "
                    "targets; give one number, or one for each target."
                )

    def units(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """`target_mean` and `target_std`, to be broadcast with a tensor of the target's shape."""
        shape = [1] * (like.ndim - 1)
        shape[self.axis(like.shape) - 1] = -1
        return (
            self.target_mean.to(like.device).reshape(shape),
            self.target_std.to(like.device).reshape(shape),
        )

    def log_scale(self, like: Tensor) -> float:
        """What the NLL of an item grows by in the target's own units."""
        return float(self.target_std.log().expand(like.shape[self.axis(like.shape)]).sum())

    def in_own_units(self) -> Regression:
        """The same for predictions and targets that are in the target's own units."""
        return self.replace(target_mean=torch.zeros(1).double(), target_std=torch.ones(1).double())

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        mean, variance = self.moments(output)
        if mean.shape != target.shape:
            raise DataError(
                f"regression: expected targets {tuple(mean.shape)} for outputs "
                f"{tuple(output.shape)}, got {tuple(target.shape)}; "
                f"{_advice(tuple(output.shape), tuple(target.shape))}."
            )
        error = target.to(mean.dtype) - mean
        each = 0.5 * (math.log(2 * math.pi) + variance.log() + error**2 / variance)
        return each.sum(self.axis(output.shape)).reshape(-1)

    def items(self, target: Any) -> int:
        if not isinstance(target, Tensor) or target.ndim < 3:
            return count_examples(target)
        return target.numel() // max(target.shape[self.axis(target.shape)], 1)

    def check(self, output: Tensor, target: Tensor) -> None:
        if not bool(torch.isfinite(target).all()):
            raise DataError("regression: the targets hold NaN or infinity; drop those examples.")
        if self.noise_variance == "learned" and not bool((self.moments(output)[1] > 0).all()):
            raise DataError(
                "regression: noise_variance='learned' takes the second half of the outputs for "
                "variances, and some are not positive; wrap the model in GaussianHead."
            )

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        mean, variance = (part.double() for part in self.moments(output))
        return {"mean": mean, "variance": variance}


def target_axis(shape: Sequence[int], target_dim: int | None) -> int:
    """The axis of the D targets, counted from the first."""
    if len(shape) < 2:
        raise DataError(
            f"regression: expected outputs (N, D), got {tuple(shape)}; D = 1 keeps its dimension."
        )
    if len(shape) == 2 or target_dim is None:
        return default_target_axis(len(shape))
    return axis_of("target_dim", target_dim, shape)


def _advice(output: tuple[int, ...], target: tuple[int, ...]) -> str:
    """What to do about targets that do not fit the outputs."""
    twice = [n for n, (a, b) in enumerate(zip(output, target, strict=False)) if a == 2 * b != b]
    if len(output) == len(target) > 2 and len(twice) == 1:
        (axis,) = twice
        if output[:axis] + output[axis + 1 :] == target[:axis] + target[axis + 1 :]:
            return f"means and variances seem to lie on axis {axis}: say target_dim={axis}"
    return "targets are (N, D), D = 1 included: use y[:, None]"


class GaussianHead(nn.Module):
    r"""Adds one learned noise variance, softplus(rho), to the variance that a network predicts.

    The forward pass gives (N, 2 D): means, then variances, for `Regression("learned")`; of
    sequences and images on the axis that `Regression` reads, `target_dim`. A network
    with 2 D outputs predicts mean and raw variance: v = softplus(raw) + 1e-6 + softplus(rho), as
    Izmailov et al. 2019 do; one with D outputs the mean alone: v = softplus(rho) + 1e-6. An odd
    number of outputs can only be the second; `homoscedastic` says so where it is even.

    `rho` is an ordinary parameter, so it is part of w.

    >>> head = GaussianHead(nn.Linear(3, 2))
    >>> mean, variance = head(torch.zeros(5, 3)).chunk(2, 1)
    >>> mean.shape, bool((variance > 0).all())
    (torch.Size([5, 1]), True)
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        homoscedastic: bool = False,
        noise_variance: float = 0.1,
        target_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.net = checks.module("net", net)
        self.target_dim = require_axis("target_dim", target_dim)
        self.homoscedastic = homoscedastic
        noise_variance = checks.number("noise_variance", noise_variance, above=0)
        self.rho = nn.Parameter(torch.tensor(math.log(math.expm1(noise_variance))))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.net(*args, **kwargs)
        shared = F.softplus(self.rho) + VARIANCE_FLOOR
        axis = target_axis(output.shape, self.target_dim)
        if self.homoscedastic or output.shape[axis] % 2:
            return torch.cat([output, shared.to(output.dtype).expand_as(output)], axis)
        mean, raw = output.chunk(2, axis)
        return torch.cat([mean, F.softplus(raw) + shared.to(raw.dtype)], axis)
