"""How commands build the artifacts of a folder in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from lowland.artifacts import Artifact, Graph
from lowland.cli.bars import Bars
from lowland.cli.console import say
from lowland.core.threads import using_threads


class Builder:
    """The artifacts of a folder: what is built again and why, bars, and where results lie.

    Args:
        folder: of the artifacts. threads: those with which its networks were trained, so that what
            is stopped ends with the same bits.
    """

    def __init__(self, folder: Path, console: Console, *, threads: int) -> None:
        self.folder = folder
        self.console = console
        self.threads = threads
        self.graph = Graph(folder, tell=lambda line: say(console, line))
        self._targets: dict[str, Artifact] = {}

    def build(self, targets: Sequence[Artifact]) -> None:
        """Builds targets; the first call prints what is built again, and what is kept."""
        with using_threads(self.threads):
            if not self._targets:
                outline(self.graph, targets, self.console)
            with Bars(self.console) as bars:
                self.graph.build(targets, bar=bars.of)
        self._targets |= {each.name: each for each in targets}

    def load(self, artifact: Artifact) -> Any:
        """The result of an artifact."""
        return self.graph.load(artifact)

    def say_results(self) -> None:
        """Prints the folder, and the pictures that were drawn."""
        paths = [self.load(each) for each in self._targets.values() if each.kind == "picture"]
        names = [path.name for path in paths if path is not None]
        say(self.console, f"Results: {self.folder}/")
        if names:
            say(self.console, f"Pictures: {', '.join(names)}")


def outline(graph: Graph, targets: Sequence[Artifact], console: Console) -> None:
    """Prints what is built again, and why, and what is kept; nothing in a new folder."""
    statuses = {status.name: status for status in graph.status(targets)}
    needed = [each.name for each in graph.needed(targets)]
    done = [name for name, status in statuses.items() if status.state == "done"]
    changed = {name for name in needed if statuses[name].state == "stale"}
    if not changed and set(done) <= {"plan"}:
        return
    for name in needed:
        status = statuses[name]
        # what follows from an input is printed for that input
        causes = [each for each in status.inputs if each in changed]
        if name in changed and not causes:
            took = f"; it took {status.seconds:.0f} s" if status.seconds else ""
            say(console, f"{name} is built again ({status.reason}{took}).")
    if needed:
        total = sum(status.state != "given" for status in statuses.values())
        say(console, f"{len(needed)} artifacts to build; {len(done)} of {total} are kept.")
