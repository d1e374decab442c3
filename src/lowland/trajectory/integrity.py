"""What may be wrong with the files of a store, in words that name them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from lowland.files import require_inside, temporary_name
from lowland.trajectory.journal import JOURNAL, Iterate, checksum, iterate_name


def trouble_of(
    folder: Path, before: Sequence[Iterate], iterate: Iterate, *, thorough: bool
) -> str | None:
    """What is wrong with the line or the file of the iterate after those `before`."""
    return _out_of_order(folder, before, iterate) or damage(folder, iterate, thorough=thorough)


def _out_of_order(folder: Path, before: Sequence[Iterate], iterate: Iterate) -> str | None:
    # the name is known: one from elsewhere would be read, written over or deleted
    expected, line = iterate_name(len(before)), f"{folder / JOURNAL}: line {len(before) + 2}"
    if iterate.file != expected:
        return f"{line} is of {iterate.file!r:.80} instead of {expected!r}: a line is missing"
    if before and iterate.step <= before[-1].step:
        return f"{line} is of step {iterate.step}, which is not after step {before[-1].step}"
    return None


def damage(folder: Path, iterate: Iterate, *, thorough: bool) -> str | None:
    """What is wrong with an iterate's file; `thorough`: every byte is read."""
    file = require_inside(folder, file_of(folder, iterate).name)
    if not file.is_file():
        return f"{file} is missing"
    size = file.stat().st_size
    if size != iterate.size:
        return f"{file} is damaged: {size} bytes instead of {iterate.size}"
    if thorough and checksum(file) != iterate.crc:
        return f"{file} is damaged or foreign: its checksum is not the journal's"
    return None


def file_of(folder: Path, iterate: Iterate) -> Path:
    """Where an iterate lies: the last may not have its name yet."""
    file = folder / iterate.file
    temporary = temporary_name(file)
    return temporary if temporary.is_file() and not file.is_file() else file


def stray_files(folder: Path, count: int) -> list[str]:
    """Iterate files behind the first `count`."""
    names = (path.name for path in folder.glob("*.safetensors"))
    first = iterate_name(count)
    return sorted(n for n in names if re.fullmatch(r"\d{6,}\.safetensors", n) and n >= first)


def set_aside(folder: Path, good: Collection[str]) -> None:
    """Moves iterates that are not among the good ones out of the way, and copies the journal."""
    names = (f"damaged-{n}" if n > 1 else "damaged" for n in itertools.count(1))
    aside = next(folder / name for name in names if not (folder / name).exists())
    aside.mkdir()
    shutil.copy2(folder / JOURNAL, aside / JOURNAL)
    for file in folder.glob("*.safetensors"):
        if file.name not in good:
            os.replace(file, aside / file.name)
