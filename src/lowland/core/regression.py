"""Gaussian likelihoods."""

from __future__ import annotations

import copy
import math
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowland.core.task import Task, Unpack, wide
from lowland.errors import ConfigError, DataError

VARIANCE_FLOOR = 1e-6


class Regression(Task):
    r"""Gaussian likelihood: targets (N, D), an item is a row.

    \(-\log N(y; m, v) = \tfrac12 \sum_d [\log 2\pi v_d + (y_d - m_d)^2 / v_d]\)

    Args:
        noise_variance: None: the model has 2 D outputs (means, then raw variances) and
            v = softplus(raw) + 1e-6; a number: v is that, and the model has D outputs; "learned":
            the model is a `GaussianHead`, whose 2 D outputs are means and variances.
        target_mean, target_std: what targets were standardised with: predictions and metrics are
            given in the target's own units; L(w) is that of the standardised targets.
        unpack: see `Task`.

    Raises:
        DataError: shapes of output and target that do not match; they are never broadcast.

    >>> Regression(noise_variance=1.0).nll(torch.zeros(1, 1), torch.zeros(1, 1))  # log(2 pi) / 2
    tensor([0.9189])
    """

    kind = "regression"

    def __init__(
        self,
        noise_variance: float | str | None = None,
        *,
        target_mean: float | Tensor = 0.0,
        target_std: float | Tensor = 1.0,
        unpack: Unpack | None = None,
    ) -> None:
        super().__init__(unpack=unpack)
        named = isinstance(noise_variance, str) and noise_variance == "learned"
        real = isinstance(noise_variance, Real) and not isinstance(noise_variance, bool)
        number = real and 0 < noise_variance < math.inf  # type: ignore[operator]
        if not (noise_variance is None or named or number):
            raise ConfigError(
                "noise_variance: expected None, a positive number or 'learned', "
                f"got {noise_variance!r}."
            )
        self.noise_variance = float(noise_variance) if number else noise_variance  # type: ignore[arg-type]
        self.target_mean = torch.as_tensor(target_mean, dtype=torch.float64).reshape(-1)
        self.target_std = torch.as_tensor(target_std, dtype=torch.float64).reshape(-1)
        if not bool((self.target_std > 0).all()):
            raise ConfigError(
                "target_std: expected positive numbers; a constant target has nothing to predict."
            )

    def moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (N, D) each, of the standardised target."""
        output = wide(output)
        if output.ndim != 2:
            raise DataError(
                f"regression: expected outputs (N, D), got {tuple(output.shape)}; D = 1 keeps its "
                "dimension."
            )
        if isinstance(self.noise_variance, int | float):
            self._require_units(output.shape[1])
            return output, torch.full_like(output, self.noise_variance)
        if output.shape[1] % 2:
            raise DataError(
                f"regression: expected 2 outputs a target (mean and variance), got "
                f"{tuple(output.shape)}; give the model twice as many outputs, or fix "
                "noise_variance=, or wrap the model in GaussianHead with noise_variance='learned'."
            )
        mean, variance = output.chunk(2, 1)
        self._require_units(mean.shape[1])
        if self.noise_variance is None:
            variance = F.softplus(variance) + VARIANCE_FLOOR
        return mean, variance

    def _require_units(self, targets: int) -> None:
        for name in ("target_mean", "target_std"):
            held = len(getattr(self, name))
            if held not in (1, targets):
                raise DataError(
                    f"regression: {name} holds {held} numbers, and the model predicts {targets} "
                    "targets; give one number, or one for each target."
                )

    def in_own_units(self) -> Regression:
        """The same for predictions and targets that are in the target's own units."""
        task = copy.copy(self)
        task.target_mean, task.target_std = torch.zeros(1).double(), torch.ones(1).double()
        return task

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        mean, variance = self.moments(output)
        if mean.shape != target.shape:
            raise DataError(
                f"regression: expected targets {tuple(mean.shape)} for outputs "
                f"{tuple(output.shape)}, got {tuple(target.shape)}; targets are (N, D), D = 1 "
                "included: use y[:, None]."
            )
        error = target.to(mean.dtype) - mean
        return 0.5 * (math.log(2 * math.pi) + variance.log() + error**2 / variance).sum(1)

    def check(self, output: Tensor, target: Tensor) -> None:
        if not bool(torch.isfinite(target).all()):
            raise DataError("regression: the targets hold NaN or infinity; drop those rows.")
        if self.noise_variance == "learned" and not bool((self.moments(output)[1] > 0).all()):
            raise DataError(
                "regression: noise_variance='learned' takes the second half of the outputs for "
                "variances, and some are not positive; wrap the model in GaussianHead."
            )

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        mean, variance = (part.double() for part in self.moments(output))
        return {"mean": mean, "variance": variance}


class GaussianHead(nn.Module):
    r"""Adds one learned noise variance, softplus(rho), to the variance that a network predicts.

    The forward pass gives (N, 2 D): means, then variances, for `Regression("learned")`. A network
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
        self, net: nn.Module, *, homoscedastic: bool = False, noise_variance: float = 0.1
    ) -> None:
        super().__init__()
        self.net = net
        self.homoscedastic = homoscedastic
        self.rho = nn.Parameter(torch.tensor(math.log(math.expm1(noise_variance))))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.net(*args, **kwargs)
        shared = F.softplus(self.rho) + VARIANCE_FLOOR
        if self.homoscedastic or output.shape[-1] % 2:
            return torch.cat([output, shared.to(output.dtype).expand_as(output)], -1)
        mean, raw = output.chunk(2, -1)
        return torch.cat([mean, F.softplus(raw) + shared.to(raw.dtype)], -1)
