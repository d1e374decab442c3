"""The contract of a method of `lowland run`: what it needs, what it predicts, what it costs."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from torch import Tensor

from lowland.artifacts import Artifact, Inputs
from lowland.errors import ConfigError
from lowland.posteriors import Posterior
from lowland.progress import Progress
from lowland.records import Predictive, Table
from lowland.runs.choice_cost import FREE_MULTIPLICATIONS, evaluations, scales_within
from lowland.trajectory.collect import When, require_pick
from lowland.uncertainty import tune_scale
from lowland.warn import warn

if TYPE_CHECKING:
    from lowland.runs.run import Run

_SCALES_SHARE = 0.1  # of the cost of training, for the choice of a scale
Tuned = Mapping[str, float]  # what was chosen on validation examples, by name


@dataclass(frozen=True)
class Choice:
    """What a method chose on validation examples.

    Attributes:
        values: by name; they are columns of the table. trials: all candidates with their metrics.
        nll: (items,), of the validation examples with these values.
    """

    values: dict[str, float] = field(default_factory=dict)
    trials: Table | None = None
    nll: Tensor | None = None


class Part(NamedTuple):
    """An artifact that a method alone would have to train, and how much of it.

    `tuning`: it comes on top of SGD's budget, to find out how to average.
    """

    artifact: Any  # whose `passes(inputs)` are epochs of training
    share: float = 1.0
    tuning: bool = False


class Method(ABC):
    """A row of the comparison.

    A method is one file: it names the artifacts that it needs and makes a posterior of them, or
    predicts by itself.

    Attributes:
        name: in a configuration's `methods`, and of its artifacts. title: in tables. by_request:
            whether it runs only where a configuration names it. extends: whether it goes on beyond
            SGD's epochs. budget: the multiple of them at which it ends.
    """

    name: str
    title: str
    extends: ClassVar[bool] = False
    budget: float = 1.0
    by_request: ClassVar[bool] = False
    tunes_scale: ClassVar[bool] = False
    tuned: ClassVar[tuple[str, ...]] = ()

    def at_budgets(self, budgets: Sequence[float]) -> list[Self]:
        """The method at each multiple of SGD's epochs, or itself alone where it does not extend."""
        methods = [copy(self) for _ in budgets] if self.extends else []
        for method, budget in zip(methods, budgets, strict=False):
            if budget != 1:
                method.name, method.title = f"{self.name}@{budget:g}", f"{self.title} {budget:g}"
                method.budget = budget
        return methods or [self]

    def label(self, run: Run) -> str:
        """The name of its row."""
        return self.title

    def check(self, run: Run) -> None:  # noqa: B027 - most methods run with any budget
        """Raises `ConfigError` where the configuration gives it too little, before any is spent."""

    def parts(self, run: Run) -> Sequence[Part]:
        """What it trains, alone: epochs and seconds of the table are those of these."""
        return ()

    def needs(self, run: Run) -> Sequence[Artifact]:
        """The artifacts that its posterior is made of."""
        return [part.artifact for part in self.parts(run)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        """Its posterior over weights, at the paper's scale."""
        raise NotImplementedError(f"{type(self).__name__} has no posterior")

    def tune(self, run: Run, inputs: Inputs, progress: Progress = False) -> Choice:
        """Chooses values on validation examples; the temperature is fitted behind it."""
        if not self.tunes_scale:
            return Choice()
        post: Any = self.posterior(run, inputs)
        scales, samples = self.comparison(run)
        _, trials = tune_scale(
            run.setup.surface,
            post,
            run.setup.validation,
            scales=scales,
            samples=samples,
            seed=run.config.seed,
            progress=progress,
        )
        return Choice({"scale": float(trials.scale[trials.nll.argmin()])}, trials)

    def comparison(self, run: Run) -> tuple[list[float], int]:
        """The scales of its covariance that are compared, and draws for each of them."""
        if not self.tunes_scale:
            return [], run.config.samples
        return self.scales_within_cost(run, branches=1, most=run.config.samples)

    def scales_within_cost(self, run: Run, *, branches: int, most: int) -> tuple[list[float], int]:
        """The scales to compare on each branch and the draws for each: fewer than the configuration
        has where these would cost more than 10% of training, and more than some seconds."""
        limit = evaluations(run.setup, _SCALES_SHARE, multiplications=FREE_MULTIPLICATIONS)
        return scales_within(limit, run.config.average.scales, branches, most=most)

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        """Its prediction for a loader, with what was chosen on validation examples."""
        post, config = self.scaled(run, inputs, tuned), run.config
        pred = run.setup.predict(
            post, loader, draws=config.samples, seed=config.seed, progress=progress
        )
        return self.calibrated(pred, tuned)

    def calibrated(self, pred: Predictive, tuned: Tuned) -> Predictive:
        """Its prediction, of that of its posterior."""
        return pred

    def scaled(self, run: Run, inputs: Inputs, tuned: Tuned) -> Posterior:
        """Its posterior at the scale that was chosen."""
        post: Any = self.posterior(run, inputs)
        scaled: Posterior = post.with_scale(tuned["scale"]) if self.tunes_scale else post
        return scaled

    def pictures(self, run: Run) -> Sequence[Artifact]:
        """Pictures of its own."""
        return ()

    def notes(self, run: Run, inputs: Inputs) -> Sequence[str]:
        """What a reader of the table should know, a line each."""
        return ()


def require_iterates(run: Run, title: str, stored: int, least: int, settings: str) -> None:
    """Raises `ConfigError` where a trajectory stores fewer iterates than a method needs."""
    if stored < least:
        budget = run.budget
        raise ConfigError(
            f"{title} needs {least} iterates or more, and gets {stored} of {budget.epochs} epochs "
            f"with {settings}: the first is collected after step {budget.iterates.first_step}, and "
            f"SGD takes {budget.total} steps; collect earlier or more often, or train longer."
        )


def warn_of_shared_start(run: Run, label: str) -> None:
    """Warns where all networks of an ensemble start from one pretrained network."""
    if run.config.start_from is not None:
        warn(
            f"{label}: all networks start from {run.config.start_from}, so that they share its "
            "basin and differ by the order of examples alone; an ensemble gains more from networks "
            "with first weights of their own."
        )


def require_member(title: str, when: When | None, steps: int, settings: str) -> None:
    """Raises `ConfigError`, with the step of the first, where a rule selects none of the first
    `steps` iterates."""
    assert when is not None
    try:
        require_pick(when, steps)
    except ConfigError as error:
        raise ConfigError(f"{title} ({settings}): {error}") from None
