"""The run folder: plain files, each whole or absent."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lowland.artifacts.nodes import GRAPH
from lowland.artifacts.places import ARTIFACTS, log_event
from lowland.core import ParamLayout, Point
from lowland.errors import ConfigError
from lowland.files import require_no_way_out, require_own
from lowland.runs.sections import Config
from lowland.runs.stored import read_yaml, write_yaml
from lowland.runs.weights import load_point

CONFIG = "config.yaml"
FORMAT = "lowland-run-3"


class Environment(TypedDict):
    """The versions that a run computes with."""

    versions: NotRequired[dict[str, str]]
    python: NotRequired[str]


class Stored(TypedDict):
    """What config.yaml holds."""

    settings: dict[str, Any]
    environment: Environment


class RunFolder:
    """config.yaml, artifacts/, and for people trajectory/, weights/, records/, pictures/."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def prepare(self) -> None:
        """Makes the folder; raises `StoreError` where it holds something else."""
        content = f"run folder: it holds no {CONFIG}"
        require_own(self.path, (CONFIG, GRAPH, ARTIFACTS), content=content, option="out=FOLDER")
        if (self.path / CONFIG).exists():
            self.read()  # one of another version is refused
        self.path.mkdir(parents=True, exist_ok=True)
        require_no_way_out(self.path)

    def read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of the run that is there, and its environment."""
        file = self.path / CONFIG
        advice = "put it back, or name another folder with out=FOLDER"
        body = read_yaml(file, Stored, form=FORMAT, advice=advice)
        return body["settings"], body["environment"]

    def write(self, config: Config) -> None:
        """Records the settings, and the versions."""
        environment = {"versions": versions(), "python": platform.python_version()}
        # as Python has it: JSON would make words of keys and nothing of infinity
        # the plan that was named is in the folder by now, as its own
        body = {"settings": config.model_dump(exclude={"plan"}), "environment": environment}
        write_yaml(self.path / CONFIG, body, form=FORMAT)

    def event(self, what: str, **details: Any) -> None:
        """Adds a line to events.jsonl."""
        log_event(self.path, what, **details)

    def record(self, name: str) -> Path:
        """Where a record lies."""
        return self.path / "records" / name

    def weight_names(self) -> list[str]:
        """The names of its weights."""
        return sorted(path.stem for path in (self.path / "weights").glob("*.safetensors"))

    def load_weights(self, name: str, layout: ParamLayout) -> Point:
        """Reads weights of this model, with the buffers that were saved with them.

        Raises `ConfigError`, which lists all names, where there are none of this name.
        """
        if name not in (names := self.weight_names()):
            raise ConfigError(
                f"{self.path} holds no weights {name!r}; there are {', '.join(names) or 'none'}."
            )
        folder, file = self.path / "weights", f"{name}.safetensors"
        return load_point(folder / file, folder / "buffers" / file, layout)


def versions() -> dict[str, str]:
    """Of what the last bits of a run depend on."""
    return {name: version(name) for name in ("lowland", "torch", "numpy")}
