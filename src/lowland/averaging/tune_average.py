"""Which iterates of SGD to average, and with what weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

from torch import Tensor

from lowland.averaging.iterate_candidates import (
    LAST,
    AverageOptions,
    Candidate,
    iterate_candidates,
)
from lowland.averaging.members import read_members
from lowland.averaging.selection import SelectedAverage, mean_and_error
from lowland.averaging.validation import Validation
from lowland.core import LossSurface, Point
from lowland.core.options import EvalKeywords
from lowland.errors import ConfigError
from lowland.evaluate.weights import as_posterior
from lowland.keywords import hinted
from lowland.posteriors import Gaussian, PointMass, Posterior
from lowland.posteriors.base import draw_count
from lowland.progress import Progress, reporting
from lowland.uncertainty.tune_scale import SCALES


@dataclass(frozen=True, eq=False)
class TunedAverage(SelectedAverage):
    """The average that `tune_average` selects: a posterior, as `predict` and the like take it.

    Attributes:
        best: the name of the selected candidate.
        iterate_weights: (n,), the share of each iterate of the branch in the average, float64.
            None: a candidate of the caller's.
        branch: the name of the branch; None: there was one alone.
        scale: of SWAG's covariance; 0 for a single network.
        nlls: (items,), the validation NLLs of the selected candidate.
        gain, gain_se: by how much the validation NLL is below that of the last iterate, in nats per
            item, and the paired standard error.
        selection: all candidates, compared with the default.
        evaluations, gradients: passes over the validation examples, without and with a gradient.
    """

    best: str
    iterate_weights: Tensor | None
    branch: str | None
    scale: float
    nlls: Tensor
    gain: float
    gain_se: float
    _posterior: Posterior

    def posterior(self) -> Posterior:
        """The selected average: a `PointMass`, or SWAG's `Gaussian`."""
        return self._posterior

    @property
    def point(self) -> Point:
        """The average of the iterates with its buffers; of SWAG, the mean."""
        if isinstance(self._posterior, Gaussian):
            return self._posterior.with_scale(0.0).point(0)
        return self._posterior.point(0)

    @property
    def interval(self) -> tuple[float, float]:
        """A 95% interval of the gain, from a normal distribution."""
        return self.gain - 1.96 * self.gain_se, self.gain + 1.96 * self.gain_se

    @property
    def message(self) -> str:
        """What is selected, and by how much it is better than the last iterate."""
        if self.gain == self.gain_se == 0:  # it is the last iterate
            return super().message
        low, high = self.interval
        return (
            f"{super().message} The NLL of {self.best} is {self.gain:.4f} below that of the "
            f"last iterate (95% interval {low:.4f} to {high:.4f})."
        )


