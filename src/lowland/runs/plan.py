"""The execution plan of a run: chosen once, so that a stopped run goes on with the same bits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import torch

from lowland.artifacts import Artifact, Checkpoint, Graph, Inputs
from lowland.core.options import Plan
from lowland.core.threads import MAX_THREADS, using_threads
from lowland.errors import ConfigError, LowlandError, StoreError
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.likelihood import LogLikelihood
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.planner import model_point
from lowland.files import write_json
from lowland.progress import Report
from lowland.schema import read_json

if TYPE_CHECKING:
    from lowland.runs.setup import Setup

FILE = "plan.json"
FORMAT = "lowland-plan-1"
_MANY = 1000  # weight vectors: a run evaluates as many, so that timing a plan pays
_EXAMPLES = 4096  # of a log density that is timed: about as many as it takes at once
_SLOW = 0.1  # seconds of a batch's forward pass, above which nothing is faster than one by one


class PlanFields(TypedDict):
    """A plan of one kind of work in plan.json."""

    strategy: Literal["points", "batches", "vmap"]
    chunk: int
    threads: int


class Body(TypedDict):
    """What plan.json holds."""

    format: str
    threads: int
    evaluation: PlanFields
    density: PlanFields


@dataclass(frozen=True)
class RunPlan:
    """How a run computes. No other artifact depends on it: only the last bits of results do.

    Attributes:
        threads: of torch, for training. evaluation: of predictions, scans and losses along curves.
            density: of log densities, which samplers evaluate at a few points thousands of times.
    """

    threads: int
    evaluation: Plan
    density: Plan

    @classmethod
    def read(cls, file: Path) -> RunPlan:
        """Reads plan.json.

        Raises:
            ConfigError: there is no such file. StoreError: a damaged file, or of another version.
        """
        if not file.is_file():
            raise ConfigError(
                f"{file}: no such plan; name the {FILE} of a folder that `lowland run` made."
            )
        body = read_json(file, Body, version=FORMAT, advice="name another plan")
        counts = [body["threads"], *(body[name]["threads"] for name in ("evaluation", "density"))]
        for count in counts:
            if not 1 <= count <= MAX_THREADS:
                raise StoreError(f"{file}: expected 1 to {MAX_THREADS} threads, got {count}.")
        return cls(body["threads"], Plan(**body["evaluation"]), Plan(**body["density"]))

    def write(self, file: Path) -> None:
        """Writes plan.json."""
        body: Body = {
            "format": FORMAT,
            "threads": self.threads,
            "evaluation": _fields(self.evaluation),
            "density": _fields(self.density),
        }
        write_json(file, body)

    @classmethod
    def timed(cls, setup: Setup) -> RunPlan:
        """What is fastest for a run, by timing each strategy that applies on a batch."""
        threads = setup.threads()
        surface = setup.surface
        with using_threads(threads):
            average = ModelAverage(setup.task)
            evaluation = Evaluation(surface, [(None, average)], surface.options, total=_MANY)
            fastest = evaluation.plan(model_point(surface))
            if fastest.seconds is not None and fastest.seconds > _SLOW:
                return cls(threads, fastest, Plan("points", 1, threads))
            some = surface.replayable(None, count=_EXAMPLES)
            density = LogLikelihood(surface, loader=some)
            return cls(threads, fastest, density.explicit_plan(setup.config.subspace.chains))

    def require_fit(self, setup: Setup) -> None:
        """Raises `ConfigError` where the model of a run cannot be evaluated by this plan."""
        if setup.config.threads not in ("auto", self.threads):
            raise ConfigError(
                f"plan: it is for {self.threads} threads, and threads is {setup.config.threads}; "
                "leave one of the two out."
            )
        surface = setup.surface
        point = model_point(surface)
        several = [point] * 2
        try:
            options = surface.options.with_plan(self.evaluation)
            loader = [next(iter(setup.clean))]
            Evaluation(surface, [(loader, ModelAverage(setup.task))], options).run(several)
            density = LogLikelihood(
                surface, loader=loader, options=surface.options.with_plan(self.density)
            )
            if self.density.strategy == "vmap" and not density.is_mappable():
                raise ConfigError("log densities of several points at once have other values")
            density(torch.stack([each.weights for each in several]))
        except LowlandError as error:
            raise ConfigError(
                f"plan: it does not fit {setup.config.model.name} ({str(error).rstrip('.')}); "
                "leave plan= out."
            ) from error


class ExecutionPlan(Artifact):
    """The plan that is recorded for a run: timed, or that of the file that `plan` names."""

    kind = "plan"
    quick = True

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        config = setup.config
        super().__init__("plan", settings={"threads": config.threads, "device": config.device})

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> RunPlan:
        return self.from_file() or RunPlan.timed(self.setup)

    def from_file(self) -> RunPlan | None:
        """The plan of the file that the configuration names, which fits the run's model."""
        name = self.setup.config.plan
        if name is None:
            return None
        plan = RunPlan.read(Path(name).expanduser())
        plan.require_fit(self.setup)
        return plan

    def save(self, result: RunPlan, folder: Path) -> None:
        result.write(folder / FILE)

    def load(self, folder: Path) -> RunPlan:
        return RunPlan.read(folder / FILE)

    def view(self) -> dict[str, str]:
        return {FILE: FILE}


def plan_of(graph: Graph, artifact: ExecutionPlan) -> RunPlan:
    """The plan of a run folder, recorded there once; the run's setup follows it.

    Raises:
        ConfigError: the configuration names another plan than the recorded one, or one that does
            not fit.
    """
    other = artifact.from_file()
    graph.build([artifact])
    plan: RunPlan = graph.load(artifact)
    if other is not None and other != plan:
        raise ConfigError(
            f"plan: {graph.folder} was computed by another plan, {graph.folder / FILE}; leave "
            "plan= out, or name another folder with out=FOLDER."
        )
    artifact.setup.follow(plan)
    return plan


def _fields(plan: Plan) -> PlanFields:
    fields: Any = asdict(plan)
    del fields["seconds"]  # no part of a result
    return fields  # type: ignore[no-any-return]
