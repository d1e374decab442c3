"""A configuration as a graph: each thing that its methods need is one artifact."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from lowland.artifacts import Artifact, Source
from lowland.artifacts.order import complete
from lowland.core.seeds import seed_for
from lowland.errors import ConfigError
from lowland.runs.average_choice import AverageChoice, DecayChoice, TailChoice, decays_of
from lowland.runs.averages import Average
from lowland.runs.best import BestMethod
from lowland.runs.budget import Budget
from lowland.runs.chains import PosteriorPlane, SampledChain, SpannedSubspace
from lowland.runs.cycles import CSGLDCycles, SnapshotCycles
from lowland.runs.growth import GrownSimplex
from lowland.runs.iterates import IterateMetrics
from lowland.runs.learning_rate import LearningRate
from lowland.runs.methods import Method, Part, method_named
from lowland.runs.pictures import reliability_picture, samples_picture, training_picture
from lowland.runs.predictions import Comparison, Prediction, Row
from lowland.runs.sections import Config
from lowland.runs.segments import (
    AnnealedSGD,
    AveragedTrajectory,
    FGECycles,
    Prefix,
    Segment,
    TunedTrajectory,
)
from lowland.runs.setup import Setup
from lowland.runs.sources import sources_of, training_sources_of
from lowland.runs.training import Training, optimizer_of, schedule_of
from lowland.runs.tuning import Tuning

_P = ParamSpec("_P")
_A = TypeVar("_A")


def once(make: Callable[Concatenate[Run, _P], _A]) -> Callable[Concatenate[Run, _P], _A]:
    """A method of a run that is called once for its arguments: it makes an artifact."""

    @functools.wraps(make)
    def cached(run: Run, /, *args: _P.args, **keywords: _P.kwargs) -> _A:
        key = (make.__name__, args, *keywords.items())
        if key not in run.cache:
            run.cache[key] = make(run, *args, **keywords)
        artifact: _A = run.cache[key]
        return artifact

    return cached


class Run:
    """The artifacts of a configuration, each made once.

    Attributes:
        methods: those that the configuration names, in its order, at each of its budgets.
        search: the run whose choices this one takes. With `average: {retrain: true}` its networks
            are trained without the validation examples, and those of this one with them. Else it is
            this one.
    """

    def __init__(self, config: Config, setup: Setup) -> None:
        self.config = config
        self.search = self
        if config.average.retrain:
            average = config.average.model_copy(update={"retrain": False})
            self.search = Run(config.model_copy(update={"average": average}), setup)
            setup = setup.with_all_examples
        self.setup = setup
        budgets = config.average.budgets()
        self.methods: list[Method] = [
            each for name in config.methods for each in method_named(name).at_budgets(budgets)
        ]
        self.cache: dict[Any, Any] = {}  # of methods that are called `once`

    def check(self) -> None:
        """Refuses a budget in which a method would have too few iterates, before it is spent."""
        if self.retrains:
            self.search.check()
        optimizer_of(self.config.train)
        schedule_of(self.config.train, self.budget.total)
        for method in self.methods:
            method.check(self)

    def targets(self) -> list[Artifact]:
        """The table, pictures, averages, and what they stand on that is not intermediate."""
        others: list[Artifact] = []
        predictions = {method.label(self): self.prediction(method) for method in self.methods}
        if self.trains_trajectory():
            others.append(training_picture(self.search))
        others += [
            each
            for each in (samples_picture(predictions), reliability_picture(self))
            if each.inputs
        ]
        for method in self.methods:
            others += method.pictures(self)
        for method in self.methods:
            for part in self.parts(method):
                if isinstance(part.artifact, AveragedTrajectory):
                    others += self.averages(part.artifact.network, method.budget)
        return complete([self.comparison(), self.best(), *others])

    # -- sources --------------------------------------------------------------------------------

    @cached_property
    def sources(self) -> dict[str, Source]:
        """Fingerprints of model, task and data, by name."""
        if self.retrains:
            return self.search.sources | training_sources_of(self.setup)
        return sources_of(self.setup)

    def named_sources(self, *names: str) -> list[Artifact]:
        """Sources by name."""
        return [self.sources[name] for name in names]

    def statistics(self) -> list[Artifact]:
        """The examples of BatchNorm statistics, and of losses on the training examples."""
        names = [n for n in ("data/clean", "data/batchnorm") if n in self.sources]
        return self.named_sources(*(names if "data/clean" in names else ["data/train", *names]))

    def evaluated(self, *splits: str) -> list[Artifact]:
        """The sources of what evaluates networks: model, task, these splits, and statistics."""
        names = [f"data/{split}" for split in splits]
        return [*self.named_sources("model", "task", *names), *self.statistics()]

    def evaluation(self) -> dict[str, Any]:
        """The settings of all evaluations."""
        keys = ("bn_rows", "reestimate", "eval_batch_size", "autocast", "channels_last")
        return {key: getattr(self.config, key) for key in keys}

    def settings(self, **values: Any) -> dict[str, Any]:
        """The settings of an artifact that evaluates networks: those of all, and its own."""
        return {"evaluation": self.evaluation(), **values}

    @cached_property
    def budget(self) -> Budget:
        """Steps of its training runs."""
        return Budget.of(self)

    def collection(self) -> str:
        """When iterates are stored, in words."""
        budget = self.budget
        return f"start {budget.start:g}, every {budget.iterates.interval / budget.epoch:g} epochs"

    # -- artifacts -------------------------------------------------------------------------------

    @property
    def shares_prefix(self) -> bool:
        """Whether trainings share their first epochs. At a learning rate of its own, an SWA
        trajectory leaves SGD's schedule long before it starts to average."""
        return self.config.average.lr == "auto"

    @property
    def retrains(self) -> bool:
        """Whether its networks are trained again, as another run chose."""
        return self.search is not self

    def artifact_name(self, name: str) -> str:
        """The name of an artifact that is there for the search and once more for retraining."""
        room, slash, last = name.rpartition("/")
        return f"{room}{slash}retrained-{last}" if self.retrains else name

    @property
    def relative_epoch(self) -> float:
        """Steps of an epoch, as a multiple of those in an epoch of the search."""
        return self.budget.epoch / self.search.budget.epoch if self.retrains else 1.0

    @once
    def learning_rate(self) -> LearningRate:
        """The choice of the learning rate of averaging."""
        if self.retrains:
            return self.search.learning_rate()
        return LearningRate(self)

    @once
    def prefix(self, network: int) -> Prefix:
        """SGD up to the epoch from which trainings branch."""
        return Prefix(self, network)

    @once
    def annealed(self, network: int) -> AnnealedSGD:
        """A network trained by annealed SGD."""
        branches = self.shares_prefix and self.budget.has_prefix
        prefix = self.prefix(network) if branches else None
        return AnnealedSGD(self, network, prefix)

    @once
    def averaged(self, network: int, budget: float = 1.0) -> Training:
        """A trajectory whose iterates are averaged, up to a multiple of SGD's epochs."""
        if budget > 1:
            return self._extension(network, budget)
        kind = TunedTrajectory if self.shares_prefix else AveragedTrajectory
        return kind(self, network)

    def _extension(self, network: int, budget: float) -> Segment:
        """What continues the trajectory of the next smaller budget."""
        smaller = max([1.0, *(each for each in self.config.average.budgets() if each < budget)])
        start = self.averaged(network, smaller)
        epochs = self.budget.epochs_of(budget) - start.last_epoch
        if epochs < 1:
            raise ConfigError(
                f"average.budget: {budget:g} of {self.budget.epochs} epochs is no whole epoch "
                f"longer than {smaller:g}; train longer, or name a larger number."
            )
        iterates = self.budget.iterates
        return Segment(self, f"swa@{budget:g}", start, epochs=epochs, iterates=iterates)

    def averaged_segments(self, network: int, budget: float = 1.0) -> list[Training]:
        """The segments of a trajectory that store its iterates, in order."""
        segments = self.averaged(network, budget).segments()
        return [each for each in segments if each.iterates is not None]

    @once
    def cycles(self, network: int) -> FGECycles:
        """FGE's cycles from a trajectory."""
        return FGECycles(self, network)

    @once
    def snapshot(self, network: int) -> SnapshotCycles:
        """The cycles of a snapshot ensemble."""
        return SnapshotCycles(self, network)

    @once
    def csgld(self, network: int) -> CSGLDCycles:
        """The cycles of cSGLD."""
        return CSGLDCycles(self, network)

    @once
    def average(self, network: int, of: Literal["swa", "ema"], budget: float = 1.0) -> Average:
        """The SWA or EMA weights of a trajectory."""
        return Average(self, network, of, budget, self.average_choice(network, of, budget))

    @once
    def average_choice(
        self, network: int, of: Literal["swa", "ema"], budget: float = 1.0
    ) -> AverageChoice | None:
        """The choice of an average; None: there is one candidate alone."""
        if self.retrains:
            return self.search.average_choice(network, of, budget)
        if of == "swa" and self.shares_prefix:
            return TailChoice(self, network, budget)
        if of == "ema" and (self.shares_prefix or decays_of(self)):
            return DecayChoice(self, network)
        return None

    @once
    def iterate_metrics(self, budget: float = 1.0) -> IterateMetrics:
        """The averaged iterates beside their average and ensemble."""
        return IterateMetrics(self, budget)

    def averages(self, network: int, budget: float = 1.0) -> list[Artifact]:
        """All averages of a trajectory, ready to be served; without iterates the EMA alone."""
        averages: list[Artifact] = [self.average(network, "ema")]
        if self.budget.stored(budget):
            averages.append(self.average(network, "swa", budget))
        return averages

    @once
    def simplex(self, network: int) -> GrownSimplex:
        """The simplex around an annealed network."""
        seed = seed_for("simplex of a network", self.config.seed, network)
        return GrownSimplex(
            self,
            self.artifact_name(f"simplex-{network}"),
            [self.annealed(network)],
            self.config.simplex,
            seed=seed,
        )

    @once
    def subspace(self) -> SpannedSubspace:
        """The subspace about the first trajectory."""
        config = self.config
        return SpannedSubspace(self, config.subspace, self.averaged(0), seed=config.seed)

    @once
    def chain(self) -> SampledChain:
        """The chains in it."""
        return SampledChain(self, self.subspace())

    @once
    def posterior_plane(self) -> PosteriorPlane:
        """The log posterior over its first two coordinates."""
        return PosteriorPlane(self, self.chain(), file="posterior-plane.npz")

    def parts(self, method: Method) -> list[Part]:
        """What a method trains alone, with all segments that its trainings continue, each once."""
        parts: dict[str, Part] = {}
        if self.retrains:
            search = self.search.parts(method)
            parts = {part.artifact.name: part._replace(tuning=True) for part in search}
        for part in method.parts(self):
            before = part.artifact.segments()[:-1] if isinstance(part.artifact, Training) else []
            for each in (*map(Part, before), part):
                parts.setdefault(each.artifact.name, each)
        return list(parts.values())

    @once
    def tuning(self, method: Method) -> Tuning:
        """What a method chooses on validation examples."""
        if self.retrains:
            return self.search.tuning(method)
        return Tuning(self, method)

    @once
    def prediction(self, method: Method) -> Prediction:
        """What a method predicts for the test examples."""
        return Prediction(self, method)

    @once
    def row(self, method: Method) -> Row:
        """A method's row of the table."""
        return Row(self, method)

    @once
    def comparison(self) -> Comparison:
        """The table."""
        return Comparison(self)

    @once
    def best(self) -> BestMethod:
        """The method to use."""
        return BestMethod(self)

    def trains_annealed(self) -> bool:
        """Whether a method needs the first annealed network."""
        return self._needs("sgd-0")

    def trains_trajectory(self) -> bool:
        """Whether a method needs the first SWA trajectory."""
        return self._needs("swa-0")

    def _needs(self, network: str) -> bool:
        parts = [part for method in self.methods for part in self.parts(method)]
        return any(part.artifact.name == f"train/{network}" for part in parts)
