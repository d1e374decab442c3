"""Model averages of a stage on the test rows: made once, kept, and a row of figures each."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from lowland.cli.stage import Stage
from lowland.errors import StoreError
from lowland.evaluate import predict
from lowland.metrics import metric_names
from lowland.posteriors import Posterior
from lowland.progress import Report
from lowland.records import Predictive


def predicted(
    stage: Stage, file: str, post: Posterior, draws: int, seed: int, progress: Report
) -> Predictive:
    """The average of a posterior, from its record where that is there and whole."""
    path = stage.record(f"{file}.npz")
    samples = None if post.support is not None else draws
    with suppress(StoreError):  # not there yet, or damaged
        found = Predictive.load(path)
        if found.samples == (samples or post.support):
            progress(1, 1)
            return found
    setup = stage.setup
    pred = predict(setup.surface, post, setup.test, samples=samples, seed=seed, progress=progress)
    pred.save(path)
    return pred


def row(title: str, pred: Predictive) -> dict[str, Any]:
    """Figures of a table's row."""
    figures = pred.metrics()
    found: dict[str, Any] = {"method": title}
    found |= {name: figures[name] for name in metric_names() if name in figures}
    return found | {"samples": float(pred.samples)}
