"""Measures of curvature at the weights of a run: one artifact each."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.core import Point
from lowland.curvature import sharpness, spectrum, widths
from lowland.evaluate.table import evaluate
from lowland.progress import Report
from lowland.records import SharpnessResult, SpectrumResult, Table, WidthsResult
from lowland.runs.keys import Section, key
from lowland.runs.records import RecordArtifact
from lowland.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from lowland.runs.run import Run

Kind = Literal["keskar", "sam", "adaptive", "average"]
EIGENVECTORS = "eigenvectors.safetensors"
_EIGENVECTORS = 5  # with rays: a picture of more lines is hard to read


class SharpnessOptions(Section):
    """At which weights curvature is measured, by what, and on which examples."""

    weights: list[str] = key(
        [],
        "names of weights, files of the run's weights/; by default annealed networks, and the "
        "averages of the first trajectory",
    )
    kinds: list[Kind] = Field(
        default=["keskar", "sam", "adaptive", "average"],
        min_length=1,
        description="measures of sharpness",
    )
    eigenvalues: int = key(10, "largest eigenvalues of the Hessian", ge=0)
    probes: int = key(
        10, "random vectors of its trace and density; without them and eigenvalues none", ge=0
    )
    directions: int = key(10, "random rays", ge=1)
    trajectory: str | None = key(
        None,
        "SGD iterates in trajectory/, along whose SWAG components rays go, too; by default swa-0, "
        "where the run has it",
    )
    rise: float = key(0.1, "rise of the loss that ends a width", unit="nats", gt=0)
    points: int = key(61, "points on the line between the first two weights", ge=3)
    examples: int = key(2000, "training examples of the measures", ge=2)
    seed: int = key(0, "seed of everything random", ge=0)


class WeightsMeasure(RecordArtifact):
    """A measure at a weight vector.

    Args:
        weights: a source, named weights/LABEL. measure: its name. splits: the examples besides the
            training examples. own: the options that change it. needs: further inputs.
    """

    def __init__(
        self,
        run: Run,
        weights: Source,
        options: SharpnessOptions,
        *,
        measure: str,
        own: Sequence[str],
        splits: Sequence[str] = (),
        needs: Sequence[Artifact] = (),
    ) -> None:
        self.run = run
        self.weights = weights
        self.options = options
        self.label = weights.name.partition("/")[2]
        self.measure = measure
        super().__init__(
            f"sharpness/{self.label}/{measure}",
            [*run.evaluated(*splits), weights, *needs],
            run.settings(**options.model_dump(include={*own, "examples"})),
            file=f"{measure}-{self.label}.json",
            title=f"{measure}: {self.label}",
        )

    @abstractmethod
    def row(self, record: Any) -> dict[str, float]:
        """Its columns in the table."""


class Losses(WeightsMeasure):
    """Metrics on the training examples of the measures, and on the test examples."""

    kind = "losses"
    record = Table

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        super().__init__(run, weights, options, measure="losses", own=(), splits=["test"])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        setup, point = self.run.setup, inputs[self.weights.name]
        train = evaluate(setup.surface, [point], count=self.options.examples)
        test = evaluate(setup.surface, [point], setup.test, progress=progress)
        columns = {f"train_{name}": values for name, values in train.columns.items()}
        return Table(columns | {f"test_{name}": values for name, values in test.columns.items()})

    def row(self, record: Table) -> dict[str, float]:
        metrics = ("loss", "error", "rmse")
        names = [f"{split}_{name}" for split in ("train", "test") for name in metrics]
        return {name: float(record.columns[name][0]) for name in names if name in record.columns}


class Sharpness(WeightsMeasure):
    """The rise of the loss near weights, by one measure at its own radii."""

    kind = "sharpness"
    record = SharpnessResult

    def __init__(
        self, run: Run, weights: Source, options: SharpnessOptions, *, measure: Kind
    ) -> None:
        super().__init__(run, weights, options, measure=measure, own=["seed"])

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SharpnessResult:
        return sharpness(
            self.run.setup.surface,
            inputs[self.weights.name],
            kind=self.measure,
            count=self.options.examples,
            seed=self.options.seed,
            checkpoint=checkpoint,
            progress=progress,
        )

    def row(self, record: SharpnessResult) -> dict[str, float]:
        return {self.measure: float(record)}


class Spectrum(WeightsMeasure):
    """Leading eigenvalues, trace and density of the Hessian; eigenvectors for rays."""

    kind = "spectrum"
    version = 2
    record = SpectrumResult

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        own = ["eigenvalues", "probes", "seed"]
        super().__init__(run, weights, options, measure="spectrum", own=own)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> SpectrumResult:
        options, surface = self.options, self.run.setup.surface
        result = spectrum(
            surface,
            inputs[self.weights.name],
            top=options.eigenvalues,
            probes=options.probes,
            seed=options.seed,
            eigenvectors=options.eigenvalues > 0,
            loader=surface.replayable(None, count=options.examples),
            method="double_backward",  # chosen by time, two runs would differ in their last bits
            checkpoint=checkpoint.file("spectrum.safetensors"),
            progress=progress,
        )
        return replace(result, seconds=math.nan, timings={})  # equal settings give equal files

    def save(self, result: SpectrumResult, folder: Path) -> None:  # type: ignore[override]
        if result.eigenvectors is not None:  # too long for JSON
            vectors = result.eigenvectors[:_EIGENVECTORS].contiguous()
            write_tensors(folder / EIGENVECTORS, {"eigenvectors": vectors}, {})
        super().save(replace(result, eigenvectors=None), folder)

    def load(self, folder: Path) -> SpectrumResult:
        result: SpectrumResult = super().load(folder)
        if not (folder / EIGENVECTORS).is_file():
            return result
        tensors, _ = read_tensors(folder / EIGENVECTORS)
        return replace(result, eigenvectors=tensors["eigenvectors"])

    def row(self, record: SpectrumResult) -> dict[str, float]:
        largest = {"eigenvalue": float(record.eigenvalues[0])} if self.options.eigenvalues else {}
        return largest | ({"trace": record.trace} if self.options.probes else {})


class Widths(WeightsMeasure):
    """Losses along rays.

    Attributes:
        batchnorm: the policy of BatchNorm statistics; None: that of the run.
    """

    record = WidthsResult
    batchnorm: str | None = None

    def start(self, inputs: Inputs) -> Point:
        """Where the rays begin."""
        return self.run.setup.surface.point(inputs[self.weights.name])

    @abstractmethod
    def directions(self, inputs: Inputs) -> Any:
        """Of the rays, as for `ll.widths`."""

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> WidthsResult:
        options = self.options
        return widths(
            self.run.setup.surface,
            self.start(inputs),
            directions=self.directions(inputs),
            rise=options.rise,
            loader=self.run.setup.test,
            test_count=options.examples,
            count=options.examples,
            seed=options.seed,
            progress=progress,
            batchnorm=self.batchnorm,
        )


class RandomWidths(Widths):
    """Losses along filter-normalised random rays."""

    kind = "widths"

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions) -> None:
        own = ["directions", "rise", "seed"]
        super().__init__(run, weights, options, measure="widths", own=own, splits=["test"])

    def directions(self, inputs: Inputs) -> int:
        return self.options.directions

    def row(self, record: WidthsResult) -> dict[str, float]:
        return {"width": float(record.width.median()), "gradient_norm": record.gradient_norm}


class EigenvectorWidths(Widths):
    """Losses along the leading eigenvectors of the Hessian, of length 1, with the BatchNorm
    statistics of the weights, which the Hessian holds fixed, too."""

    kind = "eigenvector-widths"
    batchnorm = "frozen"

    def __init__(self, spectrum: Spectrum) -> None:
        self.spectrum = spectrum
        super().__init__(
            spectrum.run,
            spectrum.weights,
            spectrum.options,
            measure="widths-eigenvectors",
            own=["rise"],
            splits=["test"],
            needs=[spectrum],
        )

    def start(self, inputs: Inputs) -> Point:
        point = super().start(inputs)
        statistics = self.run.setup.surface.refresh(point)
        return Point(point.weights, {**(point.buffers or {}), **statistics})

    def directions(self, inputs: Inputs) -> Any:
        return inputs[self.spectrum.name]

    def row(self, record: WidthsResult) -> dict[str, float]:
        return {"width_eigenvector": float(record.width.min())}


class SWAGWidths(Widths):
    """Losses along the principal components of SWAG, as long as standard deviations."""

    kind = "swag-widths"

    def __init__(self, run: Run, weights: Source, options: SharpnessOptions, swag: Source) -> None:
        self.swag = swag
        super().__init__(
            run,
            weights,
            options,
            measure="widths-swag",
            own=["rise"],
            splits=["test"],
            needs=[swag],
        )

    def directions(self, inputs: Inputs) -> Any:
        return inputs[self.swag.name]

    def row(self, record: WidthsResult) -> dict[str, float]:
        return {"width_swag": float(record.width.median())}
