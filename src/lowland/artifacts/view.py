"""The view of a run folder for people: files of artifacts under plain names.

Files are hard links, which take no room, or copies where people edit them. What people may write
to is never replaced or removed once they did.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from lowland.artifacts.artifact import Artifact
from lowland.artifacts.manifest import Manifest, hash_of
from lowland.artifacts.places import manifests
from lowland.errors import StoreError
from lowland.files import is_plain, sync_folder, temporary_name


def show(run: Path, manifest: Manifest, *, copied: bool = False) -> list[Path]:
    """Puts what an artifact shows into its places in the run folder; what lies there gives way.

    `copied`: as copies, as they also are where the file system has no hard links. Returns the files
    that were edited in the run folder, which stay.
    """
    edited = []
    for source, target in shown_files(run, manifest):
        if target.exists() and _is_same(source, target):
            continue
        if target.exists() and _is_edited(run, source, target):
            edited.append(target)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        temporary.unlink(missing_ok=True)
        _link(source, temporary, copied=copied)
        os.replace(temporary, target)
        temporary.unlink(missing_ok=True)  # replacing one link by another of the same file
    for name, place in manifest.body["view"].items():
        folder = manifest.folder / name
        if folder.is_dir():  # what lies there from an earlier build
            names = {path.name for path in folder.iterdir()}
            for stray in (run / place).iterdir():
                if stray.name not in names and stray.is_file():
                    stray.unlink()
            sync_folder(run / place)
    return edited


def hide(run: Path, manifest: Manifest, *, but: Collection[Path] = ()) -> None:
    """Removes what an artifact shows, where it is still that artifact's.

    `but`: places that others show now.
    """
    for source, target in shown_files(run, manifest):
        if target in but or not (source.exists() and target.exists()):
            continue
        linked = os.path.samefile(source, target) and not _is_writable(source)
        if linked or hash_of(target) == _checksum(manifest, source):
            target.unlink()


def hide_others(run: Path, artifacts: Iterable[Artifact]) -> None:
    """Removes what artifacts of earlier options show, which would stand beside these."""
    fingerprints = {each.fingerprint for each in artifacts}
    others = [m for m in manifests(run) if m.body["fingerprint"] not in fingerprints]
    places = shown_places(run, fingerprints)
    for manifest in others:
        hide(run, manifest, but=places)


def shown_places(run: Path, fingerprints: Collection[str]) -> set[Path]:
    """Where artifacts with these fingerprints are shown."""
    return {
        target
        for manifest in manifests(run)
        if manifest.body["fingerprint"] in fingerprints
        for _, target in shown_files(run, manifest)
    }


def shown_files(run: Path, manifest: Manifest) -> Iterator[tuple[Path, Path]]:
    """The files of an artifact that are shown, and where."""
    for name, place in manifest.body["view"].items():
        if not all(map(is_plain, (*name.split("/"), *place.split("/")))):
            raise StoreError(
                f"{manifest.folder}: it shows {name!r:.80} at {place!r:.80}; delete it."
            )
        source, target = manifest.folder / name, run / place
        if source.is_dir():
            for file in sorted(source.iterdir()):
                if file.is_file():
                    yield file, target / file.name
        elif source.is_file():
            yield source, target


def _is_same(source: Path, target: Path) -> bool:
    """Whether a file is shown already; a copy has at most the permissions of what it is of."""
    if os.path.samefile(source, target):
        return True
    if not _is_writable(source) or not filecmp.cmp(source, target, shallow=False):
        return False
    allowed = target.stat().st_mode & source.stat().st_mode
    if allowed != target.stat().st_mode:
        target.chmod(allowed & 0o777)
    return True


def _is_edited(run: Path, source: Path, target: Path) -> bool:
    """Whether people wrote to a file that they may write to: no artifact shows what it holds."""
    if not _is_writable(source):
        return False
    checksums = {
        _checksum(manifest, file)
        for manifest in manifests(run)
        for file, place in shown_files(run, manifest)
        if place == target
    }
    return hash_of(target) not in checksums


def _is_writable(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o200)


def _checksum(manifest: Manifest, file: Path) -> str | None:
    """What an artifact's file was when it was written; None where it is none of its files."""
    body = manifest.body["files"].get(file.relative_to(manifest.folder).as_posix())
    return None if body is None else body["blake2b"]


def _link(source: Path, target: Path, *, copied: bool) -> None:
    """A link to a file or, where there can be none, a copy that nobody else could ever read."""
    if not copied:
        with suppress(OSError):
            os.link(source, target)
            return
    with open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as copy:
        with open(source, "rb") as file:
            shutil.copyfileobj(file, copy)
        copy.flush()
        os.fsync(copy.fileno())
    shutil.copymode(source, target)
