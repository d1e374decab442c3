"""The log posterior density of the coordinates in a subspace, for a model and its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Unpack

from torch import Tensor

from lowland.core import EvalOptions, LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.evaluate.batchnorm_statistics import require_statistics
from lowland.evaluate.fingerprint import evaluation_fingerprint
from lowland.evaluate.likelihood import LogLikelihood
from lowland.geometry import Affine, Shape
from lowland.samplers.density import Density
from lowland.samplers.minibatches import Minibatches


def log_density(
    sub: Shape,
    surface: LossSurface,
    *,
    prior_scale: float | None = 1.0,
    temperature: float = 1.0,
    loader: Iterable[Any] | None = None,
    seed: int = 0,
    **options: Unpack[EvalKeywords],
) -> Density:
    r"""\(\log p(z | D) = \tfrac1T \sum_i \log p(y_i | x_i, \hat w + z B) + \log N(z; 0, s^2 I)\).

    B are the directions (k, P). It is known up to the evidence, and a function of many points z (n,
    k) at once (Izmailov et al. 2019): for `ll.infer` and for any other sampler.

    Args:
        sub: a `Subspace` or a `Plane`. surface: model, task and data.
        prior_scale: s, a standard deviation in units of the directions' lengths; None: flat.
        temperature: T, by which the log-likelihood is divided.
        loader: other examples than the surface's. seed: of the order of minibatches.
        options: `batchnorm`, `strategy` and others: how weights are evaluated, see
            `ll.EvalOptions`.

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
    >>> density(torch.tensor([[0.0], [1.0]]))  # -log(2 pi), and 1/2 + 1/2 less
    tensor([-1.8379, -2.8379], dtype=torch.float64)
    """
    if not isinstance(sub, Affine):
        raise ConfigError(
            f"a {type(sub).__name__} is not flat, so that its coordinates cannot have a Gaussian "
            "prior; take Subspace.from_curve(curve), or a Subspace."
        )
    surface.layout.check(sub.center, flat=True)
    how = surface.options.override(**options)
    require_statistics(sub, surface, how)
    likelihood = LogLikelihood(surface, loader=loader, options=how)

    def value_and_grad(z: Tensor) -> tuple[Tensor, Tensor]:
        return likelihood.value_and_grad(sub, z)

    def value(z: Tensor) -> Tensor:
        return likelihood.along(sub, z)

    minibatches = Minibatches(sub, surface, loader, options=how, seed=seed)
    return Density(
        value,
        sub.k,
        prior_scale=prior_scale,
        temperature=temperature,
        gradient=value_and_grad,
        minibatch=minibatches,
        memory=_Plans(likelihood, minibatches),
    )


class _Plans:
    """The execution plans for all data and for minibatches."""

    def __init__(self, likelihood: LogLikelihood, minibatches: Minibatches) -> None:
        self.likelihood, self.minibatches = likelihood, minibatches

    def state_dict(self) -> dict[str, Any]:
        return {
            "data": self.likelihood.state_dict(),
            "minibatches": self.minibatches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.likelihood.load_state_dict(state["data"])
        self.minibatches.load_state_dict(state["minibatches"])


def settings(
    sub: Shape, surface: LossSurface, *, loader: Iterable[Any] | None, options: EvalOptions
) -> dict[str, Any]:
    """What must be equal for chains to go on: subspace, model and data. Execution plans may differ:
    those of the chains are saved with them."""
    examples = surface.replayable(loader, count=options.count).cached()
    fingerprint = evaluation_fingerprint(
        sub, surface, replace(options, strategy=None, chunk=None, threads=None)
    )
    return {"examples": f"{examples.num_examples} {examples.checksum}"} | fingerprint
