"""The log posterior over two coordinates of a subspace, for pictures of a chain."""

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

_WIDE = 4.0  # half the width of a picture, in standard deviations of the draws


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
    r"""\(\tfrac1T \log p(D | z) + \log N(z; 0, s^2 I)\) over \(z_i, z_j\), with the
    other coordinates at the draws' mean.

    T and s are the chain's. `plots.posterior(record, chain=chain)` draws it with the samples.

    Args:
        sub, surface, loader: as the chain was sampled with. coordinates: i and j.
        bounds: ((low, high), (low, high)); None: four standard deviations about the draws' mean.
        resolution, paths, store, progress, options: as for `ll.scan`. With `count=` it reads
            fewer examples, and scales their log-likelihood to all of them.

    Raises:
        ConfigError: coordinates out of range, or equal.
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
    losses = scan(
        plane,
        surface,
        resolution=resolution,
        bounds=bounds,
        loader=loader,
        metrics=("loss",),
        paths=paths,
        store=store,
        progress=progress,
        options=surface.options.override(**options),
    )
    examples = surface.replayable(loader).cached()
    assert losses.y is not None  # a plane
    value = -examples.counted_items / chain.temperature * losses.metrics["loss"]
    if chain.prior_scale is not None:
        square = losses.x[None, :] ** 2 + losses.y[:, None] ** 2 + float(rest @ rest)
        constant = sub.k * (math.log(chain.prior_scale) + 0.5 * math.log(2 * math.pi))
        value = value - 0.5 * square / chain.prior_scale**2 - constant
    about = losses.about | {"coordinates": torch.tensor([i, j])}
    return replace(losses, metrics={"log_density": value}, about=about)
