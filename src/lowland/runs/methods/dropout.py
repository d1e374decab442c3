"""Monte Carlo dropout (Gal & Ghahramani 2016)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Inputs
from lowland.errors import ConfigError
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods.base import Method, Part, Tuned
from lowland.uncertainty import mc_dropout
from lowland.uncertainty.dropout import has_dropout

if TYPE_CHECKING:
    from lowland.runs.run import Run


class MCDropout(Method):
    """Passes of the annealed network with its dropout on."""

    name = "dropout"
    title = "MC dropout"
    by_request = True

    def check(self, run: Run) -> None:
        surface = run.setup.surface
        if not has_dropout(surface, surface.point(run.setup.model(0))):
            raise ConfigError("methods: the network has no dropout; leave dropout out.")

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(0))]

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        return mc_dropout(
            run.setup.surface,
            inputs[run.annealed(0).name].point,
            loader,
            samples=run.config.samples,
            seed=run.config.seed,
            progress=progress,
        )
