"""What is chosen on validation data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import torch

from lowland.core import LossSurface
from lowland.errors import ConfigError
from lowland.evaluate.bma import predict
from lowland.posteriors import Gaussian, Mixture
from lowland.records import Table

Scaled = TypeVar("Scaled", bound=Gaussian | Mixture)
SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


def tune_scale(
    surface: LossSurface,
    post: Scaled,
    loader: Iterable[Any],
    *,
    scales: Sequence[float] = SCALES,
    samples: int = 10,
    seed: int = 0,
    **options: Any,
) -> tuple[Scaled, Table]:
    """The posterior with the covariance scale whose model average has the lowest NLL on `loader`.

    Give it validation data, never test data. The same noise is used for every scale, so that they
    differ by the scale alone. `options` go to `predict`.

    Returns:
        The posterior, and a table of scale and nll.

    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> surface = LossSurface(
    ...     nn.Linear(1, 1, bias=False),
    ...     Regression(noise_variance=0.01),
    ...     [(torch.ones(2, 1), torch.tensor([[-1.0], [1.0]]))],
    ... )
    >>> post, table = tune_scale(surface, Gaussian(torch.zeros(1), torch.ones(1)), surface.data)
    >>> post.scale > 0  # the targets scatter far more than the noise of one model allows
    True
    """
    if not scales:
        raise ConfigError("scales: expected at least one number >= 0.")
    found = [
        predict(
            surface,
            post.with_scale(scale),
            loader,
            samples=samples,
            seed=seed,
            keep="none",
            **options,
        ).metrics()["nll"]
        for scale in scales
    ]
    best = min(range(len(found)), key=found.__getitem__)
    columns = {
        "scale": torch.tensor(list(scales), dtype=torch.float64),
        "nll": torch.tensor(found).double(),
    }
    return cast(Scaled, post.with_scale(scales[best])), Table(columns)
