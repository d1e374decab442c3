"""Checkpoints of the command line: selected, inspected, and the inputs of averages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import Console

from lowland.artifacts import Source
from lowland.artifacts.manifest import hash_of
from lowland.cli.console import say
from lowland.cli.contents import Contents, report
from lowland.cli.tables import print_table
from lowland.core import ParamLayout
from lowland.core.names import name_filter
from lowland.errors import ConfigError, StoreError
from lowland.progress import Report
from lowland.trajectory.checkpoint_files import (
    WEIGHTS,
    Checkpoint,
    find_checkpoints,
    in_order,
    natural_key,
)
from lowland.trajectory.checkpoint_tensors import (
    checkpoint_files,
    layout_of,
    read_stored,
    require_alike,
)
from lowland.trajectory.quantized import dequantize, quantized
from lowland.trajectory.tensor_kinds import kinds_of, require_constant
from lowland.trajectory.torch_files import Stored


@dataclass(frozen=True)
class CheckpointSelection:
    """Checkpoints of one model by step, and how their files are read.

    Attributes:
        choice: which of several sets of weights in the files is taken, in words.
    """

    checkpoints: list[Checkpoint]
    key: str | None = None
    prefix: str | None = None
    choice: str | None = None

    @property
    def last(self) -> Checkpoint:
        """The checkpoint that gives the tensors that are not averaged."""
        return self.checkpoints[-1]

    @property
    def pretrained(self) -> bool:
        """Whether they are folders that `from_pretrained` reads."""
        beside = [self.last.path.with_name(name) for name in ("config.json", "adapter_config.json")]
        return self.last.path.name in WEIGHTS and any(file.is_file() for file in beside)

    def read(self, checkpoint: Checkpoint) -> Stored:
        """The tensors of a checkpoint as its file has them, mapped into memory."""
        return read_stored(checkpoint.path, key=self.key, prefix=self.prefix)

    def check(self, where: str | None = None) -> Contents:
        """The contents of the last checkpoint.

        Raises `LayoutError` where another has other names or shapes, or where `where` takes a
        weight without a mean.
        """
        stored = self.read(self.last)
        tensors = dequantize(stored.tensors, source=self.last.path)
        kinds, is_averaged = kinds_of(tensors), name_filter(where)
        averaged = {name: kind for name, kind in kinds.items() if is_averaged(name)}
        for one in self.checkpoints[:-1]:
            other, names = self.read(one).tensors, (self.last.path, one.path)
            require_alike(stored.tensors, other, names=names)
            require_constant(stored.tensors, other, averaged, names=names)
        return Contents(tensors, kinds, tuple(quantized(stored.tensors)), stored.left_out)

    @cached_property
    def folder(self) -> Path:
        """The folder in which all lie."""
        folders = [each.path.parent for each in self.checkpoints]
        if len({folder.is_absolute() for folder in folders}) > 1:
            folders = [folder.absolute() for folder in folders]
        return Path(os.path.commonpath(folders))

    def sources(self, progress: Report) -> list[Source]:
        """The checkpoints as inputs of artifacts, by the checksums of their files."""
        files = {each.path: checkpoint_files(each.path) for each in self.checkpoints}
        total = sum(map(len, files.values()))
        sources: list[Source] = []
        done = 0
        for path in files:
            checksums = []
            for file in files[path]:
                checksums.append(hash_of(file))
                done += 1
                progress(done, total)
            name = Path(os.path.relpath(path, self.folder)).as_posix()
            sources.append(Source(f"checkpoint/{name}", path, {"blake2b": " ".join(checksums)}))
        return sources

    @cached_property
    def permissions(self) -> int:
        """Those that all files have: who cannot read one of them cannot read an average of it."""
        permissions = 0o777
        for each in self.checkpoints:
            for file in checkpoint_files(each.path):
                permissions &= _permissions(file)
        return permissions | 0o400

    def span(self) -> str:
        """The number of checkpoints, and their steps."""
        first, last = self.checkpoints[0].step, self.last.step
        steps = "" if first is None or last is None else f", steps {first} to {last}"
        return f"{len(self.checkpoints)} checkpoints{steps}"


def select_checkpoints(
    sources: Sequence[str],
    *,
    last: int | None = None,
    start: int | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> CheckpointSelection:
    """The checkpoints of files, patterns and folders: from a step on, and of these the last few."""
    checkpoints = in_order(find_checkpoints(sources))
    seen: set[Path] = set()
    for path in (c.path for c in checkpoints):
        if not path.is_file():
            raise StoreError(f"{path}: no such file; check the path.")
        if path.resolve() in seen:
            raise ConfigError(f"{path} is named twice, and would count twice; name it once.")
        seen.add(path.resolve())
    if start is not None:
        unknown = [c.path for c in checkpoints if c.step is None]
        if unknown:
            raise ConfigError(f"--from: {unknown[0]} has no step; name the files.")
        later = [c for c in checkpoints if c.step is not None and c.step >= start]
        if not later:
            steps = ", ".join(str(c.step) for c in checkpoints)
            raise ConfigError(f"--from: no checkpoint is of step {start} or later; got {steps}.")
        checkpoints = later
    latest = checkpoints if last is None else checkpoints[-last:]
    selection = CheckpointSelection(latest, key, prefix)
    stored = selection.read(selection.last)
    if stored.choice is None:
        return selection
    return replace(selection, key=stored.key, choice=stored.choice)  # the same in every file


def inspect(selection: CheckpointSelection, where: str | None, console: Console) -> None:
    """Prints what the files hold; raises `LayoutError` where they do not fit together."""
    say(console, f"In {selection.folder}:")
    columns: dict[str, list[str]] = {"step": [], "tensors": [], "values": [], "dtypes": []}
    for one in selection.checkpoints:
        tensors = selection.read(one).tensors.values()
        dtypes = dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors)
        columns["step"].append("?" if one.step is None else str(one.step))
        columns["tensors"].append(str(len(tensors)))
        columns["values"].append(f"{sum(t.numel() for t in tensors):,}")
        columns["dtypes"].append(", ".join(dtypes))
    files = [os.path.relpath(one.path, selection.folder) for one in selection.checkpoints]
    print_table(columns, console, rows="file", labels=files)
    last = selection.check(where)
    layout = layout_of(last.tensors, where=where, kinds=last.kinds)
    say(console, f"To average: P = {layout.size:,} in {tensors_of(len(layout.names))}.")
    for name, count, size in _parts(layout):
        say(console, f"  {name}: {tensors_of(count)}, {size:,} values")
    report(last.outcomes(layout), console)
    say(console, "They fit together.")


def tensors_of(count: int) -> str:
    """1 tensor, 2 tensors."""
    return "1 tensor" if count == 1 else f"{count} tensors"


def _permissions(file: Path) -> int:
    """Those of a file; those of its group only where files written now have the same group."""
    status = file.stat()
    other_group = hasattr(os, "getegid") and status.st_gid != os.getegid()
    return status.st_mode & (0o707 if other_group else 0o777)


def _parts(layout: ParamLayout) -> list[tuple[str, int, int]]:
    """Modules with their numbers of tensors and values, at the first depth with several."""
    for depth in (1, 2, 3):
        modules: dict[str, tuple[int, int]] = {}
        for entry in layout.entries:
            name = ".".join(entry.name.split(".")[:depth])
            count, size = modules.get(name, (0, 0))
            modules[name] = (count + 1, size + entry.size)
        if len(modules) > 1:
            break
    parts = [(name, *modules[name]) for name in sorted(modules, key=natural_key)]
    return parts if len(parts) <= 12 else [*parts[:11], _rest(parts[11:])]


def _rest(parts: list[tuple[str, int, int]]) -> tuple[str, int, int]:
    return f"{len(parts)} more", sum(p[1] for p in parts), sum(p[2] for p in parts)
