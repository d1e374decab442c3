"""The covariance scale of a posterior, chosen on validation data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from lowland import checks
from lowland.core import LossSurface
from lowland.core.spread import warn_if_still
from lowland.errors import ConfigError, DataError, NonFiniteError
from lowland.evaluate.predict import predict
from lowland.evaluate.weights import as_posterior
from lowland.posteriors import Gaussian, Mixture
from lowland.progress import Progress, reporting
from lowland.records import Table

SCALES = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0)


def tune_scale(
    surface: LossSurface,
    post: Any,
    loader: Iterable[Any],
    *,
    scales: Sequence[float] = SCALES,
    samples: int = 10,
    seed: int = 0,
    progress: Progress = False,
    **options: Any,
) -> tuple[Gaussian | Mixture, Table]:
    """The posterior with the covariance scale whose model average has the lowest NLL on `loader`.

    It warns where the posterior is so narrow that every scale predicts alike.

    Use validation data, never test data. Every scale has the same noise, so that the results differ
    by the scale alone. `options` go to `predict`.

    Args:
        surface: model, task and the examples for BatchNorm statistics.
        post: a `Gaussian`, a `Mixture` of them, or `SWAG` itself.
        loader: validation examples.
        scales: the scales to compare; 0 is the mean alone, as in SWA.
        samples: draws for each scale.
        seed: seed of the draws.
        progress: True for a bar, or a callable of (done, total): draws at all scales.

    Returns:
        The posterior, and a table of scale and nll, infinite where a draw's loss was not finite.

    Raises:
        ConfigError: no scales, or a posterior without a scale. DataError: examples without targets.
            NonFiniteError: no scale has a finite NLL.

    >>> import torch
    >>> from torch import nn
    >>> from lowland.core import Regression
    >>> surface = LossSurface(
    ...     nn.Linear(1, 1, bias=False),
    ...     Regression(noise_variance=0.01),
    ...     [(torch.ones(2, 1), torch.tensor([[-1.0], [1.0]]))],
    ... )
    >>> post, table = tune_scale(surface, Gaussian(torch.zeros(1), torch.ones(1)), surface.data)
    >>> post.scale > 0  # the targets vary far more than the noise of one model
    True
    """
    scales = checks.numbers("scales", scales, least=0)
    if not scales:
        raise ConfigError("scales: expected at least one number to try.")
    samples = checks.whole("samples", samples, least=1)
    posterior = as_posterior(post)
    if not isinstance(posterior, Gaussian | Mixture):
        raise ConfigError(
            f"expected a posterior with a scale, such as SWAG's, got {type(post).__name__}."
        )
    options |= {"samples": samples, "seed": seed}
    nlls: list[float] = []
    with reporting(progress, "scales") as report:

        def report_draw(done: int, total: int | None) -> None:
            report(len(nlls) * samples + done, len(scales) * samples)

        for scale in scales:
            scaled = posterior.with_scale(scale)
            nlls.append(_nll(surface, scaled, loader, progress=report_draw, **options))
    finite = [nll for nll in nlls if math.isfinite(nll)]
    if not finite:
        raise NonFiniteError(
            "no scale gives a finite NLL on the validation examples; look at the mean's loss, and "
            "leave out iterates of a run that diverged."
        )
    if max(scales) > 0:
        warn_if_still(
            _relative_spread(posterior.with_scale(max(scales))),
            so=f"so that all scales predict alike (NLL {min(finite):.6g} to {max(finite):.6g})",
        )
    rows = [{"scale": s, "nll": nll} for s, nll in zip(scales, nlls, strict=True)]
    best = scales[nlls.index(min(nlls))]
    return posterior.with_scale(best), Table.from_rows(rows)


def _nll(surface: LossSurface, post: Any, loader: Iterable[Any], **options: Any) -> float:
    """The NLL of the model average; infinite where the scale is too large for the network."""
    try:
        pred = predict(surface, post, loader, keep="nll", **options)
    except NonFiniteError:
        return math.inf
    if pred.nll_by_samples is None:
        raise DataError("a scale is chosen by its NLL: give examples with targets.")
    return pred.metrics()["nll"]


def _relative_spread(post: Gaussian | Mixture) -> float:
    """That of the widest component: no scale changes the distance between components."""
    if isinstance(post, Gaussian):
        return post.relative_spread
    return max(_relative_spread(c) for c in post.components)  # type: ignore[arg-type]
