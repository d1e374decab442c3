"""The folder of a stage, which a command made from finished runs: a contract of three kinds."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Self, TypedDict

from rich.console import Console

from lowland.artifacts import Source
from lowland.artifacts.nodes import GRAPH
from lowland.artifacts.places import ARTIFACTS
from lowland.cli.builder import Builder
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.origins import Place, write_origins
from lowland.cli.trust import UntrustedError
from lowland.core import Point
from lowland.errors import ConfigError, StoreError
from lowland.files import require_no_way_out, require_own
from lowland.geometry import Curve
from lowland.runs.folder import CONFIG, RunFolder, versions
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.runs.sources import hash_of
from lowland.runs.stored import read_yaml, write_yaml
from lowland.schema import require
from lowland.trajectory import Trajectory

FORMAT = "lowland-stage-3"
_NAMES = "names"


class Stored(TypedDict):
    """What COMMAND.yaml holds, with the stage's own key for the names."""

    runs: list[str]
    names: list[str]
    settings: dict[str, Any]  # for people: artifacts have their own
    versions: NotRequired[dict[str, str]]


class StageFolder(ABC):
    """COMMAND.yaml, shapes/, records/, pictures/ that are made from some weights of runs.

    Args:
        path: the folder. runs: one run, or several with equal settings but for the seed.
        names: of weights: some of one run, or one of each.
    """

    command: ClassVar[str]  # of the command line, and of the settings' file
    content: ClassVar[str]  # in words
    key: ClassVar[str]  # of the names, in the settings

    def __init__(
        self,
        path: Path,
        runs: Sequence[FinishedRun],
        names: Sequence[str],
        *,
        setup: Setup | None = None,
    ) -> None:
        self.path = path.expanduser()
        self.runs = list(runs)
        self.names = tuple(names)
        self.setup = setup or self.runs[0].setup()

    @classmethod
    def default_path(cls, runs: Sequence[FinishedRun]) -> Path:
        """Inside of one run, or beside the first of several."""
        first = runs[0].folder.path
        return (first if len(runs) == 1 else first.parent) / cls.command

    @classmethod
    def open(cls, path: Path, *, trust: bool = False) -> Self:
        """A folder on disk; its runs are opened as `load_runs` does."""
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
        """The file of its settings."""
        return path / f"{cls.command}.yaml"

    @classmethod
    def is_at(cls, path: Path) -> bool:
        """Whether a path is such a folder."""
        return cls.file(path).is_file() and not (path / CONFIG).is_file()

    @classmethod
    def within(cls, run: Path) -> list[Path]:
        """The folders inside of a run, where the command puts them."""
        return [run / cls.command] if cls.is_at(run / cls.command) else []

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Its settings as they are stored."""
        file = cls.file(path)
        advice = "name another folder, or delete this one and run the command again"
        body = read_yaml(file, dict[str, Any], form=FORMAT, advice=advice)
        body[_NAMES] = body.pop(cls.key, None)
        require(body, Stored, source=file, advice=advice)
        body[cls.key] = body.pop(_NAMES)
        return body

    def claim(
        self, settings: dict[str, Any], origins: Mapping[str, Sequence[Place]] | None = None
    ) -> None:
        """Makes the folder, and writes its settings and the origins of its sources.

        `origins`: of sources besides the weights. Raises `StoreError` where it holds other files.
        """
        file = self.file(self.path)
        content, rest = f"folder of {self.content}", (GRAPH, ARTIFACTS)
        require_own(self.path, [file.name], rest=rest, content=content, option="--out")
        if file.is_file():
            self.read(self.path)  # of another version: refused
        body = {
            # relative, so that runs and their stages can be moved together
            "runs": [os.path.relpath(run.folder.path, self.path) for run in self.runs],
            self.key: list(self.names),
            "settings": settings,
            "versions": versions(),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        write_yaml(file, body, form=FORMAT)
        sources = [f"weights/{title}" for title in self.titles()]
        weights = {s: [place] for s, place in zip(sources, self.weight_files(), strict=True)}
        write_origins(self.path, {**weights, **(origins or {})})

    @property
    def run(self) -> Run:
        """The artifacts of its first run, from which others are made."""
        return Run(self.setup.config, self.setup)

    def builder(self, console: Console) -> Builder:
        """Builds its artifacts as the first run computed."""
        return Builder(self.path, console, threads=self.runs[0].plan.threads)

    def weight_files(self) -> list[Place]:
        """The files of the weights."""
        return [
            (self.run_of(i).folder.path, f"weights/{name}.safetensors")
            for i, name in enumerate(self.names)
        ]

    def run_of(self, number: int) -> FinishedRun:
        """The run of some of the weights, by their number."""
        return self.runs[number if len(self.runs) > 1 else 0]

    def sources(self) -> list[Source]:
        """The weights as inputs of artifacts."""
        return [
            Source(
                f"weights/{title}", point, {"hash": hash_of([point.weights, point.buffers or {}])}
            )
            for title, point in zip(self.titles(), self.weights, strict=True)
        ]

    @cached_property
    def weights(self) -> tuple[Point, ...]:
        """The weights, read once."""
        return tuple(
            self.run_of(i).folder.load_weights(name, self.setup.layout)
            for i, name in enumerate(self.names)
        )

    def titles(self) -> tuple[str, ...]:
        """The weights as tables name them: of several runs with the run."""
        if len(self.runs) == 1:
            return self.names
        return tuple(f"{r.name}/{n}" for r, n in zip(self.runs, self.names, strict=True))

    def shape(self, name: str) -> Path:
        """The file of a shape."""
        return self.path / "shapes" / f"{name}.safetensors"

    # -- for `lowland scan` ----------------------------------------------------------------------

    @abstractmethod
    def default_plane(self) -> list[str]:
        """The names of three weights through which a plane is drawn by default."""

    @classmethod
    @abstractmethod
    def has_name(cls, name: str) -> bool:
        """Whether `points` may have a point of this name, whatever was made."""

    @abstractmethod
    def points(self) -> dict[str, Point]:
        """Points of the shapes by the names that `--plane` takes."""

    @abstractmethod
    def overlays(self, names: Sequence[str]) -> dict[str, Curve]:
        """Curves by title that are drawn over a plane through these points."""


def one_for_each(names: Sequence[str], count: int, *, option: str) -> list[str]:
    """The names of the weights of several runs: one name for all of them, or one for each.

    >>> one_for_each(["sgd-0"], 2, option="--ends")
    ['sgd-0', 'sgd-0']
    """
    if len(names) not in (1, count):
        raise ConfigError(
            f"{option}: expected one name for all {count} runs, or one for each, got "
            f"{', '.join(names)}."
        )
    return list(names) * (count if len(names) == 1 else 1)


def open_trajectory(folder: RunFolder, name: str, setup: Setup, *, option: str) -> Trajectory:
    """The SGD iterates of a run by name."""
    try:
        return Trajectory.open(folder.path / "trajectory" / name, layout=setup.layout)
    except StoreError as error:
        raise ConfigError(f"{option}: {error} A run of the method swa keeps iterates.") from error


def words_of(text: str | None) -> list[str]:
    """The words of an option, which commas separate.

    >>> words_of("sgd-0, sgd-1"), words_of(None)
    (['sgd-0', 'sgd-1'], [])
    """
    return [word.strip() for word in (text or "").split(",") if word.strip()]
