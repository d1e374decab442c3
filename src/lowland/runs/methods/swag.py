"""SWAG: a Gaussian from the first two moments of SGD's iterates (Maddox et al. 2019)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lowland.artifacts import Inputs
from lowland.posteriors import Gaussian, Posterior
from lowland.runs.methods.base import Method, Part, require_iterates

if TYPE_CHECKING:
    from lowland.runs.run import Run


class SWAG(Method):
    """Low rank plus diagonal."""

    name = "swag"
    title = "SWAG"
    tunes_scale = True

    def check(self, run: Run) -> None:
        require_iterates(run, self.label(run), run.budget.stored(), 2, run.collection())

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.averaged(0))]

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return gaussian(run, inputs, 0, run.config.average.rank)


class DiagonalSWAG(SWAG):
    """The diagonal alone."""

    name = "swag-diagonal"
    title = "SWAG-diagonal"

    def posterior(self, run: Run, inputs: Inputs) -> Posterior:
        return gaussian(run, inputs, 0, 0)


def gaussian(run: Run, inputs: Inputs, network: int, rank: int) -> Gaussian:
    """SWAG's Gaussian of one trajectory, with what is frozen in its network."""
    trained = inputs[run.averaged(network).name]
    store = trained.iterates
    with warnings.catch_warnings():
        # a short demo holds fewer iterates than the rank; the table says how many
        warnings.simplefilter("ignore")
        post: Gaussian = store.swag(rank=min(rank, len(store)) if rank else 0).posterior()
    # what is frozen in this network may be other than in the surface's
    buffers = trained.point.buffers or {}
    frozen = {n: b for n, b in buffers.items() if n not in run.setup.surface.buffers}
    post.buffers = (post.buffers or {}) | frozen
    return post
