"""Artifacts of the choice of an average: which one of a network's iterates predicts best."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.averaging import TunedAverage, tune_average
from lowland.core import Point
from lowland.files import write_json
from lowland.progress import Report
from lowland.records import Selection
from lowland.runs.choice_cost import FREE_MULTIPLICATIONS, evaluations, tails_within
from lowland.runs.training import TrainedNetwork
from lowland.schema import read_json

if TYPE_CHECKING:
    from lowland.runs.run import Run

SELECTION, ITERATES = "selection.json", "iterates.json"
# candidates: SGD's last weights, and iterates of its schedule or of the tuned trajectory
SGD, SCHEDULE, CONSTANT = "SGD", "SGD's schedule", "constant learning rate"
# of the cost of training, for the choice of a decay, and of a tail
_DECAYS_SHARE, _TAILS_SHARE = 0.01, 0.05
_TAILS = 6  # lengths at most


@dataclass(frozen=True, eq=False)
class ChosenAverage:
    """The average with the lowest NLL on validation examples.

    Attributes:
        selection: all candidates. branch: whose iterates are averaged. iterate_weights: the shares
            of its iterates, from the first on; None: the candidate is no average of stored ones.
    """

    selection: Selection
    branch: str | None = None
    iterate_weights: Sequence[float] | None = None

    def weights_of(self, n: int) -> list[float]:
        """The shares of n iterates, by their distance from the last.

        >>> import torch
        >>> one = torch.zeros(1)
        >>> selection = Selection(["SWA"], one, one, one, one, "SWA", "SWA")
        >>> chosen = ChosenAverage(selection, CONSTANT, [0.0, 0.5, 0.5])
        >>> chosen.weights_of(4), chosen.weights_of(2)
        ([0.0, 0.0, 0.5, 0.5], [0.5, 0.5])
        """
        assert self.iterate_weights is not None
        return [*[0.0] * n, *self.iterate_weights][-n:]


class AverageChoice(Artifact):
    """The choice among averages of a network's iterates, on validation examples.

    The default stays unless another candidate is better by more than one paired standard error.
    """

    kind = "average-choice"
    of: str

    def __init__(self, run: Run, network: int, budget: float = 1.0, **own: Any) -> None:
        self.run = run
        self.trajectory = run.averaged(network, budget)
        self.segments = run.averaged_segments(network, budget)
        self.annealed = run.annealed(network) if run.shares_prefix else None
        trained = [self.trajectory, *self.segments, *([self.annealed] if self.annealed else [])]
        self.file = average_name(self.of, network, budget)
        super().__init__(
            f"tuning/{self.file}",
            [*run.evaluated("validation"), *trained],
            run.settings(of=self.of, **own),
            title=f"tune: {self.of.upper()} {network + 1}",
        )

    @abstractmethod
    def tune(self, inputs: Inputs, progress: Report) -> TunedAverage:
        """The comparison of its candidates."""

    def iterates(self, inputs: Inputs) -> Sequence[Point]:
        """The stored iterates of the trajectory, of all its segments."""
        stores = [inputs[segment.name].iterates for segment in self.segments]
        several: Sequence[Point] = stores[0] if len(stores) == 1 else list(chain(*stores))
        return several

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> ChosenAverage:
        tuned = self.tune(inputs, progress)
        weights = tuned.iterate_weights
        shares = None if weights is None else weights.tolist()
        return ChosenAverage(tuned.selection, tuned.branch, shares)

    def save(self, result: ChosenAverage, folder: Path) -> None:
        result.selection.save(folder / SELECTION)
        body = {"branch": result.branch, "weights": result.iterate_weights}
        write_json(folder / ITERATES, body)

    def load(self, folder: Path) -> ChosenAverage:
        body = read_json(folder / ITERATES, dict[str, Any])
        return ChosenAverage(Selection.load(folder / SELECTION), body["branch"], body["weights"])

    def view(self) -> Mapping[str, str]:
        return {SELECTION: f"records/{self.file}.json"}


class TailChoice(AverageChoice):
    """SWA: tails of the tuned trajectory and of SGD's own schedule, or SGD's last weights, the
    default. There are fewer lengths of tails where six would cost more than 5% of training,
    and more than some seconds."""

    of = "swa"

    def __init__(self, run: Run, network: int, budget: float = 1.0) -> None:
        limit = evaluations(run.setup, _TAILS_SHARE, multiplications=FREE_MULTIPLICATIONS)
        self.tails = tails_within(limit, branches=2, most=_TAILS)
        super().__init__(run, network, budget, tails=self.tails)

    def tune(self, inputs: Inputs, progress: Report) -> TunedAverage:
        assert self.annealed is not None
        annealed: TrainedNetwork = inputs[self.annealed.name]
        return tune_average(
            self.run.setup.surface,
            {SCHEDULE: annealed.iterates, CONSTANT: self.iterates(inputs)},
            self.run.setup.validation,
            default=SGD,
            candidates={SGD: annealed.point},
            tails=self.tails,
            decays=(),
            learned=False,
            progress=progress,
        )


class DecayChoice(AverageChoice):
    """EMA: that of all steps, and those of the stored iterates at each of `average.ema_decays`.

    The default is SGD's last weights where trainings share a prefix, and else the EMA of all steps.
    """

    of = "ema"

    def __init__(self, run: Run, network: int) -> None:
        average = run.config.average
        self.all_steps = f"EMA of all steps, decay {average.ema_decay:g}"
        self.decays = decays_of(run)
        super().__init__(run, network, decays=self.decays, name=self.all_steps)

    def tune(self, inputs: Inputs, progress: Report) -> TunedAverage:
        candidates = {SGD: inputs[self.annealed.name].point} if self.annealed else {}
        candidates[self.all_steps] = inputs[self.trajectory.name].ema.point
        return tune_average(
            self.run.setup.surface,
            {CONSTANT: self.iterates(inputs)} if self.decays else {},
            self.run.setup.validation,
            default=next(iter(candidates)),
            candidates=candidates,
            tails=0,
            decays=self.decays,
            learned=False,
            progress=progress,
        )


def decays_of(run: Run) -> list[float]:
    """The decays that compete: none where their evaluation costs more than 1% of training."""
    decays = run.config.average.ema_decays
    candidates = len(decays) + 1  # and the last iterate
    is_cheap = evaluations(run.setup, _DECAYS_SHARE) >= candidates
    return decays if is_cheap and run.budget.stored() else []


def average_name(of: str, network: int, budget: float) -> str:
    """The file of an average: `average-0`, `average@1.25-0`, `ema-0`."""
    beyond = "" if budget == 1 else f"@{budget:g}"
    return f"{'average' if of == 'swa' else of}{beyond}-{network}"
