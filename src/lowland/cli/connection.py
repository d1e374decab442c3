"""The folder of curves that join networks of finished runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from lowland.cli.folder import CONFIG, RunFolder, differences, versions
from lowland.cli.opened import Opened, open_runs
from lowland.cli.setup import Setup
from lowland.core import Point
from lowland.errors import ConfigError, StoreError
from lowland.files import write_text
from lowland.geometry import Bezier, Curve, Line, PolyChain
from lowland.landscape.ledger import print_of

SETTINGS = "connect.yaml"
KINDS: dict[str, type[Curve]] = {"line": Line, "bezier": Bezier, "chain": PolyChain}
TITLES = {
    "line": "Line",
    "aligned": "Line, aligned",
    "bezier": "Bezier curve",
    "chain": "Polygonal chain",
}


@dataclass(frozen=True)
class Joining:
    """How two networks are joined, and where the curves are looked at."""

    kinds: tuple[str, ...] = ("bezier",)
    bends: int = 1
    epochs: int = 0  # 0: as long as the networks were trained
    lr: float = 0.05
    points: int = 61
    rows: int = 10_000  # of the training rows, for loss and error along the curves
    align: bool = False  # a line to the second network with its units in the first one's order
    seed: int = 0


class Connection:
    """connect.yaml, shapes/, records/, checkpoints/, pictures/ of one pair of networks.

    Args:
        path: the folder. runs: one run, or two of the same settings but for the seed.
        ends: the names of weights, one of each run or two of one.
    """

    def __init__(
        self,
        path: Path,
        runs: Sequence[Opened],
        ends: tuple[str, str],
        *,
        setup: Setup | None = None,
    ) -> None:
        self.path = path
        self.runs = list(runs)
        self.ends = ends
        self.setup = setup or Setup(self.runs[0].config)

    @classmethod
    def open(cls, path: Path) -> Connection:
        """One that is there."""
        body = read_settings(path)
        try:
            runs = open_runs([Path(os.path.normpath(path / run)) for run in body["runs"]])
        except ConfigError as error:
            raise ConfigError(
                f"{path / SETTINGS} names runs that are not there ({error}); move them along, or "
                "connect again."
            ) from error
        return cls(path, runs, (body["ends"][0], body["ends"][1]))

    def claim(self, asked: Joining) -> None:
        """Writes connect.yaml; raises `ConfigError` where it is there with other settings."""
        file = self.path / SETTINGS
        body = self._body(asked)
        if not file.is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise StoreError(
                    f"{self.path} is not empty, and no folder of curves; name another with --out."
                )
            text = yaml.safe_dump(body | {"versions": versions()}, sort_keys=False)
            write_text(file, text)
            return
        there = read_settings(self.path)
        body = {k: v for k, v in body.items() if k != "weights" or k in there}
        # weights say more than where their runs are
        changed = differences(there, body, but={"versions", "runs"})
        if changed:
            raise ConfigError(
                f"{file} is of curves with other settings ({'; '.join(changed)}); name another "
                "folder with --out, or delete this one."
            )

    def _body(self, asked: Joining) -> dict[str, Any]:
        return {
            # from here, so that runs and curves can be moved together
            "runs": [os.path.relpath(run.folder.path, self.path) for run in self.runs],
            "ends": list(self.ends),
            "weights": [print_of(point.weights) for point in self.weights()],
            "asked": asdict(asked) | {"kinds": list(asked.kinds)},
        }

    def weights(self) -> tuple[Point, Point]:
        """The two ends, read once."""
        return self._points

    @cached_property
    def _points(self) -> tuple[Point, Point]:
        folders = [self.runs[0].folder, self.runs[-1].folder]
        found = [
            load(folder, name, self.setup) for folder, name in zip(folders, self.ends, strict=True)
        ]
        return found[0], found[1]

    def names(self) -> tuple[str, str]:
        """The ends as people say them: run and weights."""
        if len(self.runs) == 1:
            return self.ends
        first, last = (f"{r.name}/{e}" for r, e in zip(self.runs, self.ends, strict=True))
        return first, last

    def shape(self, kind: str) -> Path:
        """Where a curve lies."""
        return self.path / "shapes" / f"{kind}.safetensors"

    def curves(self) -> dict[str, Curve]:
        """The curves that are done, the line first."""
        found: dict[str, Curve] = {"line": Line(*self.weights())}
        for kind, cls in KINDS.items():
            if self.shape(kind).is_file():
                found[kind] = cls.load(self.shape(kind))
        return found

    def record(self, name: str) -> Path:
        """Where a record lies."""
        return self.path / "records" / name


def read_settings(path: Path) -> dict[str, Any]:
    """connect.yaml as it stands."""
    file = path / SETTINGS
    try:
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
        list(body["runs"]), list(body["ends"]), dict(body["asked"])
    except (OSError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise StoreError(
            f"{file}: damaged, or not of `lowland connect`; name another folder, or delete this "
            "one and connect again."
        ) from error
    return dict(body)


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


def is_connection(path: Path) -> bool:
    """Whether `lowland connect` made this folder."""
    return (path / SETTINGS).is_file() and not (path / CONFIG).is_file()
