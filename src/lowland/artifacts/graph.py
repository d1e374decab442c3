"""The graph of a run folder: builds what is missing or stale, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, TypedDict

from lowland.artifacts.artifact import Artifact, Inputs, Source, folder_name
from lowland.artifacts.checkpoint import Checkpoint, Stopwatch, differences
from lowland.artifacts.lease import HeldError, Leases
from lowland.artifacts.manifest import TIMING, Manifest
from lowland.artifacts.status import Status
from lowland.artifacts.view import show
from lowland.errors import StoreError
from lowland.files import sync_folder, write_text
from lowland.progress import Report
from lowland.schema import parse_json, require

FORMAT = "lowland-graph-1"
GRAPH = "graph.json"
ARTIFACTS = "artifacts"
EVENTS = "events.jsonl"
WORK = ".work"  # below artifacts/: what is under way
_LEASES = ".leases"
SMALL = 16 << 20  # bytes of an artifact whose content is compared whenever it is looked at
_TIMER = "seconds.txt"  # in the checkpoint's folder

Bar = Callable[[Artifact], Report]


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


class Graph:
    """The artifacts of a run folder, in `artifacts/NAME-FINGERPRINT/`.

    Each is built in a folder of its own below `artifacts/.work`, and takes its place in one step,
    its manifest in it. A process that is killed at any moment leaves whole artifacts, and the
    checkpoint of the one under way.

    Args:
        folder: the run folder. tell: is called with a line on what is built again, and why.
    """

    def __init__(self, folder: Path, *, tell: Callable[[str], None] = lambda text: None) -> None:
        self.folder = folder
        self.tell = tell
        self.leases = leases_of(folder)
        self._verified: dict[Path, Manifest] = {}  # whose content was compared in this process

    # -- what is there ---------------------------------------------------------------------------

    def place(self, artifact: Artifact) -> Path:
        """The folder of an artifact when it is done."""
        return self.folder / ARTIFACTS / folder_name(artifact.name, artifact.fingerprint)

    def work(self, artifact: Artifact) -> Path:
        """The folder in which an artifact is built."""
        return self.folder / ARTIFACTS / WORK / folder_name(artifact.name, artifact.fingerprint)

    def is_done(self, artifact: Artifact) -> bool:
        """Whether an artifact is there and whole: of large files the size alone is compared."""
        return isinstance(artifact, Source) or self._manifest(artifact) is not None

    def seconds(self, artifact: Artifact) -> float:
        """How long building an artifact took that is done; 0 where that is not known."""
        return seconds_of(self.place(artifact)) or 0.0

    def status(self, targets: Sequence[Artifact]) -> list[Status]:
        """The state of all artifacts that targets stand on, inputs first."""
        nodes = [node_of(artifact) for artifact in ordered(targets)]
        return statuses(self.folder, nodes)

    def load(self, artifact: Artifact) -> Any:
        """The result of an artifact that is done; one whose content was changed is built again.

        Raises:
            HeldError: it has to be built, and another process builds it.
        """
        if isinstance(artifact, Source):
            return artifact.load(self.folder)
        self._ensure(artifact)
        place = self.place(artifact)
        if place not in self._verified:
            manifest = Manifest.read(place)
            damage = manifest.damage(content=True)
            if damage is not None:
                self._forget(artifact, damage)
                self._ensure(artifact)
                manifest = Manifest.read(place)
            self._verified[place] = manifest
        return artifact.load(place)

    # -- building --------------------------------------------------------------------------------

    def needed(self, targets: Iterable[Artifact]) -> list[Artifact]:
        """What has to be built for targets, inputs first: nothing below what is done."""
        needed: dict[str, Artifact] = {}

        def visit(artifact: Artifact) -> None:
            if artifact.name in needed or self.is_done(artifact):
                return
            for each in artifact.inputs:
                visit(each)
            needed[artifact.name] = artifact

        for target in targets:
            visit(target)
        return list(needed.values())

    def build(self, targets: Sequence[Artifact], *, bar: Bar | None = None) -> None:
        """Builds what targets need and is not done, inputs first.

        Artifacts that another process builds are left to it, and all else is built first.

        Args:
            bar: gives the progress report of an artifact, called when its turn comes.

        Raises:
            HeldError: what is left is under way elsewhere. StoreError: a name that comes twice.
        """
        write_graph(self.folder, targets)
        held: dict[str, HeldError] = {}
        needed = self.needed(targets)
        self._announce(needed)
        for artifact in needed:
            if any(each.name in held for each in artifact.inputs):
                held[artifact.name] = held[next(e.name for e in artifact.inputs if e.name in held)]
                continue
            try:
                self._build(artifact, bar)
            except HeldError as error:
                held[artifact.name] = error
        for artifact in ordered(targets):
            if not isinstance(artifact, Source) and self.place(artifact).is_dir():
                show(self.folder, Manifest.read(self.place(artifact)))
        if held:
            raise next(iter(held.values()))

    def _ensure(self, artifact: Artifact) -> None:
        """Builds one artifact, with what it needs, unless it is done."""
        needed = self.needed([artifact])
        self._announce(needed)
        for each in needed:
            self._build(each, None)

    def _build(self, artifact: Artifact, bar: Bar | None) -> None:
        name = folder_name(artifact.name, artifact.fingerprint)
        with self.leases.hold(name, artifact.name) as lease:
            if self._manifest(artifact) is not None:
                return  # another process was faster
            work, place = self.work(artifact), self.place(artifact)
            work.mkdir(parents=True, exist_ok=True)
            if not self._is_whole(work, artifact):
                checkpoint = Checkpoint.within(work)
                timer = checkpoint.file(_TIMER)
                assert timer is not None
                watch = Stopwatch(timer)
                report = (lambda done, total: None) if bar is None else bar(artifact)

                def progress(done: int, total: int | None) -> None:
                    watch.look()
                    lease.done, lease.total = done, total
                    report(done, total)

                log_event(self.folder, "building", artifact=artifact.name)
                inputs = Inputs(artifact.inputs, self.load, self.load)
                result = artifact.build(inputs, checkpoint, progress)
                artifact.save(result, work)
                write_text(work / TIMING, json.dumps({"seconds": watch.seconds()}) + "\n")
                checkpoint.clear()
                lease.require_mine(artifact.name)
                Manifest.write(artifact, work, inputs.requested)
                report(1, 1)
            lease.require_mine(artifact.name)
            publish(work, place)
            show(self.folder, Manifest.read(place))
            self._verified.pop(place, None)
            seconds = round(self.seconds(artifact), 2)
            log_event(self.folder, "built", artifact=artifact.name, seconds=seconds)

    def _manifest(self, artifact: Artifact) -> Manifest | None:
        """The manifest of an artifact that is there and whole."""
        try:
            manifest = Manifest.read(self.place(artifact))
        except StoreError:
            return None
        if manifest.body["fingerprint"] != artifact.fingerprint:
            return None
        if manifest.folder in self._verified:
            return manifest
        small = manifest.size <= SMALL
        if manifest.damage(content=small) is not None:
            return None
        if small:
            self._verified[manifest.folder] = manifest
        return manifest

    def _is_whole(self, work: Path, artifact: Artifact) -> bool:
        """Whether a build was stopped between its last file and its publication."""
        try:
            manifest = Manifest.read(work)
        except StoreError:
            return False
        whole = manifest.body["fingerprint"] == artifact.fingerprint
        return whole and manifest.damage(content=True) is None

    def _announce(self, needed: Iterable[Artifact]) -> None:
        """Says which artifacts are built again since they were damaged, and removes these."""
        for artifact in needed:
            if self.place(artifact).exists():
                try:
                    damage = Manifest.read(self.place(artifact)).damage(content=True)
                except StoreError:
                    damage = "its manifest is damaged"
                self._forget(artifact, damage or "it is another one")

    def _forget(self, artifact: Artifact, damage: str) -> None:
        """Removes a damaged artifact."""
        self.tell(f"{artifact.name} is built again ({damage}).")
        shutil.rmtree(self.place(artifact))
        self._verified.pop(self.place(artifact), None)


def publish(work: Path, place: Path) -> None:
    """Moves a folder whose manifest is written to its place, in one step."""
    for path in work.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            path.chmod(0o444)  # links to it are what people see, and may write to
    if place.exists():  # damaged: its manifest did not fit
        shutil.rmtree(place)
    os.replace(work, place)
    sync_folder(place.parent)


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


# -- graph.json: what status, clean and report read, without any code of the user's ---------------


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


def write_graph(folder: Path, targets: Sequence[Artifact]) -> None:
    """Writes graph.json: the artifacts of this command, then others of earlier commands."""
    nodes = [node_of(artifact) for artifact in ordered(targets)]
    names = {node["name"] for node in nodes}
    try:
        others = [node for node in read_graph(folder) if node["name"] not in names]
    except StoreError:
        others = []
    known = names | {node["name"] for node in others}
    others = [node for node in others if set(node["inputs"]) <= known]
    body: Body = {"format": FORMAT, "artifacts": [*nodes, *others]}
    write_text(folder / GRAPH, json.dumps(body, indent=1) + "\n")


def read_graph(folder: Path) -> list[Node]:
    """The artifacts of a run folder, as its commands planned them."""
    file = folder / GRAPH
    try:
        text = file.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{folder} holds no {GRAPH}: no run folder, or one of an earlier version; name a "
            "folder that `lowland run` made."
        ) from error
    body = parse_json(text, source=file)
    require(body, Body, source=file)
    if body["format"] != FORMAT:
        raise StoreError(
            f"{file}: its format is {body['format']!r:.60}, this version of lowland reads "
            f"{FORMAT!r}; use the version that wrote it."
        )
    return list(body["artifacts"])


def log_event(folder: Path, what: str, **details: Any) -> None:
    """Adds a line to events.jsonl of a run folder."""
    line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": what, **details}
    with open(folder / EVENTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def leases_of(folder: Path) -> Leases:
    """The leases of a run folder."""
    return Leases(folder / ARTIFACTS / _LEASES)


def statuses(folder: Path, nodes: Sequence[Node]) -> list[Status]:
    """The state of each artifact, from the files of a run folder alone."""
    leases = leases_of(folder)
    history = {}
    for manifest in sorted(manifests(folder), key=lambda m: m.folder.stat().st_mtime):
        history[manifest.body["name"]] = manifest  # the newest of a name
    prints = {node["name"]: node["fingerprint"] for node in nodes}
    return [_status(folder, node, prints, history.get(node["name"]), leases) for node in nodes]


def _status(
    folder: Path,
    node: Node,
    prints: dict[str, str],
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
            reason=_change(newest, node, prints),
            seconds=seconds_of(newest.folder),
        )
    return status


def _change(manifest: Manifest, node: Node, prints: dict[str, str]) -> str:
    """What differs between an artifact that is there and the one that is wanted."""
    body = manifest.body
    changed = differences(body["settings"], node["settings"])
    if body["version"] != node["version"]:
        changed.append(f"{node['kind']}: version {body['version']} there, {node['version']} now")
    now = {name: prints.get(name, "") for name in node["inputs"]}
    others = [name for name in now if body["inputs"].get(name) != now[name]]
    others += [f"{name} (no longer)" for name in body["inputs"] if name not in now]
    if others:
        changed.append(f"other {', '.join(others)}")
    return "; ".join(changed)


def _content(settings: dict[str, Any]) -> str:
    return "; ".join(f"{key}: {value}" for key, value in settings.items())


def manifests(folder: Path) -> Iterator[Manifest]:
    """The manifests of all whole artifacts of a run folder."""
    root = folder / ARTIFACTS
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        if place.is_dir() and not place.name.startswith("."):
            try:
                yield Manifest.read(place)
            except StoreError:
                continue


def seconds_of(place: Path) -> float | None:
    """What timing.json beside a manifest says."""
    try:
        body = parse_json((place / TIMING).read_bytes(), source=place / TIMING)
        return float(body["seconds"])
    except (OSError, TypeError, ValueError, LookupError):
        return None
