"""Monte Carlo dropout (Gal & Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Inputs
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods.annealed import AnnealedMethod
from lowland.runs.methods.base import Tuned
from lowland.uncertainty import mc_dropout
from lowland.uncertainty.dropout import has_dropout

if TYPE_CHECKING:
    from lowland.runs.run import Run


class MCDropout(AnnealedMethod):
    """Passes of the annealed network with its dropout on."""

    name = "dropout"
    title = "MC dropout"

    def misfit(self, run: Run) -> str | None:
        surface = run.setup.surface
        fits = has_dropout(surface, surface.point(run.setup.model(0)))
        return None if fits else "the network has no dropout"

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        return mc_dropout(
            run.setup.surface,
            self.point(run, inputs),
            loader,
            samples=run.config.samples,
            seed=run.config.seed,
            progress=progress,
        )
