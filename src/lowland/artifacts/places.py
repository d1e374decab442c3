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


def log_event(folder: Path, what: str, **details: Any) -> None:
    """Adds a line to events.jsonl of a run folder."""
    line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": what, **details}
    with open(folder / EVENTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
