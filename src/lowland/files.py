"""Files that a kill cannot damage, and names that stay inside their folder."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lowland.errors import StoreError

PathLike = str | os.PathLike[str]


@contextmanager
def atomic_write(path: PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes the place of `path` in one step.

    A reader, or a process that is killed at any byte, sees the old file or the new one, never a
    part. The temporary name is always the same, so that kills leave at most one stray file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_write(folder / "a.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [p.name for p in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(temporary_name(path)) as temporary:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    sync_folder(path.parent)


def temporary_name(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.tmp")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields the path of a new file, which is deleted should it fail."""
    path.unlink(missing_ok=True)  # of a kill; a link would be written through
    try:
        yield path
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Makes the content of a file durable."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def require_inside(folder: PathLike, name: str) -> Path:
    """The file of this name in a folder; raises `StoreError` for any other place.

    Files that name other files may come from elsewhere: a name is a plain one, and a link that
    leads out of the folder is refused.

    >>> require_inside("run", "../thesis.txt")
    Traceback (most recent call last):
    lowland.errors.StoreError: run names the file '../thesis.txt', which is not a plain name ...
    """
    folder = Path(folder)
    if not is_plain(name):
        raise StoreError(
            f"{folder} names the file {name!r:.80}, which is not a plain name of a file in it; "
            "leave the folder alone, or get it anew from where it came from."
        )
    path = folder / name
    if path.resolve().parent != folder.resolve():
        raise StoreError(
            f"{path} is a link that leads out of its folder; put the file itself in its place."
        )
    return path


def require_own(
    folder: PathLike,
    marks: Collection[str],
    *,
    rest: Collection[str] = (),
    content: str,
    option: str,
) -> None:
    """Raises `StoreError` where a folder holds files, and none of `marks`: it is somebody else's.

    Args:
        folder: it may be missing. marks: files by which a folder is known as one's own. rest: what
            may lie there without them, after a stop; so may files that were not whole. content: of
            one's own folders. option: names another folder.

    >>> require_own("missing", ["run.yaml"], content="run", option="--out")
    """
    path = Path(folder)
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; name a folder with {option}.")
    names = {each.name for each in path.iterdir()} if path.is_dir() else set()
    partial = {temporary_name(path / name).name for name in (*marks, *rest)}
    if names - {*rest, *partial} and names.isdisjoint(marks):
        raise StoreError(
            f"{path} is not empty, and no {content}; name another folder with {option}."
        )


def require_no_way_out(folder: PathLike) -> None:
    """Raises `StoreError` where a link in a folder, at any depth, leads out of it.

    What is written below such a link would go into another folder.
    """
    root = Path(folder).resolve()
    for place, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise StoreError(
                    f"{path} is a link that leads out of {folder}; put what it leads to in its "
                    "place. To keep a run on another disk, make the whole folder a link."
                )


def is_plain(name: str) -> bool:
    """Whether a name is that of a file in a folder, on any system: no way to another folder."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def sync_folder(folder: Path) -> None:
    """Makes a rename inside `folder` durable, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders; the rename is still atomic there
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: PathLike, value: Any) -> None:
    """Writes a plain value as a JSON file, see `schema.read_json`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scale.json"
    >>> write_json(path, {"scale": 0.5})
    >>> path.read_text()
    '{\\n "scale": 0.5\\n}\\n'
    """
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: PathLike, text: str) -> None:
    """Writes a small text file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
