"""A sequence of SGD iterates in files, and what is computed from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lowland.core.layout import ParamLayout
from lowland.core.point import Point
from lowland.errors import LayoutError, LowlandError, NonFiniteError
from lowland.geometry import Subspace
from lowland.geometry.rank import Rank
from lowland.posteriors import Ensemble
from lowland.progress import Progress, reporting
from lowland.trajectory.journal import Iterate
from lowland.trajectory.moments import Moments
from lowland.trajectory.swa import SWA
from lowland.trajectory.swag import SWAG


class Iterates(ABC):
    """A sequence of `Point`s that are mapped into memory one at a time.

    Args:
        path: their folder. layout: of their model. iterates: where each lies.
    """

    def __init__(self, path: Path, layout: ParamLayout, iterates: list[Iterate]) -> None:
        self.path = path
        self.layout = layout
        self.iterates = iterates

    @abstractmethod
    def __getitem__(self, i: int) -> Point:
        """Iterate i."""

    def _source(self, i: int) -> Point | Mapping[str, Tensor]:
        """Iterate i as averages read it."""
        return self[i]

    def _position(self, i: int) -> int:
        """The place of iterate i, which may be counted from the end."""
        if not -len(self) <= i < len(self):
            raise IndexError(f"iterate {i} of {len(self)}")
        return i % len(self)

    def __len__(self) -> int:
        return len(self.iterates)

    def __iter__(self) -> Iterator[Point]:
        return (self[i] for i in range(len(self)))

    @property
    def steps(self) -> list[int]:
        """The step of each iterate."""
        return [iterate.step for iterate in self.iterates]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The recorded metrics of each iterate."""
        return [iterate.metrics for iterate in self.iterates]

    def swa(self) -> Tensor:
        """The average of all iterates, (P,), weights alone: see `SWA` and `average`."""
        return self.average().weights

    def average(self) -> Point:
        """The same with the buffers that belong to it."""
        swa = SWA(self.layout)
        self.into(swa)
        return swa.point

    def swag(self, *, rank: int = 20, deviations_dtype: torch.dtype | None = None) -> SWAG:
        """The moments of all iterates: see `SWAG`."""
        swag = SWAG(self.layout, rank=rank, deviations_dtype=deviations_dtype)
        self.into(swag)
        return swag

    def into(self, *moments: Moments, progress: Progress = False) -> None:
        """Updates averages such as `SWA` and `EMA` with every iterate, in one pass over the files.

        Raises:
            NonFiniteError, LayoutError: an iterate that cannot be averaged; it names the file.
        """
        self._require()
        with reporting(progress, "average") as report:
            for i, iterate in enumerate(self.iterates):
                source = self._source(i)
                for one in moments:
                    try:
                        one.update(source)
                    except (NonFiniteError, LayoutError) as error:
                        raise type(error)(f"{iterate.file}: {error}") from None
                report(i + 1, len(self))

    def pca(self, *, rank: Rank = 5) -> Subspace:
        """The subspace of the iterates' first principal components: see `Subspace.pca`."""
        self._require()
        return Subspace.pca(self, rank=rank)

    def ensemble(self) -> Ensemble:
        """The iterates as an ensemble, read from disk one by one."""
        self._require()
        return Ensemble(self)  # type: ignore[arg-type]  # a sequence in all that Ensemble uses

    def _require(self) -> None:
        if not self.iterates:
            raise LowlandError(f"{self.path} holds no iterate yet; append some.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} iterates)"
