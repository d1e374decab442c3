"""The execution plan of a run: chosen once, so that a stopped run goes on with the same bits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.files import write_text
from lowland.progress import Report
from lowland.runs.setup import Setup
from lowland.schema import parse_json, require

FILE = "plan.json"


@dataclass(frozen=True)
class PlanSettings:
    """What the configuration says of the plan."""

    threads: int | str
    device: str | None


@dataclass(frozen=True)
class RunPlan:
    """How a run computes. No other artifact depends on it: only the last bits of results do.

    Attributes:
        threads: of torch.
    """

    threads: int


class Planned(Artifact):
    """The plan that is recorded for a run."""

    kind = "plan"
    quick = True

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        super().__init__("plan", settings=PlanSettings(setup.config.threads, setup.config.device))

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RunPlan:
        return RunPlan(self.setup.threads())

    def save(self, result: RunPlan, folder: Path) -> None:
        write_text(folder / FILE, json.dumps({"threads": result.threads}) + "\n")

    def load(self, folder: Path) -> RunPlan:
        body = parse_json((folder / FILE).read_bytes(), source=folder / FILE)
        require(body, RunPlan, source=folder / FILE)
        return RunPlan(**body)
