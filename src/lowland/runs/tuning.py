"""Artifacts of what is chosen on validation examples: a method's values, and a temperature."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import Classification
from lowland.files import write_json
from lowland.progress import Report
from lowland.runs.methods.base import Choice, Method
from lowland.schema import read_json
from lowland.tensor_files import read_tensors, write_tensors
from lowland.uncertainty import fit_temperature

if TYPE_CHECKING:
    from lowland.runs.run import Run

FILE, TRIALS, NLL = "tuned.json", "trials.json", "validation-nll.safetensors"


class TunedValues(dict[str, float]):
    """What a method chose, by name.

    Attributes:
        nll: (items,), its negative log-likelihoods on the validation examples.
    """

    def __init__(self, values: Mapping[str, float], nll: Tensor) -> None:
        super().__init__(values)
        self.nll = nll


class Tuning(Artifact):
    """What a method chooses on validation examples."""

    kind = "tuning"
    version = 2

    def __init__(self, run: Run, method: Method) -> None:
        self.run = run
        self.method = method
        config = run.config
        scales, compared = method.comparison(run)
        super().__init__(
            f"tuning/{method.name}",
            [*run.evaluated("validation"), *method.needs(run)],
            run.settings(
                method=method.name,
                scales=scales,
                compared=compared,
                samples=config.samples,
                seed=config.seed,
            ),
            title=f"tune: {method.label(run)}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Choice:
        run, setup = self.run, self.run.setup
        choice = self.method.tune(run, inputs, progress)
        if choice.nll is not None and not isinstance(setup.task, Classification):
            return choice  # nothing is fitted to predictions
        pred = self.method.predict(run, inputs, choice.values, setup.validation, progress)
        if isinstance(setup.task, Classification):
            with warnings.catch_warnings():
                # where no example is wrong it stays 1, which the table shows
                warnings.simplefilter("ignore")
                choice.values["temperature"] = fit_temperature(pred, task=setup.task)
            pred = self.method.calibrated(pred, choice.values)
        assert pred.target_log_prob is not None  # validation examples have targets
        return replace(choice, nll=-pred.target_log_prob)

    def save(self, result: Choice, folder: Path) -> None:
        write_json(folder / FILE, result.values)
        if result.trials is not None:
            result.trials.save(folder / TRIALS)
        assert result.nll is not None
        write_tensors(folder / NLL, {"nll": result.nll}, {})

    def load(self, folder: Path) -> TunedValues:
        values = read_json(folder / FILE, dict[str, float])
        return TunedValues(values, read_tensors(folder / NLL)[0]["nll"])

    def view(self) -> Mapping[str, str]:
        return {
            FILE: f"records/tuned-{self.method.name}.json",
            TRIALS: f"records/trials-{self.method.name}.json",
        }
