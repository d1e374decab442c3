"""What takes how much disk in a run folder, and what of it can be removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lowland.artifacts.manifest import Manifest
from lowland.artifacts.nodes import read_graph
from lowland.artifacts.places import ARTIFACTS, WORK, leases_of, manifests
from lowland.artifacts.status import statuses
from lowland.artifacts.view import hide, shown_places
from lowland.files import require_inside

Use = Literal["result", "intermediate", "stale", "unfinished"]


@dataclass(frozen=True)
class Usage:
    """A folder of a run.

    Attributes:
        name: of the artifact. use: "result"; "intermediate", which all that needs it was built from
            already; "stale": of settings that are no longer those of the run; "unfinished": a
            stopped build of such settings, with its checkpoint.
    """

    name: str
    use: Use
    size: int
    folder: Path


def usage(folder: Path) -> list[Usage]:
    """What each artifact takes, the largest first; what is under way is left out."""
    nodes = read_graph(folder)
    planned = {node["fingerprint"]: node for node in nodes}
    done = {status.name: status.is_done for status in statuses(folder, nodes)}
    users = {
        node["name"]: [done[other["name"]] for other in nodes if node["name"] in other["inputs"]]
        for node in nodes
    }
    entries = []
    for manifest in manifests(folder):
        body = manifest.body
        use: Use = "result"
        if body["fingerprint"] not in planned:
            use = "stale"
        elif body["intermediate"] and users[body["name"]] and all(users[body["name"]]):
            use = "intermediate"
        entries.append(Usage(body["name"], use, size_of(manifest.folder), manifest.folder))
    prefixes = {node["fingerprint"][:12] for node in nodes}
    work = folder / ARTIFACTS / WORK
    for place in sorted(work.iterdir()) if work.is_dir() else ():
        under_way = leases_of(folder).owner(place.name) is not None
        if not under_way and place.name.rpartition("-")[2] not in prefixes:
            entries.append(Usage(place.name, "unfinished", size_of(place), place))
    return sorted(entries, key=lambda entry: -entry.size)


def remove(folder: Path, entries: Iterable[Usage]) -> int:
    """Removes entries that `usage` gave, with what they show; gives the bytes that were freed."""
    freed = 0
    entries = list(entries)
    removed = {each.folder for each in entries}
    planned = {node["fingerprint"] for node in read_graph(folder)}
    rest = [each.body["fingerprint"] for each in manifests(folder) if each.folder not in removed]
    places = shown_places(folder, planned.intersection(rest))
    for entry in entries:
        require_inside(entry.folder.parent, entry.folder.name)
        if entry.use != "unfinished":
            hide(folder, Manifest.read(entry.folder), but=places)
        shutil.rmtree(entry.folder)
        freed += entry.size
    return freed


def size_of(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
