"""Artifacts of runs that a stage was made from: `lowland status` compares their fingerprints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from lowland.artifacts.nodes import read_graph
from lowland.artifacts.places import manifests
from lowland.errors import StoreError
from lowland.files import write_json
from lowland.schema import read_json

ORIGINS = "origins.json"
#: a folder with a graph, and the place of a file or folder in its view
Place = tuple[Path, str]


class Origin(TypedDict):
    """The artifact that published a file."""

    folder: str  # relative to the stage
    file: str
    artifact: str
    fingerprint: str


def write_origins(stage: Path, places: Mapping[str, Sequence[Place]]) -> None:
    """Records the artifacts of the files from which the sources of a stage are read."""
    origins: dict[str, list[Origin]] = {source: [] for source in places}
    for source, (folder, file) in ((s, place) for s in places for place in places[s]):
        if published := _artifact_at(folder, file):
            artifact, fingerprint = published
            origin = Origin(
                folder=os.path.relpath(folder, stage),
                file=file,
                artifact=artifact,
                fingerprint=fingerprint,
            )
            origins[source].append(origin)
    stage.mkdir(parents=True, exist_ok=True)
    write_json(stage / ORIGINS, origins)


def changed_origins(stage: Path) -> dict[str, str]:
    """The sources of a stage whose artifacts are others now, each with the reason."""
    path = stage / ORIGINS
    if not path.is_file():
        return {}
    origins = read_json(path, dict[str, list[Origin]])
    reasons: dict[str, str] = {}
    for source, origin in ((s, each) for s in origins for each in origins[s]):
        folder = Path(os.path.normpath(stage / origin["folder"]))
        published = _artifact_at(folder, origin["file"])
        if published is None:
            reasons.setdefault(source, f"{folder / origin['file']} is gone")
        elif published != (origin["artifact"], origin["fingerprint"]):
            reasons.setdefault(source, f"other {published[0]} in {folder}")
    return reasons


def _artifact_at(folder: Path, file: str) -> tuple[str, str] | None:
    """The name and fingerprint of the artifact that publishes a file, as the graph has it now."""
    try:
        fingerprints = {node["name"]: node["fingerprint"] for node in read_graph(folder)}
    except StoreError:
        return None
    for manifest in manifests(folder):
        name = manifest.body["name"]
        if file in manifest.body["view"].values() and name in fingerprints:
            return name, fingerprints[name]
    return None
