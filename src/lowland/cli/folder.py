"""The run folder: plain files, each whole or absent."""

from __future__ import annotations

import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lowland.cli.config import Config
from lowland.core import ParamLayout, Point
from lowland.errors import ConfigError, StoreError
from lowland.files import read_tensors, write_tensors, write_text

_FREE = {"out"}  # settings that may differ when a run goes on
_BUFFER = "buffer/"


class RunFolder:
    """config.yaml, trajectory/, weights/, records/, pictures/, checkpoints/, events.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self, config: Config) -> dict[str, Any]:
        """Makes the folder, or goes on with the one that is there; gives what it ran with.

        Raises `ConfigError` where it holds a run of other settings.
        """
        file = self.path / "config.yaml"
        settings = config.model_dump(mode="json")
        if file.is_file():
            found = yaml.safe_load(file.read_text())
            theirs = found.get("settings", {})
            changed = [
                f"{key}: {theirs.get(key)} there, {value} now"
                for key, value in settings.items()
                if key not in _FREE and theirs.get(key) != value
            ]
            if changed:
                raise ConfigError(
                    f"{self.path} holds a run with other settings ({'; '.join(changed)}); name "
                    "another folder with out=FOLDER, or delete this one."
                )
            ran: dict[str, Any] = found["ran_with"]
            return ran
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise StoreError(
                f"{self.path} is not empty and not a run folder; name another with out=FOLDER."
            )
        for name in ("trajectory", "weights", "records", "pictures", "checkpoints"):
            (self.path / name).mkdir(parents=True, exist_ok=True)
        return {}

    def write_config(self, config: Config, threads: int) -> dict[str, Any]:
        """Records the settings, and what the run runs with."""
        ran = {
            "threads": threads,
            "versions": {name: version(name) for name in ("lowland", "torch", "numpy")},
            "python": platform.python_version(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        body = {"settings": config.model_dump(mode="json"), "ran_with": ran}
        write_text(self.path / "config.yaml", yaml.safe_dump(body, sort_keys=False))
        return ran

    def event(self, what: str, **details: Any) -> None:
        """Adds a line to events.jsonl."""
        line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": what, **details}
        with open(self.path / "events.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def record(self, name: str) -> Path:
        """Where a record lies."""
        return self.path / "records" / name

    def has_weights(self, name: str) -> bool:
        """Whether these weights are done."""
        return self._weights(name).is_file()

    def save_weights(self, name: str, layout: ParamLayout, point: Point, **notes: str) -> None:
        """Writes weights under the model's own names, with their buffers."""
        tensors: dict[str, Tensor] = dict(layout.unflatten(point.weights))
        tensors |= {_BUFFER + key: b for key, b in (point.buffers or {}).items()}
        tensors = {name: t.clone() for name, t in tensors.items()}
        write_tensors(self._weights(name), tensors, {"fingerprint": layout.fingerprint, **notes})

    def load_weights(self, name: str, layout: ParamLayout) -> Point:
        """Reads weights of this model."""
        tensors, _ = read_tensors(self._weights(name))
        buffers = {k.removeprefix(_BUFFER): t for k, t in tensors.items() if k.startswith(_BUFFER)}
        named = {k: t for k, t in tensors.items() if not k.startswith(_BUFFER)}
        return Point(layout.flatten(named), buffers)

    def _weights(self, name: str) -> Path:
        return self.path / "weights" / f"{name}.safetensors"


def thread_count(ran: dict[str, Any]) -> None:
    """Uses as many threads as the run started with, so that it ends with the same bits."""
    torch.set_num_threads(int(ran["threads"]))
