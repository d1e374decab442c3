"""What methods share that average SGD iterates: SGD stays where none of them is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from lowland.artifacts import Artifact, Inputs
from lowland.averaging import TunedAverage, tune_average
from lowland.posteriors import Ensemble, PointMass, Posterior
from lowland.posteriors.base import draw_count
from lowland.progress import Progress
from lowland.runs.average_choice import SGD
from lowland.runs.methods.base import Choice, Method, Part, Tuned

if TYPE_CHECKING:
    from lowland.runs.run import Run

_SAMPLES = 10  # of each candidate on validation examples at most
_CANDIDATE = "candidate"  # its number; 0: SGD


def trials_of(run: Run) -> list[Part]:
    """What the choice of a learning rate costs; nothing where it is given."""
    if not run.shares_prefix:
        return []
    return [Part(trial, tuning=True) for trial in run.learning_rate().trials]


class AveragingMethod(Method):
    """A method whose posterior is made of SGD iterates.

    With `average: {lr: auto}` its posteriors are candidates beside SGD, compared on validation
    examples: SGD stays where none is better by more than one paired standard error.
    """

    def networks(self, run: Run) -> int:
        """How many networks are trained."""
        return 1

    def trajectories(self, run: Run) -> Sequence[Part]:
        """What is trained besides SGD and trials."""
        return [Part(run.averaged(i, self.budget)) for i in range(self.networks(run))]

    def parts(self, run: Run) -> Sequence[Part]:
        if not run.shares_prefix:
            return self.trajectories(run)
        annealed = [Part(run.annealed(i)) for i in range(self.networks(run))]
        trajectories = [part._replace(tuning=True) for part in self.trajectories(run)]
        return [*annealed, *trajectories, *self.trials(run)]

    def trials(self, run: Run) -> Sequence[Part]:
        """What the choice of its learning rate costs."""
        return trials_of(run)

    def needs(self, run: Run) -> Sequence[Artifact]:
        needs = self.posterior_needs(run)
        if run.shares_prefix:
            needs = [*needs, *(run.annealed(i) for i in range(self.networks(run)))]
        return needs

    def posterior_needs(self, run: Run) -> Sequence[Artifact]:
        """The artifacts that its posterior is made of."""
        return [
            segment
            for i in range(self.networks(run))
            for segment in run.averaged_segments(i, self.budget)
        ]

    def comparison(self, run: Run) -> tuple[list[float], int]:
        if not run.shares_prefix:
            return super().comparison(run)
        samples = min(_SAMPLES, run.config.samples)
        if not self.tunes_scale:
            return [], samples
        return self.scales_within_cost(run, branches=2, most=samples)

    def candidates(self, run: Run, inputs: Inputs) -> Mapping[str, Posterior]:
        """Its posteriors, of which the best on validation examples is taken."""
        return {self.title: self.posterior(run, inputs)}

    def scales(self, run: Run) -> list[float]:
        """The covariance scales of SGD, 0, and of the candidates, of a method with a scale."""
        raise NotImplementedError(f"{type(self).__name__} has no scale")

    def without_averaging(self, run: Run, inputs: Inputs) -> Posterior:
        """SGD's last weights, of each network."""
        points = [inputs[run.annealed(i).name].point for i in range(self.networks(run))]
        return PointMass(points[0]) if len(points) == 1 else Ensemble(points)

    def tune(self, run: Run, inputs: Inputs, progress: Progress = False) -> Choice:
        if not run.shares_prefix:
            return super().tune(run, inputs, progress)
        tuned = self.compare(run, inputs, progress)
        selection = tuned.selection
        number = selection.names.index(selection.best)
        values = {_CANDIDATE: float(number)}
        if self.tunes_scale and number > 0:
            values["scale"] = self.scales(run)[number]
        # with as many draws as its prediction has, its NLLs are those of the prediction
        post, samples = tuned.posterior(), run.config.samples
        compared = self.comparison(run)[1]
        as_many = draw_count(post, compared) == draw_count(post, samples)
        return Choice(values, selection.table, tuned.nlls if as_many else None)

    def compare(self, run: Run, inputs: Inputs, progress: Progress = False) -> TunedAverage:
        """The comparison of its candidates with SGD."""
        candidates = {SGD: self.without_averaging(run, inputs), **self.candidates(run, inputs)}
        return tune_average(
            run.setup.surface,
            {},
            run.setup.validation,
            default=SGD,
            candidates=candidates,
            samples=self.comparison(run)[1],
            seed=run.config.seed,
            progress=progress,
        )

    def scaled(self, run: Run, inputs: Inputs, tuned: Tuned) -> Posterior:
        if _CANDIDATE not in tuned:
            return super().scaled(run, inputs, tuned)
        number = int(tuned[_CANDIDATE])
        if number == 0:
            return self.without_averaging(run, inputs)
        return list(self.candidates(run, inputs).values())[number - 1]


class AverageMethod(AveragingMethod):
    """A method that predicts by one average, whose weights are an artifact, and so is their choice.

    Attributes:
        of: the kind of average.
    """

    of: Literal["swa", "ema"]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.average(0, self.of, self.budget)]

    def tune(self, run: Run, inputs: Inputs, progress: Progress = False) -> Choice:
        return Method.tune(self, run, inputs, progress)

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return PointMass(inputs[run.average(0, self.of, self.budget).name])

    def notes(self, run: Run, inputs: Inputs) -> Sequence[str]:
        choice = run.average_choice(0, self.of, self.budget)
        if choice is None:
            return ()
        message = inputs.request(choice).selection.message
        return [f"{self.title}, chosen on validation examples: {message}"]
