"""The graph of a run folder: builds what is missing or stale, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from lowland.artifacts.artifact import Artifact, Inputs, Source, folder_name
from lowland.artifacts.checkpoint import Checkpoint, Stopwatch
from lowland.artifacts.lease import HeldError
from lowland.artifacts.manifest import SMALL, TIMING, Manifest, seconds_of
from lowland.artifacts.nodes import node_of, write_graph
from lowland.artifacts.order import ordered
from lowland.artifacts.places import (
    ARTIFACTS,
    WORK,
    leases_of,
    log_event,
    make_work,
    permit,
    publish,
)
from lowland.artifacts.status import Status, statuses
from lowland.artifacts.view import show
from lowland.errors import StoreError
from lowland.files import write_text
from lowland.progress import Report

_TIMER = "seconds.txt"  # in the checkpoint's folder

Bar = Callable[[Artifact], Report]


class Graph:
    """The artifacts of a run folder, in `artifacts/NAME-FINGERPRINT/`.

    Each is built in a folder of its own below `artifacts/.work`, and takes its place in one step,
    its manifest in it. A process that is killed at any moment leaves whole artifacts, and the
    checkpoint of the one under way.

    Args:
        folder: the run folder. tell: called with a line for each artifact that is built
            again, with the reason, and for each file of people's own in its place.
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
        everything = ordered(targets)
        write_graph(self.folder, everything)
        under_way: dict[str, HeldError] = {}  # elsewhere, and what needs it
        needed = self.needed(targets)
        self._announce(needed)
        for artifact in needed:
            errors = [under_way[each.name] for each in artifact.inputs if each.name in under_way]
            try:
                if errors:
                    raise errors[0]
                self._build(artifact, bar)
            except HeldError as error:
                under_way[artifact.name] = error
        for artifact in everything:
            if not isinstance(artifact, Source) and self.place(artifact).is_dir():
                self._show(artifact)
        if under_way:
            raise next(iter(under_way.values()))

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
            make_work(work, artifact.permissions)
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
                inputs = Inputs(artifact.inputs, self.load)
                result = artifact.build(inputs, checkpoint, progress)
                artifact.save(result, work)
                write_text(work / TIMING, json.dumps({"seconds": watch.seconds()}) + "\n")
                checkpoint.clear()
                lease.require_mine(artifact.name)
                Manifest.write(artifact, work, inputs.requested)
                report(1, 1)
            lease.require_mine(artifact.name)
            publish(work, place, artifact.permissions)
            show(self.folder, Manifest.read(place), copied=artifact.copied)
            self._verified.pop(place, None)
            seconds = round(self.seconds(artifact), 2)
            log_event(self.folder, "built", artifact=artifact.name, seconds=seconds)

    def _show(self, artifact: Artifact) -> None:
        """Shows an artifact that is done, with the permissions that its inputs have now."""
        place = self.place(artifact)
        if artifact.permissions is not None:
            permit(place, artifact.permissions)
        for file in show(self.folder, Manifest.read(place), copied=artifact.copied):
            self.tell(f"{file} was edited, and stays as it is; delete it to have it written anew.")

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
        """Reports which artifacts are built again since they were damaged, and removes these."""
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
