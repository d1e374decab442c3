"""The log density of coordinates in a subspace, of a model and its data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.evaluate.conditions import conditions
from lowland.evaluate.likelihood import LogLikelihood
from lowland.evaluate.statistics import require_statistics
from lowland.geometry import Affine, Shape
from lowland.samplers.density import Density


def log_density(
    sub: Shape,
    surface: LossSurface,
    *,
    prior_scale: float | None = 1.0,
    temperature: float = 1.0,
    loader: Iterable[Any] | None = None,
    batchnorm: str = "refresh",
    strategy: str | None = None,
    chunk: int | None = None,
    seed: int = 0,
) -> Density:
    r"""\(\log p(z | D) = \tfrac1T \sum_i \log p(y_i | x_i, \hat w + z B) + \log N(z; 0, s^2 I)\).

    B are the directions (k, P). Up to the evidence, as a function of many points z (n, k) at once
    (Izmailov et al. 2019): what `ll.infer` samples, and what any other sampler may be given.

    Args:
        sub: a `Subspace` or a `Plane`. surface: model, task and data.
        prior_scale: s, a standard deviation in units of the directions' lengths; None: flat.
        temperature: T, by which the log-likelihood is divided.
        loader: other rows than the surface's. batchnorm: "refresh" or "frozen".
        strategy, chunk: how many points go together, see `ll.predict`; None: what is fastest.
        seed: of the order of minibatches.

    Raises:
        ConfigError: a shape that is not flat, a scale or a temperature that is not positive.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> from lowland.geometry import Subspace
    >>> net = nn.Linear(1, 1, bias=False)
    >>> data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), data)
    >>> density = log_density(Subspace(torch.zeros(1), torch.ones(1, 1)), surface)
    >>> density(torch.tensor([[0.0], [1.0]]))  # - log(2 pi), and less by 1/2 + 1/2
    tensor([-1.8379, -2.8379], dtype=torch.float64)
    """
    if not isinstance(sub, Affine):
        raise ConfigError(
            f"a {type(sub).__name__} is not flat, and its coordinates are no random variables of "
            "a Gaussian prior; take Subspace.from_curve(curve), or a Subspace."
        )
    surface.layout.check(sub.center, flat=True)
    require_statistics(sub, surface, batchnorm)
    likelihood = LogLikelihood(
        surface, loader=loader, batchnorm=batchnorm, strategy=strategy, chunk=chunk
    )

    def value_and_grad(z: Tensor) -> tuple[Tensor, Tensor]:
        return likelihood.value_and_grad(sub, z)

    def value(z: Tensor) -> Tensor:
        return likelihood.along(sub, z)

    return Density(
        value,
        sub.k,
        prior_scale=prior_scale,
        temperature=temperature,
        gradient=value_and_grad,
        minibatch=Minibatches(sub, surface, loader, batchnorm=batchnorm, seed=seed),
        memory=likelihood,
    )


class Minibatches:
    """Unbiased estimates of the log-likelihood and its gradient from one batch of the loader.

    The batch of a step is drawn from all n of them by the seed and the step's number alone, so that
    a stopped run goes on with the same, and counts n times.
    """

    def __init__(
        self,
        sub: Shape,
        surface: LossSurface,
        loader: Iterable[Any] | None,
        *,
        batchnorm: str,
        seed: int,
    ) -> None:
        self.sub, self.surface, self.batchnorm, self.seed = sub, surface, batchnorm, seed
        self.rows = surface.rows_of(loader)
        self._batches: list[LogLikelihood] | None = None

    def __call__(self, z: Tensor, step: int) -> tuple[Tensor, Tensor]:
        if self._batches is None:
            held = self.rows.resident()
            if held is None:
                raise ConfigError(
                    "minibatches: the data do not fit in memory; give loader= fewer of them."
                )
            self._batches = [
                LogLikelihood(self.surface, loader=[batch], batchnorm=self.batchnorm)
                for batch in held
            ]
        several = len(self._batches)
        (number,) = np.random.SeedSequence((self.seed, step)).generate_state(1)
        one = self._batches[int(number) % several]
        value, gradient = one.value_and_grad(self.sub, z)
        return several * value, several * gradient


def settings(
    sub: Shape, surface: LossSurface, *, loader: Iterable[Any] | None, batchnorm: str
) -> dict[str, Any]:
    """What must be the same for chains to go on: subspace, model and data."""
    rows = surface.rows_of(loader).held()
    known = conditions(sub, surface, batchnorm=batchnorm, strategy=None, chunk=None)
    return {"rows": f"{rows.rows} {rows.checksum}"} | known
