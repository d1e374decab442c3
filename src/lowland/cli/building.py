"""What commands say of the artifacts that they build: what is built again, and what was drawn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from lowland.artifacts import Artifact, Graph
from lowland.cli.console import say


def outline(graph: Graph, targets: Sequence[Artifact], console: Console) -> None:
    """Says what is built again, and why, and what is kept; nothing in a new folder."""
    statuses = {status.name: status for status in graph.status(targets)}
    needed = [each.name for each in graph.needed(targets)]
    kept = [name for name, status in statuses.items() if status.state == "done"]
    changed = {name for name in needed if statuses[name].state == "stale"}
    if not changed and set(kept) <= {"plan"}:
        return
    for name in needed:
        status = statuses[name]
        # what follows from an input is said where that stands
        causes = [each for each in status.inputs if each in changed]
        if name in changed and not causes:
            took = f"; it took {status.seconds:.0f} s" if status.seconds else ""
            say(console, f"{name} is built again ({status.reason}{took}).")
    if needed:
        total = sum(status.state != "given" for status in statuses.values())
        say(console, f"{len(needed)} artifacts to build; {len(kept)} of {total} are kept.")


def drawn(graph: Graph, targets: Sequence[Artifact]) -> list[str]:
    """The names of the pictures among targets that were drawn."""
    paths = [graph.load(each) for each in targets if each.kind == "picture"]
    return [path.name for path in paths if path is not None]
