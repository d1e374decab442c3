"""SWAG: a Gaussian from the first two moments of SGD's iterates (Maddox et al. 2019)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import Gaussian, Posterior
from lowland.runs.methods.base import Method, Part, require_iterates
from lowland.trajectory.swag import SWAG as Moments

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SWAG(Method):
    """Low rank plus diagonal."""

    name = "swag"
    title = "SWAG"
    tunes_scale = True
    extends = True

    def check(self, run: Run) -> None:
        stored = sum(segment.stored for segment in run.averaged_segments(0, self.budget))
        require_iterates(run, self.label(run), stored, 2, run.collection())

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(segment) for segment in run.averaged_segments(0, self.budget)]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return gaussian(run, inputs, 0, run.config.average.rank, self.budget)


class DiagonalSWAG(SWAG):
    """The diagonal alone."""

    name = "swag-diagonal"
    title = "SWAG-diagonal"

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return gaussian(run, inputs, 0, 0, self.budget)


def gaussian(run: Run, inputs: Inputs, network: int, rank: int, budget: float = 1.0) -> Gaussian:
    """SWAG's Gaussian of one trajectory, with what is frozen in its network."""
    trained = [inputs[segment.name] for segment in run.averaged_segments(network, budget)]
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
