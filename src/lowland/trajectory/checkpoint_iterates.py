"""The checkpoints of a training run as a sequence of iterates."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from lowland.core.layout import ParamLayout
from lowland.core.point import Point
from lowland.errors import LayoutError, StoreError
from lowland.files import PathLike
from lowland.trajectory.checkpoint_files import find_checkpoints
from lowland.trajectory.checkpoint_tensors import match_layout, read_checkpoint
from lowland.trajectory.iterates import Iterates
from lowland.trajectory.journal import Iterate


class CheckpointIterates(Iterates):
    """What `Trajectory.from_checkpoints` returns: the files are only read.

    Args:
        files: files, a pattern or a folder, in order of their steps or else as they were given.
        key, prefix: where in a file the network is.
    """

    def __init__(
        self,
        files: PathLike | Iterable[PathLike],
        layout: ParamLayout,
        *,
        key: str | None = None,
        prefix: str | None = None,
    ) -> None:
        checkpoints = find_checkpoints(files)
        steps = [c.step for c in checkpoints]
        if None in steps or len(set(steps)) < len(steps):
            steps = list(range(len(checkpoints)))
        iterates = [
            Iterate(str(c.path), step or 0) for c, step in zip(checkpoints, steps, strict=True)
        ]
        folders = [c.path.resolve().parent for c in checkpoints]
        super().__init__(Path(os.path.commonpath(folders)), layout, iterates)
        self.key, self.prefix = key, prefix

    def __getitem__(self, i: int) -> Point:
        i = self._position(i)
        tensors = self._source(i)
        try:
            weights = self.layout.flatten(tensors)
        except LayoutError as error:
            raise LayoutError(f"{self.iterates[i].file}: {error}") from None
        return Point(weights, self.layout.state_of(tensors))

    def _source(self, i: int) -> dict[str, Tensor]:
        """A checkpoint under the layout's names, read from the mapped file, never as one more
        vector."""
        file = self.iterates[i].file
        tensors = read_checkpoint(file, key=self.key, prefix=self.prefix)
        try:
            return match_layout(tensors, self.layout)
        except LayoutError as error:
            raise LayoutError(f"{file}: {error}") from None

    def append(self, source: Any, **options: Any) -> NoReturn:
        """Raises `StoreError`, as `rewind` does."""
        raise StoreError(
            f"the checkpoint files in {self.path} are only read; create a trajectory to write."
        )

    rewind = append
