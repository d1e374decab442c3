"""A folder that is made from finished runs: its settings, shapes, records and pictures."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Self, TypedDict

from lowland.artifacts import Source
from lowland.artifacts.graph import ARTIFACTS, GRAPH
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.trust import UntrustedError
from lowland.core import Point
from lowland.errors import ConfigError, StoreError
from lowland.files import require_no_way_out
from lowland.geometry import Curve
from lowland.runs.folder import CONFIG, RunFolder, versions
from lowland.runs.setup import Setup
from lowland.runs.sources import hash_of
from lowland.runs.stored import read_yaml, write_yaml
from lowland.schema import require

FORMAT = "lowland-stage-2"
_NAMES = "names"


class Stored(TypedDict):
    """What COMMAND.yaml holds, with the stage's own key for the names."""

    runs: list[str]
    names: list[str]
    asked: dict[str, Any]
    versions: NotRequired[dict[str, str]]


class Stage(ABC):
    """COMMAND.yaml, shapes/, records/, checkpoints/, pictures/ of some networks of runs.

    Args:
        path: the folder. runs: one run, or several of the same settings but for the seed.
        names: of weights: some of one run, or one of each.
    """

    command: ClassVar[str]  # of the command line, and of the settings' file
    makes: ClassVar[str]  # what it makes, in words
    key: ClassVar[str]  # of the names, in the settings

    def __init__(
        self,
        path: Path,
        runs: Sequence[FinishedRun],
        names: Sequence[str],
        *,
        setup: Setup | None = None,
    ) -> None:
        self.path = path
        self.runs = list(runs)
        self.names = tuple(names)
        self.setup = setup or Setup(self.runs[0].config)

    @classmethod
    def open(cls, path: Path, *, trust: bool = False) -> Self:
        """One that is there; its runs are opened as `load_runs` does."""
        body = cls.read(path)
        require_no_way_out(path)
        try:
            paths = [Path(os.path.normpath(path / run)) for run in body["runs"]]
            runs = load_runs(paths, trust=trust)
        except UntrustedError:
            raise
        except ConfigError as error:
            raise ConfigError(
                f"{cls.file(path)} names runs that are not there ({error}); move them along, or "
                f"run `lowland {cls.command}` again."
            ) from error
        return cls(path, runs, body[cls.key])

    @classmethod
    def file(cls, path: Path) -> Path:
        """Where its settings stand."""
        return path / f"{cls.command}.yaml"

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether this folder is one."""
        return cls.file(path).is_file() and not (path / CONFIG).is_file()

    @classmethod
    def within(cls, run: Path) -> list[Path]:
        """Those that a run's folder holds, where the commands put them."""
        return [run / cls.command] if cls.is_at(run / cls.command) else []

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Its settings as they stand."""
        file = cls.file(path)
        advice = "name another folder, or delete this one and run the command again"
        body = read_yaml(file, dict[str, Any], form=FORMAT, advice=advice)
        body[_NAMES] = body.pop(cls.key, None)
        require(body, Stored, source=file, advice=advice)
        body[cls.key] = body.pop(_NAMES)
        return body

    def claim(self, settings: dict[str, Any]) -> None:
        """Makes the folder, and writes down what it is of; raises `StoreError` where it holds
        something else."""
        file = self.file(self.path)
        if file.is_file():
            self.read(self.path)  # of another version: refused
        elif self.path.is_dir() and {p.name for p in self.path.iterdir()} - {GRAPH, ARTIFACTS}:
            raise StoreError(
                f"{self.path} is not empty, and no folder of {self.makes}; name another with --out."
            )
        body = {
            # from here, so that runs and what is made of them can be moved together
            "runs": [os.path.relpath(run.folder.path, self.path) for run in self.runs],
            self.key: list(self.names),
            "asked": settings,
            "versions": versions(),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_yaml(file, body, form=FORMAT)

    def sources(self) -> list[Source]:
        """The networks as what artifacts are built from."""
        return [
            Source(
                f"weights/{title}", point, {"hash": hash_of([point.weights, point.buffers or {}])}
            )
            for title, point in zip(self.titles(), self.weights(), strict=True)
        ]

    def weights(self) -> tuple[Point, ...]:
        """The networks, read once."""
        return self._points

    @cached_property
    def _points(self) -> tuple[Point, ...]:
        return tuple(
            load(self.runs[i if len(self.runs) > 1 else 0].folder, name, self.setup)
            for i, name in enumerate(self.names)
        )

    def titles(self) -> tuple[str, ...]:
        """The networks as people say them: run and weights."""
        if len(self.runs) == 1:
            return self.names
        return tuple(f"{r.name}/{n}" for r, n in zip(self.runs, self.names, strict=True))

    def shape(self, name: str) -> Path:
        """Where a shape lies."""
        return self.path / "shapes" / f"{name}.safetensors"

    def record(self, name: str) -> Path:
        """Where a record lies."""
        return self.path / "records" / name

    # -- for `lowland scan` ----------------------------------------------------------------------

    @abstractmethod
    def plane(self) -> list[str]:
        """The names of the weights that a plane is drawn through where none are given."""

    @classmethod
    @abstractmethod
    def owns(cls, word: str) -> bool:
        """Whether a name is one of those that `named` gives, whatever was made."""

    @abstractmethod
    def named(self) -> dict[str, Point]:
        """Weights by the names that `--plane` knows."""

    @abstractmethod
    def drawn(self, words: Sequence[str]) -> dict[str, Curve]:
        """What is drawn over a plane through these weights."""


def load(folder: RunFolder, name: str, setup: Setup) -> Point:
    """Weights of a run by name; raises `ConfigError` that lists those that are there."""
    found = names_in(folder)
    if name not in found:
        raise ConfigError(
            f"{folder.path} holds no weights {name!r}; there are {', '.join(found) or 'none'}."
        )
    return folder.load_weights(name, setup.layout)


def names_in(folder: RunFolder) -> list[str]:
    """The names of the weights of a run."""
    return sorted(p.stem for p in (folder.path / "weights").glob("*.safetensors"))
