"""The results of a finished run, for commands that read them and build nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowland.artifacts import Artifact, Graph, Inputs
from lowland.errors import StoreError
from lowland.posteriors import Posterior
from lowland.records import Predictive
from lowland.runs.methods.base import Method, Tuned
from lowland.runs.run import Run


class Results:
    """What a run holds for its configuration.

    Raises:
        StoreError: an artifact is missing, damaged, or of other settings or examples.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run = run
        self.graph = Graph(folder)

    def load(self, artifact: Artifact) -> Any:
        """The result of an artifact."""
        if not self.graph.is_done(artifact):
            (status,) = [s for s in self.graph.status([artifact]) if s.name == artifact.name]
            why = f" ({status.reason})" if status.reason else ""
            raise StoreError(
                f"{self.graph.folder}: {artifact.name} is {status.state}{why}; run the "
                "`lowland run` command that made the folder again."
            )
        return self.graph.load(artifact)

    def posterior(self, method: Method) -> tuple[Posterior, Tuned]:
        """A method's posterior at the scale that was chosen, and what was chosen."""
        tuned = self.load(self.run.tuning(method))
        inputs = Inputs(method.needs(self.run), self.load, self.load)
        return method.scaled(self.run, inputs, tuned), tuned

    def prediction(self, method: Method) -> Predictive:
        """A method's model average on the test examples."""
        pred: Predictive = self.load(self.run.prediction(method))
        return pred
