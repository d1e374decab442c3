"""The manifest of an artifact: what it was built from, and checksums of its files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from lowland.artifacts.artifact import Artifact
from lowland.errors import StoreError
from lowland.files import is_plain, write_json
from lowland.schema import MAX_TEXT, read_json

FORMAT = "lowland-artifact-1"
MANIFEST = "manifest.json"
TIMING = "timing.json"
SMALL = 16 << 20  # bytes of an artifact whose content is compared whenever it is looked at
_APART = {MANIFEST, TIMING, "checkpoint"}  # what is in the folder and is no file of the artifact


class File(TypedDict):
    """A file of an artifact."""

    size: int
    blake2b: str


class Body(TypedDict):
    """What manifest.json holds."""

    format: str
    name: str
    kind: str
    version: int
    fingerprint: str
    intermediate: bool
    settings: dict[str, Any]
    inputs: dict[str, str]
    requested: dict[str, str]
    view: dict[str, str]
    files: dict[str, File]


@dataclass(frozen=True)
class Manifest:
    """The manifest in a folder."""

    folder: Path
    body: Body

    @classmethod
    def write(cls, artifact: Artifact, folder: Path, requested: list[Artifact]) -> Manifest:
        """Makes the manifest of all files in a folder, and writes it last."""
        body: Body = {
            "format": FORMAT,
            "name": artifact.name,
            "kind": artifact.kind,
            "version": artifact.version,
            "fingerprint": artifact.fingerprint,
            "intermediate": artifact.intermediate,
            "settings": artifact.values(),
            "inputs": {each.name: each.fingerprint for each in artifact.inputs},
            "requested": {each.name: each.fingerprint for each in requested},
            "view": dict(artifact.view()),
            "files": {
                name: {"size": (folder / name).stat().st_size, "blake2b": hash_of(folder / name)}
                for name in sorted(_files(folder))
            },
        }
        write_json(folder / MANIFEST, body)
        return cls(folder, body)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads one; raises `StoreError` where there is none, or it is damaged."""
        file = folder / MANIFEST
        try:
            if file.stat().st_size > MAX_TEXT:
                raise StoreError(f"{file}: larger than {MAX_TEXT:,} bytes; delete {folder}.")
            body = read_json(file, Body, version=FORMAT)
        except FileNotFoundError:
            raise StoreError(f"{folder}: it holds no {MANIFEST}; delete it.") from None
        for name in body["files"]:
            if not all(map(is_plain, name.split("/"))):
                raise StoreError(f"{file} names the file {name!r:.80}, which is no file in it.")
        return cls(folder, body)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file["size"] for file in self.body["files"].values())

    def damage(self, *, content: bool) -> str | None:
        """What is wrong with the files, in words; None: nothing.

        `content`: compare checksums too, and not sizes alone.
        """
        for name, file in self.body["files"].items():
            path = self.folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != file["size"]:
                return f"{name} has {path.stat().st_size:,} bytes, not {file['size']:,}"
            if content and hash_of(path) != file["blake2b"]:
                return f"{name} is not what was written: it was edited, swapped or damaged"
        return None


def hash_of(path: Path) -> str:
    """32 hexadecimal digits of the content of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def seconds_of(place: Path) -> float | None:
    """How long building an artifact took; None where that is not known."""
    try:
        return read_json(place / TIMING, dict[str, float])["seconds"]
    except (OSError, LookupError):
        return None


def _files(folder: Path) -> Iterator[str]:
    """The files of an artifact's folder, relative, with slashes."""
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in _APART]
            names = [name for name in names if name not in _APART]
        for name in names:
            if not name.startswith("."):
                yield Path(place, name).relative_to(folder).as_posix()
