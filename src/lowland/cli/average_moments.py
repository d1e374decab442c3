"""Artifacts of running moments: SWA, EMA and SWAG of checkpoints on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowland.artifacts import Artifact, Checkpoint, Inputs, Source
from lowland.cli.average_metrics import AverageEvaluator
from lowland.cli.checkpoints import CheckpointSelection
from lowland.cli.contents import Contents
from lowland.core import ParamLayout
from lowland.progress import Report
from lowland.trajectory import SWAG, Trajectory
from lowland.trajectory.iterates import Iterates
from lowland.trajectory.moments import Moments

IN_MEMORY = 1 << 30  # bytes of SWAG's deviations; more of them are mapped to a file
SAVE_SECONDS = 30.0  # at least, between two states on disk
_SAVE_SHARE = 10  # times as long as saving takes, at least: a state may be as large as the result
_FILE = "moments.safetensors"
_SMALL = ParamLayout.from_spec({"parameters": [["w", [1], "float32"]], "aliases": {}})


@dataclass(frozen=True)
class CheckpointSet:
    """The checkpoints that are averaged, read in one way.

    Attributes:
        last: the contents of the last one. layout: of the tensors that are averaged. where: which
            these are. sources: the checkpoints as inputs of artifacts.
    """

    selection: CheckpointSelection
    last: Contents
    layout: ParamLayout
    where: str | None
    sources: Sequence[Source]

    def trajectory(self, first: int, stop: int) -> Iterates:
        """Some of them, in their order."""
        return Trajectory.from_checkpoints(
            [each.path for each in self.selection.checkpoints[first:stop]],
            self.layout,
            key=self.selection.key,
            prefix=self.selection.prefix,
        )


class CheckpointMean(Artifact):
    """The SWA or EMA of checkpoints, from which the weights for people are written.

    Args:
        name: "swa" or "ema". moments: the class. arguments: of the class. evaluator: None where
            there is no model: statistics are then not estimated.

    Raises:
        ConfigError: wrong arguments.
    """

    kind = "mean"
    intermediate = True

    def __init__(
        self,
        checkpoints: CheckpointSet,
        evaluator: AverageEvaluator | None,
        name: str,
        moments: type[Moments],
        **arguments: Any,
    ) -> None:
        self.checkpoints = checkpoints
        self.evaluator = evaluator
        self.moments = moments
        self.arguments = arguments
        self.permissions = checkpoints.selection.permissions
        moments(_SMALL, **arguments)  # wrong arguments, before anything is written
        super().__init__(
            f"moments/{name}",
            [*checkpoints.sources, *([] if evaluator is None else evaluator.statistics())],
            {
                **arguments,
                "checkpoints": [each.name for each in checkpoints.sources],
                "where": checkpoints.where,
                "key": checkpoints.selection.key,
                "prefix": checkpoints.selection.prefix,
                "statistics": {} if evaluator is None else evaluator.statistics_settings(),
            },
            title=f"average: {moments.__name__}",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Moments:
        try:
            moments = self._new(checkpoint)
            self._take_checkpoints(moments, checkpoint, progress)
        except BaseException:
            self._remove_mapped(checkpoint)
            raise
        if self.evaluator is not None:
            moments.refresh(self.evaluator.surface)
        return moments

    def _new(self, checkpoint: Checkpoint) -> Moments:
        return self.moments(self.checkpoints.layout, **self.arguments)

    def _remove_mapped(self, checkpoint: Checkpoint) -> None:
        """Removes what an unfinished average leaves on disk and does not resume from."""

    def _take_checkpoints(self, moments: Moments, checkpoint: Checkpoint, progress: Report) -> None:
        """Updates moments with each checkpoint; a stopped pass goes on from its last state."""
        same = {"fingerprint": self.fingerprint}
        state = checkpoint.load(kind=self.kind, same=same, form=dict[str, Any])
        if state is not None:
            with checkpoint.restoring(self.kind):
                moments.load_state_dict(state)
        total = len(self.checkpoints.sources)
        saved, seconds = time.monotonic(), 0.0
        for i in range(moments.count, total):
            self.checkpoints.trajectory(i, i + 1).into(moments)
            progress(i + 1, total)
            now = time.monotonic()
            if now - saved > max(SAVE_SECONDS, _SAVE_SHARE * seconds):
                checkpoint.save(moments.state_dict(), kind=self.kind, same=same)
                saved = time.monotonic()
                seconds = saved - now

    def save(self, result: Moments, folder: Path) -> None:
        result.save(folder / _FILE)

    def load(self, folder: Path) -> Any:
        return self.moments.load(folder / _FILE, layout=self.checkpoints.layout, mapped=True)


class CheckpointSWAG(CheckpointMean):
    """SWAG of checkpoints; its file is the one that people get."""

    kind = "swag"
    intermediate = False

    def __init__(
        self, checkpoints: CheckpointSet, evaluator: AverageEvaluator | None, *, rank: int
    ) -> None:
        rank = min(rank, len(checkpoints.sources))
        super().__init__(checkpoints, evaluator, "swag", SWAG, rank=rank)

    @property
    def rank(self) -> int:
        """Of its covariance, the diagonal apart."""
        rank: int = self.arguments["rank"]
        return rank

    def view(self) -> Mapping[str, str]:
        return {_FILE: "swag.safetensors"}

    def _new(self, checkpoint: Checkpoint) -> SWAG:
        layout = self.checkpoints.layout
        large = self.rank * layout.size * layout.dtype.itemsize > IN_MEMORY
        return SWAG(layout, rank=self.rank, path=_mapped_file(checkpoint) if large else None)

    def _remove_mapped(self, checkpoint: Checkpoint) -> None:
        file = _mapped_file(checkpoint)
        if file is not None:
            file.unlink(missing_ok=True)


def _mapped_file(checkpoint: Checkpoint) -> Path | None:
    return checkpoint.file("deviations.tmp")
