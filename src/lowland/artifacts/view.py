"""The view of a run folder for people: files of artifacts under plain names, as hard links."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lowland.artifacts.manifest import Manifest
from lowland.errors import StoreError
from lowland.files import is_plain, sync_folder, temporary_name


def show(run: Path, manifest: Manifest) -> None:
    """Puts what an artifact shows into its places in the run folder; what lies there gives way.

    A hard link takes no room. Where the file system has none it is a copy.
    """
    for source, target in shown_files(run, manifest):
        if target.exists() and os.path.samefile(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(target)
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
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


def hide(run: Path, manifest: Manifest) -> None:
    """Removes what an artifact shows, where it is still that artifact's."""
    for source, target in shown_files(run, manifest):
        if source.exists() and target.exists() and os.path.samefile(source, target):
            target.unlink()


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
