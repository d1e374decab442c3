"""Decoded images kept on disk, so that a set is decoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from lowland.errors import StoreError
from lowland.files import PathLike
from lowland.tensor_files import read_tensors, write_tensors
from lowland.warn import warn
from lowland.zoo.images import Labelled

_FORMAT = "lowland-images-2"


def folder() -> Path:
    """Where decoded images go by default: $LOWLAND_CACHE, else ~/.cache/lowland."""
    return Path(os.environ.get("LOWLAND_CACHE") or Path.home() / ".cache" / "lowland")


def cached(
    source: Path, made_of: str, read: Callable[[], Labelled], *, cache: PathLike | None = None
) -> Labelled:
    """What `read()` gives, from a file in `cache` if that was made of the same.

    The file holds `made_of`, a checksum of what is read, and one of its own content: where one
    differs, the source is read anew. `source` names the file.
    """
    name = hashlib.blake2b(str(source.resolve()).encode(), digest_size=8).hexdigest()
    path = Path(cache or folder()) / f"{source.stem}-{name}.safetensors"
    if path.is_file():
        try:
            tensors, metadata = read_tensors(path)
            if metadata.get("format") == _FORMAT and metadata.get("source") == made_of:
                return tensors["images"], tensors["labels"]
        except (StoreError, KeyError):
            pass  # made anew below
    images, labels = read()
    try:
        notes = {"format": _FORMAT, "source": made_of}
        write_tensors(path, {"images": images, "labels": labels}, notes)
    except OSError as error:
        warn(
            f"{path} cannot be written ({error}), so the images will be decoded each time; set "
            "cache= or $LOWLAND_CACHE to a folder that can.",
        )
    return images, labels


def checksum(sources: Sequence[Path]) -> str:
    """One hash over the content of files.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a"
    >>> _ = path.write_text("a")
    >>> checksum([path]) == checksum([path, path])
    False
    """
    total = hashlib.blake2b(digest_size=16)
    for source in sources:
        with source.open("rb") as file:
            total.update(hashlib.file_digest(file, hashlib.blake2b).digest())
    return total.hexdigest()


def listing(sources: Sequence[Path], *more: object) -> str:
    """One hash over names, sizes and times of files, and whatever else images are made with."""
    total = hashlib.blake2b(repr(more).encode(), digest_size=16)
    for source in sources:
        stat = source.stat()
        total.update(f"{source} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return total.hexdigest()
