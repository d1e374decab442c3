"""The learning rate of averaging, chosen by short trials from where averaging starts."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Checkpoint, Inputs
from lowland.averaging import tune_average
from lowland.errors import NonFiniteError
from lowland.progress import Report
from lowland.records import Selection, TrainingLog
from lowland.runs.choice_cost import evaluations, samples_within
from lowland.runs.records import RecordArtifact
from lowland.runs.segments import Segment
from lowland.runs.training import ITERATES
from lowland.train.batches import FirstBatches
from lowland.trajectory import Every

if TYPE_CHECKING:
    from lowland.runs.run import Run

FACTORS = (1.0, 0.3, 0.1, 0.03)  # of SGD's own learning rate
_SHARE = 0.0125  # of SGD's budget, for each trial
_ITERATES = 12  # of a trial
_SWAG_SHARE = 0.02  # of the cost of training, for SWAG's predictions on validation examples
_SAMPLES = 10  # of SWAG at most


class Trial(Segment):
    """A short training at a constant learning rate, from where averaging starts.

    It takes 1.25% of SGD's budget at most, but one step at least: whole epochs, or the first
    batches of one.

    Args:
        lr: the learning rate.
    """

    kind = "trial"
    publishes_state = False
    lr: float

    def __init__(self, run: Run, lr: float) -> None:
        budget = run.budget
        # rounded first: products of floats lie a bit off whole numbers
        steps = max(1, math.floor(round(_SHARE * budget.total, 6)))
        self.steps = min(steps, budget.epoch)  # of each of its epochs
        epochs = max(1, math.floor(round(_SHARE * budget.epochs, 6)))  # 15% are the most in all
        super().__init__(
            run,
            f"trial-{lr:g}",
            run.prefix(0),
            epochs=epochs,
            iterates=Every(max(1, epochs * self.steps // _ITERATES)),
            lr=lr,
            label=f"trial at learning rate {lr:g}",
            steps=self.steps,
        )

    def batches(self) -> Any:
        batches, budget = super().batches(), self.run.budget
        if self.steps == budget.epoch:
            return batches
        return FirstBatches(batches, self.steps * self.run.config.train.accumulate)

    def passes(self, inputs: Inputs) -> float:
        return super().passes(inputs) * self.steps / self.run.budget.epoch

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> TrainingLog:
        try:
            return super().build(inputs, checkpoint, progress)
        except NonFiniteError:  # a learning rate that is too high: no candidate
            shutil.rmtree(checkpoint.folder / ITERATES, ignore_errors=True)
            return TrainingLog({})


class LearningRate(RecordArtifact):
    """The learning rate whose trial has the lowest NLL on validation examples.

    A trial counts by the best of three: its last iterate, the average of its iterates, and SWAG at
    its best scale. SWAG takes as many samples as cost 2% of training at most, and does not count
    where these are too few, as for a large network.
    """

    kind = "learning-rate"
    record = Selection

    def __init__(self, run: Run) -> None:
        self.run = run
        config = run.config
        self.trials = [Trial(run, factor * config.train.lr) for factor in FACTORS]
        super().__init__(
            "tuning/learning-rate",
            [*run.evaluated("validation"), *self.trials],
            run.settings(
                rank=config.average.rank,
                scales=config.average.scales,
                samples=self._samples(),
                seed=config.seed,
            ),
            file="learning-rate.json",
            title="tune: learning rate of averaging",
        )

    def _samples(self) -> int:
        gaussians = len(FACTORS) * len(self.run.config.average.scales)
        return samples_within(evaluations(self.run.setup, _SWAG_SHARE), gaussians, most=_SAMPLES)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Selection:
        setup, config, samples = self.run.setup, self.run.config, self._samples()
        trained = {f"{trial.lr:g}": inputs[trial.name] for trial in self.trials}
        iterates = {lr: each.iterates for lr, each in trained.items() if not each.diverged}
        if not iterates:
            raise NonFiniteError(
                f"average.lr: auto: training diverges at {', '.join(trained)}; lower train.lr, or "
                "name a smaller average.lr."
            )
        return tune_average(
            setup.surface,
            iterates,
            setup.validation,
            tails=1,
            decays=(),
            learned=False,
            swag_rank=config.average.rank if samples else 0,
            scales=config.average.scales,
            samples=max(samples, 1),
            seed=config.seed,
            progress=progress,
        ).selection

    def lr(self, inputs: Inputs) -> float:
        """The learning rate that was chosen, where this artifact is among the inputs."""
        return self.best_trial(inputs[self.name]).lr

    def best_trial(self, selection: Selection) -> Trial:
        """The trial with the lowest NLL."""
        best = selection.names[int(selection.nll.argmin())].partition(":")[0]
        (trial,) = [trial for trial in self.trials if f"{trial.lr:g}" == best]
        return trial
