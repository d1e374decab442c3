"""Where artifacts lie in a run folder: done, under way, and held by a process."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowland.artifacts.lease import Leases
from lowland.artifacts.manifest import Manifest
from lowland.errors import StoreError
from lowland.files import sync_folder

ARTIFACTS = "artifacts"
EVENTS = "events.jsonl"
WORK = ".work"  # below artifacts/: what is under way
READ_ONLY = 0o444  # links to an artifact's files are what people see, and may write to
_LEASES = ".leases"


def leases_of(folder: Path) -> Leases:
    """The leases of a run folder."""
    return Leases(folder / ARTIFACTS / _LEASES)


def manifests(folder: Path) -> Iterator[Manifest]:
    """The manifests of all whole artifacts of a run folder."""
    root = folder / ARTIFACTS
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        if place.is_dir() and not place.name.startswith("."):
            try:
                yield Manifest.read(place)
            except StoreError:
                continue


def make_work(work: Path, permissions: int | None) -> None:
    """Makes the folder of an artifact under way: see `Artifact.permissions`."""
    work.parent.mkdir(parents=True, exist_ok=True)
    work.mkdir(mode=_folder_mode(permissions), exist_ok=True)
    if permissions is not None:  # of an earlier start, when its inputs had others
        work.chmod(_folder_mode(permissions))


def permit(place: Path, permissions: int | None) -> None:
    """Gives the files of an artifact its permissions, and its folder those that go with them."""
    if permissions is not None:
        place.chmod(_folder_mode(permissions))
    for path in place.rglob("*"):
        if path.is_file():
            path.chmod(READ_ONLY if permissions is None else permissions)


def _folder_mode(permissions: int | None) -> int:
    """Of a folder that is open to those who may read its files."""
    if permissions is None:
        return 0o777
    readers = permissions & 0o044
    return 0o700 | readers | readers >> 2


def publish(work: Path, place: Path, permissions: int | None = None) -> None:
    """Moves a folder whose manifest is written to its place, in one step."""
    for path in work.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    permit(work, permissions)
    if place.exists():  # damaged: its manifest did not fit
        shutil.rmtree(place)
    os.replace(work, place)
    sync_folder(place.parent)


def log_event(folder: Path, what: str, **details: Any) -> None:
    """Adds a line to events.jsonl of a run folder."""
    line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": what, **details}
    with open(folder / EVENTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
