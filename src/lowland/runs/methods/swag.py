"""SWAG: a Gaussian from the first two moments of SGD's iterates (Maddox et al. 2019)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import Gaussian, Mixture, Posterior
from lowland.runs.average_choice import CONSTANT, SCHEDULE
from lowland.runs.methods.averaging import AveragingMethod
from lowland.runs.methods.base import require_iterates
from lowland.runs.training import Training
from lowland.trajectory.swag import SWAG as Moments

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SWAG(AveragingMethod):
    """Low rank plus diagonal.

    The scale is chosen on validation examples. The rank is not: it would triple their predictions,
    and ranks 5 and 10 gained less than 0.001 nats over 20 where they gained clearly.
    """

    name = "swag"
    title = "SWAG"
    tunes_scale = True
    extends = True

    def check(self, run: Run) -> None:
        stored = sum(segment.stored for segment in run.averaged_segments(0, self.budget))
        require_iterates(run, self.label(run), stored, 2, run.collection())

    def rank(self, run: Run) -> int:
        """Deviations of the covariance."""
        return run.config.average.rank

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return self.constant_lr(run, inputs)

    def constant_lr(self, run: Run, inputs: Inputs) -> Gaussian | Mixture:
        """Of the trajectories at a constant learning rate."""
        networks = range(self.networks(run))
        return self.mixture(run, inputs, [run.averaged_segments(i, self.budget) for i in networks])

    def mixture(
        self, run: Run, inputs: Inputs, trajectories: Sequence[Sequence[Training]]
    ) -> Gaussian | Mixture:
        """The Gaussian of the iterates of each trajectory."""
        gaussians = [gaussian(run, inputs, each, self.rank(run)) for each in trajectories]
        return gaussians[0] if len(gaussians) == 1 else Mixture(gaussians)

    def candidates(self, run: Run, inputs: Inputs) -> Mapping[str, Posterior]:
        networks = range(self.networks(run))
        branches = {
            SCHEDULE: self.mixture(run, inputs, [[run.annealed(i)] for i in networks]),
            CONSTANT: self.constant_lr(run, inputs),
        }
        return {
            f"{branch}, scale {scale:g}": post.with_scale(scale)
            for branch, post in branches.items()
            for scale in self.comparison(run)[0]
        }

    def scales(self, run: Run) -> list[float]:
        scales, _ = self.comparison(run)
        return [0.0, *scales, *scales]  # of both branches


class DiagonalSWAG(SWAG):
    """The diagonal alone."""

    name = "swag-diagonal"
    title = "SWAG-diagonal"

    def rank(self, run: Run) -> int:
        return 0


def gaussian(run: Run, inputs: Inputs, segments: Sequence[Training], rank: int) -> Gaussian:
    """SWAG's Gaussian of one trajectory, with what is frozen in its network."""
    trained = [inputs[segment.name] for segment in segments]
    stores = [each.iterates for each in trained]
    swag = Moments(run.setup.layout, rank=min(rank, sum(map(len, stores))))
    with warnings.catch_warnings():
        # a short demo holds fewer iterates than the rank; the table says how many
        warnings.simplefilter("ignore")
        for store in stores:
            store.into(swag)
        post: Gaussian = swag.posterior()
    # what is frozen in this network may be other than in the surface's
    buffers = trained[-1].point.buffers or {}
    frozen = {n: b for n, b in buffers.items() if n not in run.setup.surface.buffers}
    post.buffers = (post.buffers or {}) | frozen
    return post
