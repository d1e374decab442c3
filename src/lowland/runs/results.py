"""The results of a finished run, for commands that read them and build nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowland.artifacts import Artifact, Graph, Inputs, Source
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
        self.graph = _ReadOnlyGraph(folder)

    def load(self, artifact: Artifact) -> Any:
        """The result of an artifact."""
        self.require(artifact)
        return self.graph.load(artifact)

    def require(self, artifact: Artifact) -> None:
        """Raises `StoreError` unless an artifact is done."""
        if not self.graph.is_done(artifact):
            (status,) = [s for s in self.graph.status([artifact]) if s.name == artifact.name]
            why = f" ({status.reason})" if status.reason else ""
            raise _unusable(self.graph.folder, artifact, f"{status.state}{why}")

    def posterior(self, method: Method) -> tuple[Posterior, Tuned]:
        """A method's posterior at the scale that was chosen, and what was chosen."""
        tuned = self.load(self.run.tuning(method))
        return method.scaled(self.run, self.inputs(method), tuned), tuned

    def inputs(self, method: Method) -> Inputs:
        """What a method's posterior is made of."""
        return Inputs(method.needs(self.run), self.load)

    def prediction(self, method: Method) -> Predictive:
        """A method's model average on the test examples."""
        pred: Predictive = self.load(self.run.prediction(method))
        return pred


class _ReadOnlyGraph(Graph):
    """The graph of a folder in which nothing is built or removed."""

    def _forget(self, artifact: Artifact, damage: str) -> None:
        raise _unusable(self.folder, artifact, f"damaged ({damage})")


def _unusable(folder: Path, artifact: Artifact, state: str) -> StoreError:
    return StoreError(
        f"{folder}: {artifact.name} is {state}; run the `lowland run` command that made the "
        "folder again."
    )


class External(Source):
    """An artifact of a finished run as an input in another folder: read, and never built there.

    Args:
        results: of the run. artifact: one of its artifacts. name: of the input.
    """

    def __init__(self, results: Results, artifact: Artifact, name: str) -> None:
        self.results = results
        self.artifact = artifact
        super().__init__(name, None, {"fingerprint": artifact.fingerprint})

    def require(self) -> None:
        """Raises `StoreError` unless the run holds it."""
        self.results.require(self.artifact)

    def load(self, folder: Path) -> Any:
        return self.results.load(self.artifact)
