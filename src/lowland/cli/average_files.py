"""Artifacts of what `lowland average` writes for people: weights, companions and average.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.artifacts.nodes import GRAPH
from lowland.cli.average_metrics import TABLE, ScaleTuning
from lowland.cli.average_moments import CheckpointMean, CheckpointSet
from lowland.cli.checkpoints import CheckpointSelection
from lowland.cli.contents import Outcome, reasons
from lowland.core import ParamLayout
from lowland.files import is_plain, write_json
from lowland.progress import Report
from lowland.runs.plan import FILE as PLAN
from lowland.schema import parse_json, read_json, require
from lowland.tensor_files import read_tensors, write_tensors
from lowland.trajectory.singular_vectors import singular_vectors, spectral_norms

RECORD = "average.json"
# what lies beside the weights of a Hugging Face model and is needed to load it
_COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
_LEFT = ("trainer_state.json", "*.index.json", RECORD, TABLE, GRAPH, PLAN)
_FILE = "weights.safetensors"
_FILES = "files"
_OUTCOMES = "outcomes.json"


class AverageWeights(Artifact):
    """An average under the names and in the dtypes of the checkpoints.

    Args:
        name: "swa" or "ema". place: its file in the folder.
    """

    kind = "average-weights"
    quick = True

    def __init__(
        self, checkpoints: CheckpointSet, moments: CheckpointMean, name: str, place: str
    ) -> None:
        self.checkpoints = checkpoints
        self.moments = moments
        self.permissions = moments.permissions
        self.place = place
        note = f"{name} of {checkpoints.selection.span()}"
        super().__init__(
            f"weights/{name}", [checkpoints.sources[-1], moments], {"place": place, "note": note}
        )
        self.notes = {"format": "pt", "lowland": note}  # transformers insists on the format

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> dict[str, Tensor]:
        moments = inputs[self.moments.name]
        buffers = {} if self.moments.evaluator is None else moments.buffers or {}
        return merge(self.checkpoints.layout, moments.mean, self.checkpoints.last.tensors, buffers)

    def save(self, result: dict[str, Tensor], folder: Path) -> None:
        write_tensors(folder / _FILE, result, self.notes)

    def load(self, folder: Path) -> dict[str, Tensor]:
        return read_tensors(folder / _FILE)[0]

    def view(self) -> Mapping[str, str]:
        return {_FILE: self.place}


class Companions(Artifact):
    """The files that `from_pretrained` needs beside the weights, for people to edit.

    `dequantized`: quantisation is taken out of the configuration of the model.
    """

    kind = "companions"
    quick = True
    copied = True

    def __init__(self, selection: CheckpointSelection, *, dequantized: bool) -> None:
        self.files = _companions(selection)
        self.permissions = 0o666
        for file in self.files:
            self.permissions &= file.stat().st_mode
        self.permissions |= 0o600
        contents = {file.name: file.read_bytes() for file in self.files}
        checksums = {
            name: hashlib.blake2b(content, digest_size=16).hexdigest()
            for name, content in contents.items()
        }
        self.source = Source("companions", contents, checksums)
        super().__init__("files/companions", [self.source], {"dequantized": dequantized})
        self.dequantized = dequantized

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> dict[str, bytes]:
        files: dict[str, bytes] = dict(inputs[self.source.name])
        config = "config.json"
        if self.dequantized and config in files:
            settings = parse_json(files[config], source=config)
            require(settings, dict[str, Any], source=config)
            settings.pop("quantization_config", None)
            files[config] = (json.dumps(settings, indent=2) + "\n").encode()
        return files

    def save(self, result: dict[str, bytes], folder: Path) -> None:
        (folder / _FILES).mkdir(exist_ok=True)
        for name, content in result.items():
            (folder / _FILES / name).write_bytes(content)

    def load(self, folder: Path) -> list[Path]:
        return sorted((folder / _FILES).iterdir())

    def view(self) -> Mapping[str, str]:
        return {f"{_FILES}/{file.name}": file.name for file in self.files}


class AverageRecord(Artifact):
    """average.json: what was averaged, what became of each tensor, and the scale of SWAG."""

    kind = "average-record"
    quick = True

    def __init__(
        self,
        checkpoints: CheckpointSet,
        moments: CheckpointMean,
        tuning: ScaleTuning | None,
        notes: Mapping[str, Any],
    ) -> None:
        self.checkpoints = checkpoints
        self.moments = moments
        self.tuning = tuning
        self.notes = dict(notes)
        files = [{"file": str(c.path), "step": c.step} for c in checkpoints.selection.checkpoints]
        super().__init__(
            "record",
            [moments] if tuning is None else [moments, tuning],
            {**notes, "checkpoints": files},
        )
        self.files = files

    def write(self, folder: Path, **results: Any) -> None:
        """Writes average.json; without results it marks a folder that was begun."""
        write_json(folder / RECORD, {**self.notes, **results, "checkpoints": self.files})

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> list[Outcome]:
        moments = None if self.moments.evaluator is None else inputs[self.moments.name]
        every = self.checkpoints.last.outcomes(self.checkpoints.layout, moments)
        outcomes = [each for each in every if each.names]
        tuned = {} if self.tuning is None else inputs[self.tuning.name]
        self.write(checkpoint.folder, **tuned, tensors=reasons(outcomes))
        return outcomes

    def save(self, result: list[Outcome], folder: Path) -> None:
        write_json(folder / _OUTCOMES, result)

    def load(self, folder: Path) -> list[Outcome]:
        body = read_json(folder / _OUTCOMES, list[tuple[str, list[str]]])
        return [Outcome(text, names) for text, names in body]

    def view(self) -> Mapping[str, str]:
        return {RECORD: RECORD}


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


def _companions(selection: CheckpointSelection) -> list[Path]:
    """The files beside a pretrained model's weights, each once."""
    if not selection.pretrained:
        return []
    folder = selection.last.path.parent
    files = {file.name: file for pattern in _COMPANIONS for file in folder.glob(pattern)}
    return [
        files[name]
        for name in sorted(files)
        if is_plain(name)
        and not name.startswith(".")
        and not any(files[name].match(pattern) for pattern in _LEFT)
    ]
