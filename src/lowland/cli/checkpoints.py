"""Checkpoints for the command line: chosen, looked into, and an average written as they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from lowland.cli.console import say
from lowland.cli.contents import Contents, report
from lowland.cli.tables import print_table
from lowland.core import ParamLayout
from lowland.core.names import name_filter
from lowland.errors import ConfigError, StoreError
from lowland.files import write_text
from lowland.schema import parse_json, require
from lowland.tensor_files import write_tensors
from lowland.trajectory.checkpoints import (
    WEIGHTS,
    Checkpoint,
    find_checkpoints,
    in_order,
    natural,
)
from lowland.trajectory.formats import layout_of, read_stored, require_alike
from lowland.trajectory.kinds import kinds_of, require_constant
from lowland.trajectory.quantized import dequantize, quantized
from lowland.trajectory.spectral import singular_vectors, spectral_norms
from lowland.trajectory.torch_files import Stored

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
    choice: str | None = None  # which of several sets of weights in the files is meant, in words

    @property
    def last(self) -> Checkpoint:
        """The one that gives what is not averaged."""
        return self.checkpoints[-1]

    @property
    def pretrained(self) -> bool:
        """Whether they are folders that `from_pretrained` reads."""
        beside = [self.last.path.with_name(name) for name in ("config.json", "adapter_config.json")]
        return self.last.path.name in WEIGHTS and any(file.is_file() for file in beside)

    def read(self, checkpoint: Checkpoint) -> Stored:
        """One of them as its file has it, mapped into memory."""
        return read_stored(checkpoint.path, key=self.key, prefix=self.prefix)

    def check(self, where: str | None = None) -> Contents:
        """What is in the last; raises `LayoutError` unless all have its names and shapes, and
        nothing that `where` takes is a weight without a mean."""
        stored = self.read(self.last)
        tensors = dequantize(stored.tensors, source=self.last.path)
        kinds, wanted = kinds_of(tensors), name_filter(where)
        taken = {name: kind for name, kind in kinds.items() if wanted(name)}
        for one in self.checkpoints[:-1]:
            other, names = self.read(one).tensors, (self.last.path, one.path)
            require_alike(stored.tensors, other, names=names)
            require_constant(stored.tensors, other, taken, names=names)
        return Contents(tensors, kinds, tuple(quantized(stored.tensors)), stored.left_out)

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
    chosen = Chosen(found if last is None else found[-last:], key, prefix)
    stored = chosen.read(chosen.last)
    if stored.choice is None:
        return chosen
    return replace(chosen, key=stored.key, choice=stored.choice)  # the same in every file


def inspect(chosen: Chosen, where: str | None, console: Console) -> None:
    """Prints what is there, then raises `LayoutError` if it does not fit together."""
    folder = os.path.commonpath([c.path.parent for c in chosen.checkpoints])
    say(console, f"In {folder}:")
    columns: dict[str, list[str]] = {"step": [], "tensors": [], "values": [], "dtypes": []}
    for one in chosen.checkpoints:
        tensors = chosen.read(one).tensors.values()
        dtypes = dict.fromkeys(str(t.dtype).removeprefix("torch.") for t in tensors)
        columns["step"].append("?" if one.step is None else str(one.step))
        columns["tensors"].append(str(len(tensors)))
        columns["values"].append(f"{sum(t.numel() for t in tensors):,}")
        columns["dtypes"].append(", ".join(dtypes))
    files = [os.path.relpath(one.path, folder) for one in chosen.checkpoints]
    print_table(columns, console, rows="file", labels=files)
    last = chosen.check(where)
    layout = layout_of(last.tensors, where=where, kinds=last.kinds)
    say(console, f"To average: P = {layout.size:,} in {tensors_of(len(layout.names))}.")
    for name, count, size in _parts(layout):
        say(console, f"  {name}: {tensors_of(count)}, {size:,} values")
    report(last.outcomes(layout), console)
    say(console, "They fit together.")


def tensors_of(count: int) -> str:
    """1 tensor, 2 tensors."""
    return "1 tensor" if count == 1 else f"{count} tensors"


def merged(
    layout: ParamLayout, w: Tensor, last: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A checkpoint like the last one, with the averages and the buffers that belong to them.

    `buffers`: of the averaged model, where a model is at hand. Each tensor keeps the last
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

    def finish(self, *, dequantized: bool = False) -> None:
        """Copies what `from_pretrained` needs; whoever could read the checkpoints can read it.

        `dequantized`: the configuration must not announce quantised weights.
        """
        for file in self.path.glob("*.safetensors"):
            shutil.copymode(self._chosen.last.path, file)
        if not self._chosen.pretrained:
            return
        for pattern in _COMPANIONS:
            for file in sorted(self._chosen.last.path.parent.glob(pattern)):
                if not any(file.match(p) for p in _LEFT):
                    shutil.copyfile(file, self.path / file.name)
        config = self.path / "config.json"
        if dequantized and config.is_file():
            settings = parse_json(config.read_bytes(), source=config)
            require(settings, dict[str, Any], source=config)
            settings.pop("quantization_config", None)
            write_text(config, json.dumps(settings, indent=2) + "\n")


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