@hinted
def tune_average(
    surface: LossSurface,
    iterates: Any,
    validation: Iterable[Any],
    *,
    default: str | None = None,
    candidates: Mapping[str, Any] | None = None,
    tails: int = 6,
    decays: Sequence[float] = (0.8, 0.9, 0.95),
    learned: bool = True,
    steps: int = 10,
    swag_rank: int = 0,
    scales: Sequence[float] = SCALES,
    samples: int = 10,
    groups: Sequence[Any] | Tensor | None = None,
    seed: int = 0,
    progress: Progress = False,
    **options: Unpack[EvalKeywords],
) -> TunedAverage:
    r"""The average of SGD iterates that predicts best, if it is clearly better than the default.

    Candidates, compared by their NLL on the same validation examples:

    - "last": the last iterate;
    - "tail L": the mean of the last L of n iterates, for lengths that grow geometrically up to n;
    - "EMA b": \(c_i \propto \beta^{n - i}\) over the iterates, for decays that forget the first
      ones, \(1 / (1 - \beta) < n\);
    - "learned": weights on the simplex for the blocks of iterates between the tails' starts, by
      validation NLL; its NLL here is that on the half of the examples that the weights were not
      learned from;
    - "SWAG L": SWAG of each tail at its best scale, by the NLL of its model average; each half of
      the examples is evaluated at the scale that is best on the other;
    - `candidates` of the caller's.

    The default stays unless another candidate is better by more than one paired standard error, see
    `select`, so that not to average can be the result. Each iterate is read once, from the last to
    the first, with running sums for all tails; SWAG reads its tails again, and so does the
    selected average. Memory: one vector in float64 for each decay, and one for each tail length
    where weights are learned.

    Args:
        surface: model, task and the examples for BatchNorm statistics.
        iterates: in the order of training: a `Trajectory`, checkpoint files, a pattern or a folder
            of them, or an iterable of networks; or a dict of these by the name of their branch,
            such as a learning rate. Candidates are then named "branch: last".
        validation: labelled validation examples.
        default: the name of the candidate that stays; None: the last iterate, of the first branch.
        candidates: further posteriors or weights by name, such as `{"SGD": model}`.
        tails: how many lengths. decays: \(\beta\), per iterate.
        learned: whether to learn weights, which costs most: about 2.5 passes with gradients over
            the validation examples for each of the `steps` of L-BFGS.
        swag_rank: of SWAG; 0: no SWAG. scales: of SWAG. samples: draws of a model average.
        groups: (N,), a label for each validation example, where these are not independent.
        seed: of draws and halves.
        progress: True for a bar, or a callable of (done, total): passes over the examples, of which
            the total is not known before.
        options: how networks are evaluated, see `EvalOptions`.

    Raises:
        ConfigError: no iterate, a default that is no candidate. DataError: fewer than two
            validation examples, or examples without targets. LayoutError: weights of another model.
            NonFiniteError: NaN or infinite weights, or no candidate with a finite NLL.

    >>> import torch
    >>> from lowland.core import Regression
    >>> data = [(torch.ones(4, 1), torch.tensor([[0.9], [1.1], [1.0], [1.2]]))]
    >>> net = torch.nn.Linear(1, 1, bias=False)
    >>> surface = LossSurface(net, Regression(noise_variance=0.01), data)
    >>> tuned = tune_average(surface, torch.tensor([[9.0], [1.6], [0.5]]), surface.data)
    >>> tuned.best, tuned.point.weights
    ('tail 2', tensor([1.0500]))
    """
    settings = AverageOptions(tails, decays, learned, steps, swag_rank, scales, samples, seed)
    branches = iterates if isinstance(iterates, Mapping) else {None: iterates}
    if not branches and not candidates:
        raise ConfigError("iterates: expected at least one branch, got none.")
    every: dict[str, Candidate] = {}
    branch_of: dict[str, Any] = {}
    with reporting(progress, "average") as report:
        examples = Validation(
            surface, validation, groups=groups, seed=seed, report=report, **options
        )
        for branch, several in branches.items():
            members = read_members(surface, several)
            for short_name, candidate in iterate_candidates(members, examples, settings).items():
                name = _full_name(branch, short_name)
                every[name], branch_of[name] = candidate, branch
        for name, network in (candidates or {}).items():
            if name in every:
                raise ConfigError(
                    f"candidates: {name!r} is one of the averages; choose another name."
                )
            every[name] = _own_candidate(surface, network, examples, settings)
        if default is None:
            default = next(iter(every))
        if default not in every:
            raise ConfigError(f"default: expected one of {', '.join(every)}, got {default!r}.")
        selection = examples.select({name: c.nlls for name, c in every.items()}, default)
        best = every[selection.best]
        iterate_weights = None if best.iterate_weights is None else best.iterate_weights()
    branch = branch_of.get(default, next(iter(branches), None))
    last = every.get(_full_name(branch, LAST), every[default])
    gain, gain_se = mean_and_error(last.nlls - best.nlls, examples.groups)
    branch = branch_of.get(selection.best)
    return TunedAverage(
        selection,
        examples.evaluations,
        examples.gradients,
        selection.best,
        iterate_weights,
        None if branch is None else str(branch),
        best.scale,
        best.nlls,
        gain,
        gain_se,
        best.posterior(),
    )


def _full_name(branch: Any, name: str) -> str:
    return name if branch is None else f"{branch}: {name}"


def _own_candidate(
    surface: LossSurface, network: Any, examples: Validation, settings: AverageOptions
) -> Candidate:
    """A posterior, or weights, of the caller's."""
    posterior = as_posterior(network) or PointMass(surface.point(network))
    draws = {"samples": draw_count(posterior, settings.samples), "seed": settings.seed}
    return Candidate(
        examples.nlls(posterior, **draws),
        lambda: posterior,
        scale=posterior.scale if isinstance(posterior, Gaussian) else 0.0,
    )
