"""The last-layer Laplace approximation (MacKay 1992, Daxberger et al. 2021)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lowland.artifacts import Artifact, Inputs
from lowland.errors import ConfigError
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.methods.base import Method, Part, Tuned
from lowland.uncertainty import LastLayerLaplace

if TYPE_CHECKING:
    from lowland.runs.run import Run


class Laplace(Method):
    """laplace-torch around the annealed network, its prior chosen on validation examples."""

    name = "laplace"
    title = "Last-layer Laplace"
    by_request = True

    def check(self, run: Run) -> None:
        if find_spec("laplace") is None:
            raise ConfigError(
                'methods: laplace needs laplace-torch: pip install "lowland[baselines]".'
            )

    def parts(self, run: Run) -> Sequence[Part]:
        return [Part(run.annealed(0))]

    def needs(self, run: Run) -> Sequence[Artifact]:
        return [run.annealed(0), *run.named_sources("data/validation")]

    def predict(
        self, run: Run, inputs: Inputs, tuned: Tuned, loader: Iterable[Any], progress: Progress
    ) -> Predictive:
        point = inputs[run.annealed(0).name].point
        surface, validation = run.setup.surface, run.setup.validation
        return LastLayerLaplace(surface, point, validation=validation).predict(
            loader, progress=progress
        )
