"""Artifacts of what is chosen on validation examples: a method's values, and a temperature."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.core import Classification
from lowland.files import write_text
from lowland.progress import Report
from lowland.runs.methods.base import Choice, Method
from lowland.schema import parse_json, require
from lowland.uncertainty import fit_temperature

if TYPE_CHECKING:
    from lowland.runs.run import Run

FILE, TRIALS = "tuned.json", "trials.json"


class Tuning(Artifact):
    """What a method chooses on validation examples."""

    kind = "tuning"

    def __init__(self, run: Run, method: Method) -> None:
        self.run = run
        self.method = method
        config = run.config
        super().__init__(
            f"tuning/{method.name}",
            [*run.evaluated("validation"), *method.needs(run)],
            run.settings(
                method=method.name,
                scales=config.average.scales if method.tunes_scale else [],
                samples=config.samples,
                seed=config.seed,
            ),
            title=f"tune: {method.label(run)}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Choice:
        run, setup = self.run, self.run.setup
        choice = self.method.tune(run, inputs)
        if isinstance(setup.task, Classification):
            pred = self.method.predict(run, inputs, choice.values, setup.validation, progress)
            with warnings.catch_warnings():
                # where no example is wrong it stays 1, which the table shows
                warnings.simplefilter("ignore")
                choice.values["temperature"] = fit_temperature(pred, task=setup.task)
        return choice

    def save(self, result: Choice, folder: Path) -> None:
        write_text(folder / FILE, json.dumps(result.values, indent=1) + "\n")
        if result.trials is not None:
            result.trials.save(folder / TRIALS)

    def load(self, folder: Path) -> dict[str, float]:
        body = parse_json((folder / FILE).read_bytes(), source=folder / FILE)
        require(body, dict[str, float], source=folder / FILE)
        return dict(body)

    def view(self) -> Mapping[str, str]:
        return {
            FILE: f"records/tuned-{self.method.name}.json",
            TRIALS: f"records/trials-{self.method.name}.json",
        }
