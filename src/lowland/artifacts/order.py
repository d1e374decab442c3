"""The order in which artifacts are built: inputs before what needs them."""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

from lowland.artifacts.artifact import Artifact, Source
from lowland.artifacts.checkpoint import differences
from lowland.errors import StoreError


def ordered(targets: Sequence[Artifact]) -> list[Artifact]:
    """All that targets stand on, inputs first, in the order in which they are named.

    Raises `StoreError` where two different artifacts have one name.
    """
    seen: dict[str, Artifact] = {}
    sorter: TopologicalSorter[str] = TopologicalSorter()

    def visit(artifact: Artifact) -> None:
        other = seen.get(artifact.name)
        if other is not None and other.fingerprint != artifact.fingerprint:
            raise StoreError(
                f"two artifacts have the name {artifact.name}, with other settings "
                f"({'; '.join(differences(other.values(), artifact.values()))}); rename one."
            )
        if other is not None:
            return
        seen[artifact.name] = artifact
        for each in artifact.inputs:
            visit(each)
        sorter.add(artifact.name, *(each.name for each in artifact.inputs))

    for target in targets:
        visit(target)
    try:
        return [seen[name] for name in sorter.static_order()]
    except CycleError as error:
        raise StoreError(f"artifacts need one another in a circle: {error.args[1]}.") from None


def complete(targets: Sequence[Artifact]) -> list[Artifact]:
    """Targets with all that they stand on, but for sources and what is intermediate."""
    every = ordered(targets)
    return [each for each in every if not isinstance(each, Source) and not each.intermediate]
