"""Artifacts of pictures: drawn from records alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lowland import plots
from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.progress import Report
from lowland.records import TrainingLog
from lowland.runs.chains import PosteriorPlane, SampledChain
from lowland.runs.records import RecordArtifact
from lowland.scoring import reliability
from lowland.trajectory import SWA

if TYPE_CHECKING:
    from lowland.runs.run import Run

# more lines would hide one another
COMPARED = ("sgd", "swa", "swag", "ensemble", "multiswag", "espro")


@dataclass(frozen=True)
class PictureSettings:
    """What a picture shows, by the labels of its lines."""

    labels: tuple[str, ...] = ()


class Picture(Artifact):
    """A PNG file; nothing where there is nothing to draw."""

    kind = "picture"
    quick = True
    version = 1

    def __init__(self, name: str, inputs: Sequence[Artifact], labels: Sequence[str] = ()) -> None:
        super().__init__(f"pictures/{name}", inputs, PictureSettings(tuple(labels)))
        self.file = f"{name}.png"

    @abstractmethod
    def draw(self, inputs: Inputs) -> Any:
        """The axes; None where there is nothing to draw."""

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Any:
        return self.draw(inputs)

    def save(self, result: Any, folder: Path) -> None:
        if result is not None:
            plots.save(result, folder / self.file)

    def load(self, folder: Path) -> Path | None:
        return folder / self.file if (folder / self.file).is_file() else None

    def view(self) -> Mapping[str, str]:
        return {self.file: f"pictures/{self.file}"}


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
            [
                *run.named_sources("model", "task", "data/validation"),
                *run.statistics(),
                self.trajectory,
                *others,
            ],
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


class TrainingPicture(Picture):
    """Losses over epochs."""

    def __init__(self, run: Run) -> None:
        self.curves = TrainingCurves(run)
        super().__init__("training", [self.curves])

    def draw(self, inputs: Inputs) -> Any:
        return plots.training(inputs[self.curves.name])


class SamplesPicture(Picture):
    """A metric by the number of samples.

    Args:
        predictions: artifacts of predictions, by the labels of their lines. metric: "nll", or
            "error" of a classifier.
    """

    def __init__(self, predictions: Mapping[str, Artifact], metric: str = "nll") -> None:
        self.predictions = dict(predictions)
        self.metric = metric
        super().__init__(f"{metric}-by-samples", list(predictions.values()), list(predictions))

    def draw(self, inputs: Inputs) -> Any:
        preds = {label: inputs[each.name] for label, each in self.predictions.items()}
        several = {
            label: pred
            for label, pred in preds.items()
            if getattr(pred, f"{self.metric}_by_samples") is not None and pred.samples > 1
        }
        return plots.samples(several, metric=self.metric) if several else None


class ReliabilityPicture(Picture):
    """Confidence against accuracy in ten bins of equally many examples."""

    def __init__(self, run: Run) -> None:
        self.run = run
        methods = [method for method in run.methods if method.name in COMPARED]
        self.predictions = {method.label(run): run.prediction(method) for method in methods}
        super().__init__("reliability", list(self.predictions.values()), list(self.predictions))

    def draw(self, inputs: Inputs) -> Any:
        preds = {label: inputs[each.name] for label, each in self.predictions.items()}
        records = {
            # the table's error, over fifteen bins of equal width, is the one to quote
            f"{label} (ECE {pred.metric_values['ece']:.3f})": reliability(
                pred, bins=10, equal="count", task=self.run.setup.task
            )
            for label, pred in preds.items()
            if pred.probs is not None and pred.targets is not None
        }
        return plots.reliability(records, style="gap", ece=False) if records else None


class GrowthPicture(Picture):
    """How simplexes grew.

    Args:
        simplexes: artifacts of grown simplexes, by the labels of their lines.
    """

    def __init__(self, name: str, simplexes: Mapping[str, Artifact]) -> None:
        self.simplexes = dict(simplexes)
        super().__init__(name, list(simplexes.values()), list(simplexes))

    def draw(self, inputs: Inputs) -> Any:
        growths = {label: inputs[each.name].growth for label, each in self.simplexes.items()}
        return plots.growth(growths)


class PosteriorPicture(Picture):
    """The log posterior over a plane, with the chains on it."""

    def __init__(self, plane: PosteriorPlane) -> None:
        self.plane, self.chain = plane, plane.chain
        super().__init__("posterior", [self.plane, self.chain])

    def draw(self, inputs: Inputs) -> Any:
        return plots.posterior(inputs[self.plane.name], chain=inputs[self.chain.name])


class TracePicture(Picture):
    """The chains over their draws; nothing of a grid, which has none."""

    def __init__(self, chain: SampledChain) -> None:
        self.chain = chain
        super().__init__("trace", [chain])

    def draw(self, inputs: Inputs) -> Any:
        chain = inputs[self.chain.name]
        return plots.trace(chain) if chain.log_weights is None else None


class RankPicture(Picture):
    """Rank histograms of the chains; nothing of one chain."""

    def __init__(self, chain: SampledChain) -> None:
        self.chain = chain
        super().__init__("rank", [chain])

    def draw(self, inputs: Inputs) -> Any:
        chain = inputs[self.chain.name]
        if chain.log_weights is not None or len(chain.coords) < 2:
            return None
        return plots.rank(chain, bins=min(20, chain.coords.shape[1]))


def chain_pictures(chain: SampledChain, plane: PosteriorPlane | None) -> list[Artifact]:
    """All pictures of chains."""
    pictures: list[Artifact] = [] if plane is None else [PosteriorPicture(plane)]
    return [*pictures, TracePicture(chain), RankPicture(chain)]
