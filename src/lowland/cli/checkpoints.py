"""Checkpoints for the command line: chosen, looked into, and an average written as they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lowland.cli.show import say
from lowland.core import ParamLayout
from lowland.errors import ConfigError, StoreError
from lowland.files import write_tensors, write_text
from lowland.trajectory.checkpoints import (
    WEIGHTS,
    Checkpoint,
    find_checkpoints,
    in_order,
    natural,
)
from lowland.trajectory.formats import is_statistic, layout_of, read_checkpoint, require_alike

RECORD = "average.json"
# what lies beside the weights of a Hugging Face model and is needed to load it
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_LEFT = ("trainer_state.json", "*.index.json")


@dataclass(frozen=True)
class Chosen:
    """Checkpoints of one model, by step, and how their files are read."""

    checkpoints: list[Checkpoint]
    key: str | None = None
    prefix: str | None = None

    @property
    def last(self) -> Checkpoint:
        """The one that gives what is not averaged."""
        return self.checkpoints[-1]

    @property
    def pretrained(self) -> bool:
        """Whether they are folders that `from_pretrained` reads."""
        beside = [self.last.path.with_name(name) for name in ("config.json", "adapter_config.json")]
        return self.last.path.name in WEIGHTS and any(file.is_file() for file in beside)

    def read(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        """The tensors of one, mapped into memory."""
        return read_checkpoint(checkpoint.path, key=self.key, prefix=self.prefix)

    def check(self) -> dict[str, Tensor]:
        """The tensors of the last; raises `LayoutError` unless all have its names and shapes."""
        last = self.read(self.last)
        for one in self.checkpoints[:-1]:
            require_alike(last, self.read(one), names=(self.last.path, one.path))
        return last

    def span(self) -> str:
        """How many, and from which step to which."""
        first, last = self.checkpoints[0].step, self.last.step
        steps = "" if first is None or last is None else f", steps {first} to {last}"
        return f"{len(self.checkpoints)} checkpoints{steps}"


def choose(
    sources: Sequence[str],
    *,
    last: int | None = None,
    start: int | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> Chosen:
    """The checkpoints that files, patterns and folders stand for: from a step on, the last few."""
    found = in_order(find_checkpoints(sources))
    seen: set[Path] = set()
    for path in (c.path for c in found):
        if not path.is_file():
            raise StoreError(f"{path}: no such file; check the path.")
        if path.resolve() in seen:
            raise ConfigError(f"{path} is named twice, and would count twice; name it once.")
        seen.add(path.resolve())
    if start is not None:
        unknown = [c.path for c in found if c.step is None]
        if unknown:
            raise ConfigError(f"--from: {unknown[0]} does not say its step; name the files.")
        kept = [c for c in found if c.step is not None and c.step >= start]
        if not kept:
            steps = ", ".join(str(c.step) for c in found)
            raise ConfigError(f"--from: no checkpoint is of step {start} or later; got {steps}.")
        found = kept
    return Chosen(found if last is None else found[-last:], key, prefix)


def inspect(chosen: Chosen, where: str | None, console: Console) -> None:
    """Prints what is there, then raises `LayoutError` if it does not fit together."""
    folder = os.path.commonpath([c.path.parent for c in chosen.checkpoints])
    say(console, f"In {folder}:")
    table = Table(box=SIMPLE_HEAD)
    table.add_column("file", overflow="fold")
    for name in ("step", "tensors", "values", "dtypes"):
        table.add_column(name, justify="right")
    for one in chosen.checkpoints:
        tensors = chosen.read(one).values()
        table.add_row(
            os.path.relpath(one.path, folder),
            "?" if one.step is None else str(one.step),
            str(len(tensors)),
            f"{sum(t.numel() for t in tensors):,}",
            ", ".join(dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors)),
        )
    console.print(table)
    last = chosen.read(chosen.last)
    layout = layout_of(last, where=where)
    say(console, f"To average: P = {layout.size:,} in {tensors_of(len(layout.names))}.")
    for name, count, size in _parts(layout):
        say(console, f"  {name}: {tensors_of(count)}, {size:,} values")
    kept = rest(layout, last)
    if kept:
        say(console, f"As in the last: {tensors_of(len(kept))}, such as {', '.join(kept[:3])}.")
    chosen.check()
    say(console, "They fit together.")


def tensors_of(count: int) -> str:
    """1 tensor, 2 tensors."""
    return "1 tensor" if count == 1 else f"{count} tensors"


def rest(layout: ParamLayout, tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of what is not averaged."""
    return [n for n in tensors if layout.aliases.get(n, n) not in layout.names]


