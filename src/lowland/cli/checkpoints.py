"""Checkpoints of the command line: selected, inspected, and averages written in their format."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from lowland.artifacts.lease import Leases
from lowland.cli.console import say
from lowland.cli.contents import Contents, report
from lowland.cli.tables import print_table
from lowland.core import ParamLayout
from lowland.core.names import name_filter
from lowland.errors import ConfigError, StoreError
from lowland.files import require_own, write_text
from lowland.schema import parse_json, require
from lowland.tensor_files import write_tensors
from lowland.trajectory.checkpoint_files import (
    WEIGHTS,
    Checkpoint,
    find_checkpoints,
    in_order,
    natural_key,
)
from lowland.trajectory.checkpoint_tensors import layout_of, read_stored, require_alike
from lowland.trajectory.quantized import dequantize, quantized
from lowland.trajectory.singular_vectors import singular_vectors, spectral_norms
from lowland.trajectory.tensor_kinds import kinds_of, require_constant
from lowland.trajectory.torch_files import Stored

RECORD = "average.json"
# what lies beside the weights of a Hugging Face model and is needed to load it
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_LEASES = ".leases"
_LEFT = ("trainer_state.json", "*.index.json")


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
    folder = os.path.commonpath([c.path.parent for c in selection.checkpoints])
    say(console, f"In {folder}:")
    columns: dict[str, list[str]] = {"step": [], "tensors": [], "values": [], "dtypes": []}
    for one in selection.checkpoints:
        tensors = selection.read(one).tensors.values()
        dtypes = dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors)
        columns["step"].append("?" if one.step is None else str(one.step))
        columns["tensors"].append(str(len(tensors)))
        columns["values"].append(f"{sum(t.numel() for t in tensors):,}")
        columns["dtypes"].append(", ".join(dtypes))
    files = [os.path.relpath(one.path, folder) for one in selection.checkpoints]
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


def merge(
    layout: ParamLayout, w: Tensor, last: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors of the last checkpoint, with averages and their buffers in place of its own.

    `buffers`: of the averaged model, where there is a model. Each tensor keeps the last
    checkpoint's dtype.
    """
    views = layout.unflatten(w)
    vectors: dict[str, Tensor] = {}
    for norm in spectral_norms(last):
        weight = views.get(layout.aliases.get(norm.weight, norm.weight))
        if weight is not None and norm.u not in buffers:
            vectors |= singular_vectors(norm, weight, last)
    out = {}
    for name, tensor in last.items():
        own = buffers.get(name, vectors.get(name, tensor))
        value = views.get(layout.aliases.get(name, name), own)
        out[name] = value.to("cpu", tensor.dtype, copy=True)
    return out


class Output:
    """The folder of an average; files of others are left alone.

    `model.safetensors` where the checkpoints are a pretrained model's, beside what
    `from_pretrained` needs; else `swa.safetensors`. `average.json` lists what was averaged.
    """

    def __init__(self, path: Path, selection: CheckpointSelection) -> None:
        self.path = path
        self._selection = selection
        require_own(path, [RECORD], rest=[_LEASES], content="earlier average", option="--out")
        adapter = selection.last.path.name.startswith("adapter")
        name = "adapter_model" if adapter else "model" if selection.pretrained else "swa"
        self.model = path / f"{name}.safetensors"

    def files(self) -> list[Path]:
        """All that the folder holds, but for the note of the process that works in it."""
        if not self.path.is_dir():
            return []
        return [path for path in self.path.iterdir() if path.name != _LEASES]

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Holds the folder; raises `HeldError`, which names the process that has it."""
        with Leases(self.path / _LEASES).hold("average", f"an average in {self.path}"):
            try:
                yield
            finally:  # while it is held
                shutil.rmtree(self.path / _LEASES, ignore_errors=True)

    def record(self, **notes: Any) -> None:
        """Writes average.json, which lists what was averaged and marks the folder as an average."""
        files = [{"file": str(c.path), "step": c.step} for c in self._selection.checkpoints]
        body = {**notes, "checkpoints": files}
        write_text(self.path / RECORD, json.dumps(body, indent=1) + "\n")

    def clear(self) -> None:
        """Removes the files of an earlier average, some of which this one may not replace."""
        for name in ("swa.safetensors", "ema.safetensors", "swag.safetensors", "comparison.json"):
            (self.path / name).unlink(missing_ok=True)

    def save(self, name: str, tensors: dict[str, Tensor]) -> Path:
        """Writes weights under the names of the model; "swa" is the model itself."""
        path = self.model if name == "swa" else self.path / f"{name}.safetensors"
        notes = {"format": "pt", "lowland": f"{name} of {self._selection.span()}"}
        write_tensors(path, tensors, notes)  # transformers insists on the format
        return path

    def finish(self, *, dequantized: bool = False) -> None:
        """Copies the files that `from_pretrained` needs, and the permissions of the checkpoints.

        `dequantized`: quantisation is taken out of the configuration of the model.
        """
        for file in self.path.glob("*.safetensors"):
            shutil.copymode(self._selection.last.path, file)
        if not self._selection.pretrained:
            return
        for pattern in _COMPANIONS:
            for file in sorted(self._selection.last.path.parent.glob(pattern)):
                if not any(file.match(p) for p in _LEFT):
                    shutil.copyfile(file, self.path / file.name)
        config = self.path / "config.json"
        if dequantized and config.is_file():
            settings = parse_json(config.read_bytes(), source=config)
            require(settings, dict[str, Any], source=config)
            settings.pop("quantization_config", None)
            write_text(config, json.dumps(settings, indent=2) + "\n")


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
