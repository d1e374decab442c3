"""The spectrum of the loss's curvature: leading eigenpairs, trace and density."""

from __future__ import annotations

from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import LossSurface
from lowland.core.data import free_memory
from lowland.core.point import Point
from lowland.core.seeds import stream
from lowland.curvature.interval import t_quantile
from lowland.curvature.lanczos import Eigenpairs, basis_size, lanczos_quadrature, leading_eigenpairs
from lowland.curvature.operators import CurvatureKeywords, CurvatureOperator
from lowland.errors import ConfigError
from lowland.evaluate.fingerprint import model_fingerprint
from lowland.files import PathLike
from lowland.progress import Progress, Report, reporting
from lowland.records import SpectrumResult
from lowland.tensor_files import tensor_checksum

_KIND = "spectrum"


class _State(TypedDict):
    """What a checkpoint holds; eigenvectors are in a file beside it."""

    values: Tensor
    residuals: Tensor
    nodes: Tensor
    weights: Tensor
    method: str
    products: int
    seconds: float


def spectrum(
    surface: LossSurface,
    w: Tensor | Point,
    *,
    kind: str = "hessian",
    top: int = 10,
    probes: int = 10,
    steps: int = 60,
    seed: int = 0,
    tolerance: float = 1e-3,
    eigenvectors: bool = False,
    checkpoint: Checkpoint | PathLike | None = None,
    progress: Progress = False,
    **options: Unpack[CurvatureKeywords],
) -> SpectrumResult:
    r"""Leading eigenvalues, trace and density of the curvature of L at w.

    L is the mean over items, as in `surface(w)`, so that eigenvalues do not grow with the data; the
    BatchNorm statistics of w are held fixed. The matrices are those of `CurvatureOperator`. All is
    by products with vectors, each a pass over the examples:

    - the `top` largest eigenvalues by Lanczos' method with full reorthogonalisation;
    - the density of the others by stochastic Lanczos quadrature (Ghorbani et al. 2019): `steps`
      products from each of `probes` random vectors in the complement of the eigenvectors, again
      with full reorthogonalisation. The band is over probes;
    - the trace by the first of these products: the leading eigenvalues exactly, the others by
      Hutchinson's estimate in their complement. This is the decomposition of Hutch++ (Meyer et al.
      2021), with eigenvectors in the place of its sketch, and unbiased for indefinite matrices too.
      `steps=1` gives the trace alone.

    Memory: at most (2 top + 40) or (top + steps) vectors of P numbers beside the model, whichever
    is more, in the dtype of w; they are compared with the free memory first, and the progress bar
    shows them.

    Args:
        kind: "hessian", "ggn", "fisher" or "empirical_fisher".
        top: how many eigenvalues, at most P; 0 for none.
        probes: how many random vectors; 0 for no trace and no density.
        steps: of Lanczos' method from each. seed: of all random vectors.
        tolerance: of the eigenpairs' residuals, relative to the largest eigenvalue.
        eigenvectors: whether the record holds them, (top, P).
        checkpoint: a file: a stopped computation goes on from it after the last complete probe; one
            with more `probes` extends it.
        progress: True for a bar, or a callable of (products, total).
        options: `loader`, `batchnorm`, `samples`, `method` and `chunk`, as for `CurvatureOperator`.
            A fixed method gives the same bits in each run.

    Raises:
        ConfigError: an unknown option, numbers out of range, too little memory, a model without a
            second derivative, a checkpoint of other settings. NonFiniteError: no finite loss at w.
        DataError: an empty loader. LowlandError: no convergence, or scipy is not installed.

    >>> from lowland.core import Regression
    >>> x = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    >>> net = torch.nn.Linear(3, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, torch.zeros(3, 1))])
    >>> result = spectrum(surface, torch.zeros(3), top=1, probes=4)  # x^T x / n = diag(3, 4/3, 1/3)
    >>> print(round(float(result.eigenvalues), 3), result.gradient_norm)
    3.0 0.0
    >>> low, high = result.trace_interval
    >>> low <= 14 / 3 <= high
    True
    """
    size = surface.layout.size
    top = min(checks.whole("top", top, least=0), size)
    probes = checks.whole("probes", probes, least=0) if size > top else 0
    steps = min(checks.whole("steps", steps, least=1), size - top)
    tolerance = checks.number("tolerance", tolerance, above=0)
    seed = checks.seed(seed)
    bytes_needed = _require_memory(surface.point(w).weights, top, probes, steps)
    matrix = CurvatureOperator(surface, w, kind=kind, seed=seed, **options)
    store = _Store(checkpoint, matrix, top=top, steps=steps, seed=seed, tolerance=tolerance)
    with reporting(progress, f"{kind} products, {bytes_needed / 1e9:.2g} GB") as report:
        pairs = store.pairs
        if pairs is None:
            pairs = _leading(matrix, top, seed, tolerance, report)
            store.save_pairs(pairs)
        total = matrix.products + max(probes - len(store.nodes), 0) * steps
        for probe in range(len(store.nodes), probes):
            quadrature = lanczos_quadrature(
                _counted(matrix, report, total),
                _random_vector(matrix, stream("spectrum probe", seed, probe)),
                steps,
                complement_of=pairs.vectors,
            )
            store.append(quadrature.nodes, quadrature.weights)
        report(total, total)
    return SpectrumResult(
        kind=kind,
        size=size,
        eigenvalues=pairs.values.cpu(),
        residuals=pairs.residuals.cpu(),
        nodes=store.nodes[:probes],
        weights=store.weights[:probes],
        t_quantile=t_quantile(probes),
        loss=matrix.loss,
        gradient_norm=float(matrix.gradient.norm()),
        items=matrix.items,
        batchnorm=matrix.batchnorm,
        eigenvectors=pairs.vectors.cpu() if eigenvectors else None,
        products=matrix.products,
        method=matrix.method,
        timings=matrix.timings,
        seconds=matrix.seconds,
    )


