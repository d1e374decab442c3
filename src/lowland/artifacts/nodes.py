"""graph.json: what `status`, `clean` and `report` read, without any code of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from lowland.artifacts.artifact import Artifact
from lowland.errors import StoreError
from lowland.files import write_json
from lowland.schema import read_json

FORMAT = "lowland-graph-1"
GRAPH = "graph.json"


class Node(TypedDict):
    """An artifact in graph.json."""

    name: str
    kind: str
    version: int
    fingerprint: str
    settings: dict[str, Any]
    inputs: list[str]


class Body(TypedDict):
    """What graph.json holds: the artifacts of the last command, inputs before what needs them."""

    format: str
    artifacts: list[Node]


def node_of(artifact: Artifact) -> Node:
    """An artifact as graph.json has it."""
    return {
        "name": artifact.name,
        "kind": artifact.kind,
        "version": artifact.version,
        "fingerprint": artifact.fingerprint,
        "settings": artifact.values(),
        "inputs": [each.name for each in artifact.inputs],
    }


def write_graph(folder: Path, artifacts: Sequence[Artifact], *, alone: bool = False) -> None:
    """Writes graph.json: the artifacts of this command, inputs first, then others of earlier
    commands, unless these are `alone`."""
    nodes = [node_of(artifact) for artifact in artifacts]
    names = {node["name"] for node in nodes}
    try:
        earlier = [] if alone else read_graph(folder)
    except StoreError:
        earlier = []
    others = [node for node in earlier if node["name"] not in names]
    every = names | {node["name"] for node in others}
    others = [node for node in others if set(node["inputs"]) <= every]
    body: Body = {"format": FORMAT, "artifacts": [*nodes, *others]}
    write_json(folder / GRAPH, body)


def read_graph(folder: Path) -> list[Node]:
    """The artifacts of a run folder, as its commands planned them."""
    file = folder / GRAPH
    if folder.is_file():
        raise StoreError(
            f"{folder} is a file, and no run folder; name the folder that `lowland run` made, such "
            "as the `out` of a configuration."
        )
    if not file.is_file():
        raise StoreError(
            f"{folder} holds no {GRAPH}: no run folder, or one of an earlier version; name a "
            "folder that `lowland run` made."
        )
    return read_json(file, Body, version=FORMAT)["artifacts"]
