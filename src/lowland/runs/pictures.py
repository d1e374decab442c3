"""Artifacts of pictures: drawn from records alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.progress import Report
from lowland.records import Chain, Predictive, SurfaceResult, TrainingLog
from lowland.runs.chains import PosteriorPlane, SampledChain
from lowland.runs.records import RecordArtifact
from lowland.scoring import reliability
from lowland.trajectory import SWA

if TYPE_CHECKING:
    from lowland.runs.run import Run

_RUNNING_STATISTICS = (
    "SGD: with running BatchNorm statistics\n"
    "averages, and all rows of the table: with re-estimated ones"
)
# more lines would hide one another
COMPARED = ("sgd", "swa", "swag", "ensemble", "multiswag", "espro")


class Picture(Artifact):
    """A PNG file; nothing where there is nothing to draw.

    Args:
        parts: artifacts whose results are drawn.
        draw: makes the axes of the results, in this order; None where there is nothing to draw.
        labels: of the lines of the picture, which change it.
    """

    kind = "picture"
    quick = True

    def __init__(
        self,
        name: str,
        parts: Sequence[Artifact],
        draw: Callable[..., Any],
        *,
        labels: Iterable[str] = (),
    ) -> None:
        super().__init__(f"pictures/{name}", parts, {"labels": list(labels)})
        self.parts = parts
        self.draw = draw
        self.file = f"{name}.png"

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Any:
        return self.draw(*(inputs[part.name] for part in self.parts))

    def save(self, result: Any, folder: Path) -> None:
        if result is not None:
            plots.save(result, folder / self.file)

    def load(self, folder: Path) -> Path | None:
        return folder / self.file if (folder / self.file).is_file() else None

    def view(self) -> Mapping[str, str]:
        return {self.file: f"pictures/{self.file}"}


def picture_of_lines(
    name: str, lines: Mapping[str, Artifact], draw: Callable[[dict[str, Any]], Any]
) -> Picture:
    """A picture of a line for each artifact; `draw` takes their results by label."""

    def draw_lines(*results: Any) -> Any:
        return draw(dict(zip(lines, results, strict=True)))

    return Picture(name, list(lines.values()), draw_lines, labels=lines)


class TrainingCurves(RecordArtifact):
    """The log of the SWA trajectory, with SWA as it grew, the EMA, and annealed SGD beside it."""

    kind = "curves"
    quick = True
    record = TrainingLog

    def __init__(self, run: Run) -> None:
        self.run = run
        self.trajectory = run.averaged(0)
        self.annealed = run.annealed(0) if run.trains_annealed() else None
        others = [self.annealed] if self.annealed else []
        super().__init__(
            "curves",
            [*run.evaluated("validation"), self.trajectory, *others],
            file="curves.json",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        setup, trained = self.run.setup, inputs[self.trajectory.name]
        log, store = trained.log, trained.iterates
        swa, values = SWA(setup.layout), []
        for i in range(len(store)):
            swa.update(store[i])
            values.append(float(setup.surface(swa.point, loader=setup.validation)))
        epochs = torch.tensor(store.steps, dtype=torch.float64) / self.run.budget.epoch
        averages = {"SWA": {"epoch": epochs, "nll": torch.tensor(values, dtype=torch.float64)}}
        if "ema_nll" in log.columns:
            averages["EMA"] = {"epoch": log.columns["epoch"], "nll": log.columns["ema_nll"]}
        if self.annealed:
            annealed = inputs[self.annealed.name].log.columns
            averages["SGD, annealed"] = {"epoch": annealed["epoch"], "nll": annealed["nll"]}
        curves: TrainingLog = replace(log, averages=averages)
        return curves


def training_picture(run: Run) -> Picture:
    """Losses over epochs. With BatchNorm its title names how the picture differs from the table:
    statistics of each epoch's iterate would take a pass over the examples."""
    title = _RUNNING_STATISTICS if run.setup.surface.has_batchnorm else ""
    return Picture(
        "training",
        [TrainingCurves(run)],
        lambda log: plots.training(log, title=title),
        labels=[title] if title else [],
    )


def samples_picture(predictions: Mapping[str, Artifact], metric: str = "nll") -> Picture:
    """A metric by the number of samples.

    Args:
        predictions: by the labels of their lines. metric: "nll", or "error" of a classifier.
    """

    def draw(preds: dict[str, Predictive]) -> Any:
        several = {
            label: pred
            for label, pred in preds.items()
            if getattr(pred, f"{metric}_by_samples") is not None and pred.samples > 1
        }
        return plots.samples(several, metric=metric) if several else None

    return picture_of_lines(f"{metric}-by-samples", predictions, draw)


def reliability_picture(run: Run) -> Picture:
    """Confidence against accuracy in ten bins of equally many examples."""

    def draw(preds: dict[str, Predictive]) -> Any:
        records, errors = {}, {}
        for label, pred in preds.items():
            if pred.probs is not None and pred.targets is not None:
                records[label] = reliability(pred, bins=10, equal="count", task=run.setup.task)
                # the table's error, over fifteen bins of equal width, is the one to quote
                errors[label] = pred.metric_values["ece"]
        return plots.reliability(records, style="gap", ece=errors) if records else None

    methods = [method for method in run.methods if method.name in COMPARED]
    predictions = {method.label(run): run.prediction(method) for method in methods}
    return picture_of_lines("reliability", predictions, draw)


def growth_picture(name: str, simplexes: Mapping[str, Artifact]) -> Picture:
    """How simplexes grew, by the labels of their lines."""

    def draw(results: dict[str, Any]) -> Any:
        return plots.growth({label: result.growth for label, result in results.items()})

    return picture_of_lines(name, simplexes, draw)


def chain_pictures(chain: SampledChain, plane: PosteriorPlane | None) -> list[Artifact]:
    """The log posterior with the chains on it, their traces, and their ranks."""

    def draw_posterior(surface: SurfaceResult, chain: Chain) -> Any:
        return plots.posterior(surface, chain=chain)

    pictures: list[Artifact] = (
        [] if plane is None else [Picture("posterior", [plane, chain], draw_posterior)]
    )
    return [*pictures, Picture("trace", [chain], _trace), Picture("rank", [chain], _rank)]


def _trace(chain: Chain) -> Any:
    """The chains over their draws; a grid has none."""
    return plots.trace(chain) if chain.log_weights is None else None


def _rank(chain: Chain) -> Any:
    """Rank histograms; one chain has none."""
    if chain.log_weights is not None or len(chain.coords) < 2:
        return None
    return plots.rank(chain, bins=min(20, chain.coords.shape[1]))
