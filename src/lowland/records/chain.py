"""What a sampler gives: draws by chain, and how far to trust them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lowland.errors import ConfigError, LowlandError
from lowland.records.base import Record

if TYPE_CHECKING:
    from lowland.geometry import Shape
    from lowland.posteriors import Pushforward


@dataclass(frozen=True, eq=False)
class Chain(Record):
    r"""Draws of k coordinates from \(\log p(z) = \tfrac1T \log p(D|z) + \log N(z; 0, s^2 I)\).

    `coords` (chains, S, k) and `log_density` (chains, S) are after warming up, float64, the latter
    without the evidence. The points of a grid carry `log_weights` (chains, S), whose exponentials
    sum to one; None: all are equal.

    `acceptance`: by chain, the share of proposals that were accepted. `evaluations` of the
    log-likelihood, warming up included. `log_evidence`: the logarithm of the integral of the
    unnormalised density, where the sampler gives it; `log_evidence_bound` a lower bound on it, the
    ELBO of a fitted density. `about`: further values of the sampler.

    >>> chain = Chain(
    ...     torch.zeros(1, 2, 1),
    ...     torch.zeros(1, 2),
    ...     sampler="grid",
    ...     log_weights=torch.tensor([[0.25, 0.75]]).log(),
    ... )
    >>> chain.mean, chain.weights
    (tensor([0.], dtype=torch.float64), tensor([[0.2500, 0.7500]], dtype=torch.float64))
    """

    figure = "trace"
    coords: Tensor
    log_density: Tensor
    sampler: str
    temperature: float = 1.0
    prior_scale: float | None = 1.0
    evaluations: int = 0
    acceptance: Tensor | None = None
    log_weights: Tensor | None = None
    log_evidence: float | None = None
    log_evidence_bound: float | None = None
    about: dict[str, Any] = field(default_factory=dict)

    # -- summaries -------------------------------------------------------------------------------

    @property
    def draws(self) -> Tensor:
        """All chains' draws, one chain after the other: (chains * S, k)."""
        return self.coords.reshape(-1, self.coords.shape[-1])

    @property
    def weights(self) -> Tensor:
        """Of each draw, (chains, S): they sum to one."""
        if self.log_weights is None:
            return torch.full_like(
                self.log_density, 1 / self.log_density.numel(), dtype=torch.float64
            )
        logs = self.log_weights.double()
        return (logs - logs.logsumexp((0, 1))).exp()

    @property
    def mean(self) -> Tensor:
        """(k,)."""
        return self.weights.flatten() @ self.draws.double()

    @property
    def covariance(self) -> Tensor:
        """(k, k)."""
        centred = self.draws.double() - self.mean
        return (self.weights.flatten()[:, None] * centred).T @ centred

    @cached_property
    def rhat(self) -> Tensor:
        """Rank-normalised split R-hat of each coordinate, (k,) (Vehtari et al. 2021): 1 where the
        chains agree; NaN for a single chain or independent draws with weights."""
        if self.coords.shape[0] < 2 or self.log_weights is not None:
            return self.coords.new_full((self.coords.shape[-1],), float("nan"))
        return self._diagnosed("rhat")

    @cached_property
    def ess(self) -> Tensor:
        """Bulk effective sample size of each coordinate, all chains together, (k,); of weighted
        draws \\(1 / \\sum w^2\\)."""
        if self.log_weights is not None:
            return (1 / self.weights.square().sum()).expand(self.coords.shape[-1])
        return self._diagnosed("ess", method="bulk")

    @cached_property
    def ess_tail(self) -> Tensor:
        """The smaller of the effective sample sizes of the 5% and 95% quantiles, (k,)."""
        if self.log_weights is not None:
            return self.ess
        return self._diagnosed("ess", method="tail", prob=(0.05, 0.95))

    def _diagnosed(self, name: str, **options: Any) -> Tensor:
        try:
            from arviz_stats.base.array import array_stats
        except ImportError:
            raise LowlandError(
                'R-hat and effective sample sizes need arviz-stats: pip install "lowland[samplers]"'
            ) from None
        values = self.coords.double().cpu().numpy()
        with np.errstate(all="ignore"):  # constant chains: NaN
            result = getattr(array_stats, name)(values, chain_axis=0, draw_axis=1, **options)
        return torch.as_tensor(result, dtype=torch.float64).reshape(-1)

    def to_pandas(self) -> Any:
        """One row per coordinate: mean, standard deviation, R-hat, effective sample sizes."""
        import pandas as pd

        columns = {
            "mean": self.mean,
            "sd": self.covariance.diagonal().sqrt(),
            "rhat": self.rhat,
            "ess": self.ess,
            "ess_tail": self.ess_tail,
        }
        return pd.DataFrame({name: values.numpy() for name, values in columns.items()})

    # -- the posterior over weights --------------------------------------------------------------

    def posterior(self, shape: Shape | None = None) -> Pushforward:
        """The draws as weights of the subspace that they were sampled in, for `ll.predict`.

        Args:
            shape: that subspace; a chain that `ll.infer` gave knows it, one from a file does not.
        """
        from lowland.posteriors import Pushforward

        result = shape if shape is not None else vars(self).get("shape")
        if result is None:
            raise ConfigError(
                "posterior: a chain on disk holds coordinates alone; give the subspace that it was "
                "sampled in."
            )
        return Pushforward(result, self.draws, weights=self.weights.flatten())

    def within(self, shape: Shape) -> Chain:
        """The same chain, which knows its subspace."""
        vars(self)["shape"] = shape  # no field: weights of a large model are no part of the record
        return self
