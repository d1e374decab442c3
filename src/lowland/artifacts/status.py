"""The state of each artifact of a run: done, under way, missing or stale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lowland.artifacts.artifact import Source, folder_name
from lowland.artifacts.checkpoint import differences
from lowland.artifacts.lease import Leases, Owner
from lowland.artifacts.manifest import SMALL, Manifest, seconds_of
from lowland.artifacts.nodes import Node
from lowland.artifacts.places import ARTIFACTS, WORK, leases_of, manifests
from lowland.errors import StoreError

State = Literal["done", "under way", "started", "missing", "stale", "damaged", "given"]


@dataclass(frozen=True)
class Status:
    """The state of one artifact.

    Attributes:
        state: "given" for a source; "started" where a stopped build left a checkpoint. reason: why
            it is stale or damaged. size: bytes of what is published. seconds: that building took.
            owner: who builds it now.
    """

    name: str
    state: State
    reason: str = ""
    size: int = 0
    seconds: float | None = None
    owner: Owner | None = None
    inputs: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def is_done(self) -> bool:
        """Whether nothing has to be built."""
        return self.state in ("done", "given")


def statuses(folder: Path, nodes: Sequence[Node]) -> list[Status]:
    """The state of each artifact, from the files of a run folder alone."""
    leases = leases_of(folder)
    history = {}
    for manifest in sorted(manifests(folder), key=lambda m: m.folder.stat().st_mtime):
        history[manifest.body["name"]] = manifest  # the newest of a name
    fingerprints = {node["name"]: node["fingerprint"] for node in nodes}
    return [
        _status(folder, node, fingerprints, history.get(node["name"]), leases) for node in nodes
    ]


def _status(
    folder: Path,
    node: Node,
    fingerprints: dict[str, str],
    newest: Manifest | None,
    leases: Leases,
) -> Status:
    status = Status(
        node["name"],
        "missing",
        inputs=tuple(node["inputs"]),
        fingerprint=node["fingerprint"],
    )
    if node["kind"] == Source.kind:
        return replace(status, state="given", reason=_content(node["settings"]))
    name = folder_name(node["name"], node["fingerprint"])
    place = folder / ARTIFACTS / name
    owner = leases.owner(name)
    if owner is not None:
        return replace(status, state="under way", owner=owner)
    try:
        manifest = Manifest.read(place)
        damage = manifest.damage(content=manifest.size <= SMALL)
    except StoreError as error:
        manifest, damage = None, str(error)
    if manifest is not None and damage is None:
        return replace(status, state="done", size=manifest.size, seconds=seconds_of(place))
    if place.exists():
        return replace(status, state="damaged", reason=damage or "")
    if (folder / ARTIFACTS / WORK / name).is_dir():
        return replace(status, state="started")
    if newest is not None:
        return replace(
            status,
            state="stale",
            reason=_change(newest, node, fingerprints),
            seconds=seconds_of(newest.folder),
        )
    return status


def _change(manifest: Manifest, node: Node, fingerprints: dict[str, str]) -> str:
    """What differs between an artifact that is there and the one of these settings."""
    body = manifest.body
    changed = differences(body["settings"], node["settings"])
    if body["version"] != node["version"]:
        changed.append(f"{node['kind']}: version {body['version']} there, {node['version']} now")
    now = {name: fingerprints.get(name, "") for name in node["inputs"]}
    others = [name for name in now if body["inputs"].get(name) != now[name]]
    others += [f"{name} (no longer)" for name in body["inputs"] if name not in now]
    if others:
        changed.append(f"other {', '.join(others)}")
    return "; ".join(changed)


def _content(settings: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in settings.items())