def statistics(tensors: Mapping[str, Tensor]) -> list[str]:
    """The names of BatchNorm statistics."""
    return [n for n in tensors if is_statistic(n) and not n.endswith("num_batches_tracked")]


def merged(
    layout: ParamLayout, w: Tensor, last: Mapping[str, Tensor], fresh: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A checkpoint like the last one: averages, fresh BatchNorm statistics, and what is left of it.

    Each tensor keeps the last checkpoint's dtype.
    """
    views = layout.unflatten(w)
    out = {}
    for name, tensor in last.items():
        value = views.get(layout.aliases.get(name, name), fresh.get(name, tensor))
        out[name] = value.to("cpu", tensor.dtype, copy=True)
    return out


class Output:
    """The folder of an average, which takes nothing of anyone else's away.

    `model.safetensors` where the checkpoints are a pretrained model's, beside what
    `from_pretrained` needs; else `swa.safetensors`. `average.json` says what went in.
    """

    def __init__(self, path: Path, chosen: Chosen) -> None:
        self.path = path
        self._chosen = chosen
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path} is a file; name a folder with --out.")
        holds = {p.name for p in path.iterdir()} if path.is_dir() else set()
        if holds and RECORD not in holds:
            raise StoreError(
                f"{path} is not empty, and no earlier average; name another folder with --out."
            )
        adapter = chosen.last.path.name.startswith("adapter")
        name = "adapter_model" if adapter else "model" if chosen.pretrained else "swa"
        self.model = path / f"{name}.safetensors"

    def record(self, **what: Any) -> None:
        """Says in average.json what went in; written first, it marks the folder as ours."""
        files = [{"file": str(c.path), "step": c.step} for c in self._chosen.checkpoints]
        body = {**what, "checkpoints": files}
        write_text(self.path / RECORD, json.dumps(body, indent=1) + "\n")

    def clear(self) -> None:
        """Takes an earlier average's files away, of which this one may have no successor."""
        for name in ("swa.safetensors", "ema.safetensors", "swag.safetensors", "comparison.json"):
            (self.path / name).unlink(missing_ok=True)

    def save(self, name: str, tensors: dict[str, Tensor]) -> Path:
        """Writes weights under the model's own names; "swa" is the model itself."""
        path = self.model if name == "swa" else self.path / f"{name}.safetensors"
        notes = {"format": "pt", "lowland": f"{name} of {self._chosen.span()}"}
        write_tensors(path, tensors, notes)  # transformers insists on the format
        return path

    def finish(self) -> None:
        """Copies what `from_pretrained` needs; whoever could read the checkpoints can read it."""
        for file in self.path.glob("*.safetensors"):
            shutil.copymode(self._chosen.last.path, file)
        if not self._chosen.pretrained:
            return
        for pattern in _COMPANIONS:
            for file in sorted(self._chosen.last.path.parent.glob(pattern)):
                if not any(file.match(p) for p in _LEFT):
                    shutil.copyfile(file, self.path / file.name)


def _parts(layout: ParamLayout) -> list[tuple[str, int, int]]:
    """Tensors and values by the first components of their names, as many as tell some apart."""
    for depth in (1, 2, 3):
        found: dict[str, tuple[int, int]] = {}
        for entry in layout.entries:
            name = ".".join(entry.name.split(".")[:depth])
            count, size = found.get(name, (0, 0))
            found[name] = (count + 1, size + entry.size)
        if len(found) > 1:
            break
    shown = [(name, *found[name]) for name in sorted(found, key=natural)]
    return shown[:12] if len(shown) <= 12 else [*shown[:11], _joined(shown[11:])]


def _joined(parts: list[tuple[str, int, int]]) -> tuple[str, int, int]:
    return f"{len(parts)} more", sum(p[1] for p in parts), sum(p[2] for p in parts)