def _leading(
    matrix: CurvatureOperator, top: int, seed: int, tolerance: float, report: Report
) -> Eigenpairs:
    start = _random_vector(matrix, stream("spectrum eigenpairs", seed))
    if not top:
        none = torch.zeros(0, dtype=torch.float64)
        return Eigenpairs(none, start.new_empty(0, matrix.size), none)
    return leading_eigenpairs(_counted(matrix, report), start, top, tolerance=tolerance)


def _counted(matrix: CurvatureOperator, report: Report, total: int | None = None) -> Any:
    """v -> A v, with a report of each product; the total is known once there are eigenpairs."""

    def product(v: Tensor) -> Tensor:
        image = matrix @ v
        report(matrix.products, total)
        return image

    return product


def _random_vector(matrix: CurvatureOperator, generator: torch.Generator) -> Tensor:
    vector = torch.randn(matrix.size, generator=generator, dtype=torch.float64)
    return vector.to(matrix.device, matrix.dtype)


def _require_memory(weights: Tensor, top: int, probes: int, steps: int) -> int:
    """The bytes of vectors that are held at once.

    Raises:
        ConfigError: more than are free.
    """
    size, each = len(weights), weights.nbytes
    leading = basis_size(size, top) + top if top else 0
    needed = max(leading, top + steps if probes else 0) * each
    free = free_memory(weights.device)
    if needed > free:
        vectors = f"{needed // each} vectors of {size:,} weights"
        raise ConfigError(
            f"{vectors} take {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; lower steps= "
            f"(now {steps}) and top= (now {top}), or take fewer weights: where= of the surface."
        )
    return int(needed)


class _Store:
    """What is complete of a spectrum, in memory and in a checkpoint.

    Attributes:
        pairs: None: not computed yet. nodes, weights: (probes, steps).
    """

    def __init__(
        self,
        checkpoint: Checkpoint | PathLike | None,
        matrix: CurvatureOperator,
        **settings: Any,
    ) -> None:
        self.checkpoint, self.matrix = Checkpoint.of(checkpoint), matrix
        self.pairs: Eigenpairs | None = None
        self.nodes = self.weights = torch.zeros(0, settings["steps"], dtype=torch.float64)
        if self.checkpoint.path is None:
            return
        point = matrix.point
        self.same = settings | {
            "kind": matrix.kind,
            "samples": matrix.samples,
            "batchnorm": matrix.batchnorm,
            "model": model_fingerprint(matrix.surface),
            "point": tensor_checksum(point.weights, *(point.buffers or {}).values()),
            "examples": matrix.checksum,
        }
        state = self.checkpoint.load(kind=_KIND, same=self.same, form=_State)
        if state is None:
            return
        vectors = self._vectors.load(kind=_KIND, same=self.same, form=dict[str, Tensor])["vectors"]
        self.pairs = Eigenpairs(state["values"], vectors.to(point.weights), state["residuals"])
        self.nodes, self.weights = state["nodes"], state["weights"]
        matrix.method, matrix.products = state["method"], state["products"]
        matrix.seconds = state["seconds"]

    @property
    def _vectors(self) -> Checkpoint:
        return self.checkpoint.part("vectors")

    def save_pairs(self, pairs: Eigenpairs) -> None:
        """Stores eigenpairs."""
        self.pairs = pairs
        if self.checkpoint.path is not None:
            self._vectors.save({"vectors": pairs.vectors.cpu()}, kind=_KIND, same=self.same)
        self._save()

    def append(self, nodes: Tensor, weights: Tensor) -> None:
        """Stores a probe."""
        self.nodes = torch.cat([self.nodes, nodes[None]])
        self.weights = torch.cat([self.weights, weights[None]])
        self._save()

    def _save(self) -> None:
        if self.checkpoint.path is None or self.pairs is None:
            return
        state: _State = {
            "values": self.pairs.values.cpu(),
            "residuals": self.pairs.residuals.cpu(),
            "nodes": self.nodes,
            "weights": self.weights,
            "method": self.matrix.method,
            "products": self.matrix.products,
            "seconds": self.matrix.seconds,
        }
        self.checkpoint.save(state, kind=_KIND, same=self.same)
