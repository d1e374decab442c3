"""The spectrum of a curvature matrix: leading eigenvalues, trace and density."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lowland.records.base import Record
from lowland.records.table import Table

_POINTS = 512  # of the density's grid
_WIDTH = 0.01  # of the kernel, over the spectrum's range


class Density(NamedTuple):
    """A density of eigenvalues: its integral is 1.

    Attributes:
        grid: (n,), eigenvalues. mean: (n,), over probes. low, high: (n,), the band at 95%.
        width: the standard deviation of the Gaussian that each eigenvalue is drawn as.
    """

    grid: Tensor
    mean: Tensor
    low: Tensor
    high: Tensor
    width: float


@dataclass(frozen=True, eq=False)
class SpectrumResult(Record):
    r"""Eigenvalues of a (P, P) curvature matrix of L at w, see `ll.spectrum`.

    Attributes:
        kind: "hessian", "ggn", "fisher" or "empirical_fisher". size: P.
        eigenvalues: (k,), the largest, largest first. residuals: (k,), \(|A v - \lambda v|\).
        nodes, weights: (probes, m), Gauss quadratures of the remaining P - k eigenvalues, whose
            means estimate their distribution.
        t_quantile: factor of standard errors over probes in intervals at 95%.
        loss, gradient_norm: L(w), and the norm of its gradient with the BatchNorm statistics held
            fixed: w is a minimum where it is near 0.
        items: how many L is a mean over. batchnorm: the policy of BatchNorm statistics, "none" for
            models without any.
        eigenvectors: (k, P), or None. products: vectors multiplied; each is a pass over the
            examples.
        method: of the products, see `CurvatureOperator`. timings: seconds of a vector and batch by
            each method that was timed. seconds: of all products.

    >>> record = SpectrumResult(
    ...     "ggn",
    ...     4,
    ...     torch.tensor([5.0]),
    ...     torch.zeros(1),
    ...     torch.tensor([[1.0, 2.0]]),
    ...     torch.tensor([[0.5, 0.5]]),
    ...     math.inf,
    ...     0.1,
    ...     0.0,
    ...     8,
    ... )
    >>> record.trace  # 5 + 3 (1 + 2) / 2
    9.5
    """

    figure = "spectrum"
    kind: str
    size: int
    eigenvalues: Tensor
    residuals: Tensor
    nodes: Tensor
    weights: Tensor
    t_quantile: float
    loss: float
    gradient_norm: float
    items: int
    batchnorm: str = "none"
    eigenvectors: Tensor | None = None
    products: int = 0
    method: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    seconds: float = math.nan

    @property
    def probes(self) -> int:
        """How many random vectors the trace and the density are means over."""
        return len(self.nodes)

    @property
    def remaining(self) -> int:
        """How many eigenvalues are estimated by probes: P - k."""
        return self.size - len(self.eigenvalues)

    @property
    def traces(self) -> Tensor:
        """(probes,), the trace by each probe."""
        means = (self.weights.double() * self.nodes.double()).sum(1)
        return self.eigenvalues.double().sum() + self.remaining * means

    @property
    def trace(self) -> float:
        r"""\(\mathrm{tr}(A) \approx \sum_i \lambda_i + (P - k) \overline{v^T A v}\), v the probes;
        NaN without any."""
        return float(self.traces.mean()) if self.remaining else float(self.eigenvalues.sum())

    @property
    def trace_interval(self) -> tuple[float, float]:
        """The ends of the trace's interval at 95%, over probes: infinite for a single one."""
        half = 0.0 if not self.remaining else math.inf
        if self.remaining and self.probes > 1:
            half = self.t_quantile * float(self.traces.std()) / math.sqrt(self.probes)
        return self.trace - half, self.trace + half

    @property
    def density(self) -> Density:
        """`smoothed` with its defaults."""
        return self.smoothed()

    def smoothed(self, *, width: float | None = None, points: int = _POINTS) -> Density:
        r"""The density of all P eigenvalues, each drawn as a Gaussian.

        \(\frac1P \sum_{i \le k} N(t; \lambda_i, \sigma^2) + \frac{P - k}P \overline{\sum_j \omega_j
        N(t; \theta_j, \sigma^2)}\), a mean over probes.

        Args:
            width: sigma; None: a hundredth of the range of eigenvalues. points: of the grid.
        """
        leading = self.eigenvalues.double()
        every = torch.cat([leading, self.nodes.double().flatten()])
        low, high = float(every.min()), float(every.max())
        width = width or _WIDTH * ((high - low) or abs(high) or 1.0)
        grid = torch.linspace(low - 4 * width, high + 4 * width, points, dtype=torch.float64)
        scale = 1 / (width * math.sqrt(2 * math.pi))

        def bumps(at: Tensor) -> Tensor:  # (n,) -> (n, points)
            return scale * (-0.5 * ((grid - at[:, None]) / width) ** 2).exp()

        spikes = bumps(leading).sum(0) / self.size
        rest = [
            w.double() @ bumps(n.double()) for n, w in zip(self.nodes, self.weights, strict=True)
        ]
        if not rest:
            return Density(grid, spikes, spikes, spikes, width)
        by_probe = spikes + self.remaining / self.size * torch.stack(rest)
        mean, half = by_probe.mean(0), torch.zeros_like(grid)
        if self.probes > 1:
            half = self.t_quantile * by_probe.std(0) / math.sqrt(self.probes)
        return Density(grid, mean, (mean - half).clamp_min(0), mean + half, width)

    @property
    def table(self) -> Table:
        """A row an eigenvalue: its rank, itself and its residual."""
        return Table(
            {
                "rank": torch.arange(1, len(self.eigenvalues) + 1),
                "eigenvalue": self.eigenvalues.double(),
                "residual": self.residuals.double(),
            }
        )

    def to_pandas(self) -> Any:
        """The leading eigenvalues, a row each."""
        return self.table.to_pandas()

    @property
    def message(self) -> str:
        """Trace, gradient, BatchNorm policy and products, in one line."""
        low, high = self.trace_interval
        parts = [f"trace {self.trace:.4g} ({low:.4g} to {high:.4g})"]
        parts += [f"gradient norm {self.gradient_norm:.2g}", f"{self.products} products"]
        parts += [f"BatchNorm {self.batchnorm}"] if self.batchnorm != "none" else []
        return f"{NAMES[self.kind]} of {self.size:,} weights: {', '.join(parts)}."

    def __str__(self) -> str:
        return f"{self.table}\n\n{self.message}"


#: what the kinds are called
NAMES = {
    "hessian": "Hessian",
    "ggn": "Gauss-Newton matrix",
    "fisher": "Fisher matrix (targets drawn)",
    "empirical_fisher": "empirical Fisher matrix",
}
