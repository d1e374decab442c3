"""The log posterior over two coordinates of a subspace, to look at with what was sampled there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Unpack

import torch

from lowland import checks
from lowland.core import LossSurface
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.geometry import Affine, Subspace
from lowland.landscape.scan import scan
from lowland.progress import Progress
from lowland.records import Chain, SurfaceResult

_WIDE = 4.0  # standard deviations of the draws that a picture shows


def posterior_plane(
    sub: Affine,
    surface: LossSurface,
    chain: Chain,
    *,
    coordinates: Sequence[int] = (0, 1),
    bounds: Sequence[Sequence[float]] | None = None,
    resolution: int = 41,
    loader: Iterable[Any] | None = None,
    paths: Any = None,
    store: PathLike | None = None,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> SurfaceResult:
    r"""\(\tfrac1T \log p(D | z) + \log N(z; 0, s^2 I)\) over \(z_i, z_j\), at the draws' mean else.

    T and s are the chain's. `plots.posterior(record, chain=chain)` draws it with the samples.

    Args:
        sub, surface, loader: as the chain was sampled with. coordinates: i and j.
        bounds: ((low, high), (low, high)); None: four standard deviations about the draws' mean.
        resolution, paths, store, progress, options: as for `ll.scan`. With `count=` fewer rows
            are looked at, and their log-likelihood is scaled to all of them.

    Raises:
        ConfigError: coordinates that the subspace does not have.
    """
    i, j = (checks.whole("coordinates", c, least=0, most=sub.k - 1) for c in coordinates)
    if i == j:
        raise ConfigError(f"coordinates: expected two different ones, got {i} twice.")
    rest = chain.mean.clone()
    rest[[i, j]] = 0
    plane = Subspace(sub(rest[None])[0], sub.basis[[i, j]])
    if bounds is None:
        half = _WIDE * chain.covariance.diagonal().sqrt()
        half[half == 0] = chain.prior_scale or 1.0  # of a single draw
        bounds = [(float(chain.mean[c] - half[c]), float(chain.mean[c] + half[c])) for c in (i, j)]
    how = surface.options.override(**options)
    found = scan(
        plane,
        surface,
        resolution=resolution,
        bounds=bounds,
        loader=loader,
        metrics=("loss",),
        paths=paths,
        store=store,
        progress=progress,
        options=how,
    )
    every = surface.replayable(loader).cached()
    assert every.items is not None  # held
    assert found.y is not None  # a plane
    value = -every.items / chain.temperature * found.metrics["loss"]
    if chain.prior_scale is not None:
        square = found.x[None, :] ** 2 + found.y[:, None] ** 2 + float(rest @ rest)
        constant = sub.k * (math.log(chain.prior_scale) + 0.5 * math.log(2 * math.pi))
        value = value - 0.5 * square / chain.prior_scale**2 - constant
    about = found.about | {"coordinates": torch.tensor([i, j])}
    return replace(found, metrics={"log_density": value}, about=about)
