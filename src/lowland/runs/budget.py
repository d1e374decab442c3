"""The budget of a run: steps and epochs of its trainings, and where they branch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lowland.errors import ConfigError
from lowland.trajectory import Every

if TYPE_CHECKING:
    from lowland.runs.run import Run


_ITERATES = 20  # of a tuned trajectory at least


@dataclass(frozen=True)
class Budget:
    """The length of a run's trainings.

    Attributes:
        epoch: optimizer steps of an epoch. epochs: of SGD. start: the share of them before
            averaging starts. iterates: the steps whose iterates are averaged. cycle: steps of FGE's
            cycle.

    >>> budget = Budget(epoch=10, epochs=6, start=0.75, iterates=Every(10), cycle=20)
    >>> budget.total, budget.prefix_epochs, budget.epochs_of(1.5)
    (60, 4, 9)
    """

    epoch: int
    epochs: int
    start: float
    iterates: Every
    cycle: int

    @classmethod
    def of(cls, run: Run) -> Budget:
        """That of a configuration."""
        train, average = run.config.train, run.config.average
        epoch = math.ceil(run.setup.length() / train.accumulate)
        tuned = average.lr == "auto"
        start = average.start or (last_tenth(train.epochs) if tuned else 0.75)
        averaging = (1 - start) * train.epochs
        every = average.every or (min(1.0, averaging / _ITERATES) if tuned else 1.0)
        cycle = run.config.fge.cycle or min(2.0, averaging / 4)
        return cls(
            epoch,
            train.epochs,
            start,
            Every(max(1, round(every * epoch)), total=epoch * train.epochs, start=start),
            cycle=2 * max(1, round(cycle * epoch / 2)),
        )

    @property
    def total(self) -> int:
        """Steps of SGD."""
        return self.epoch * self.epochs

    @property
    def cycle_epochs(self) -> int:
        """Epochs that FGE's cycles take after an SWA trajectory."""
        return max(1, round(self.epochs * (1 - self.start)))

    @property
    def has_prefix(self) -> bool:
        """Whether whole epochs lie on both sides of where averaging starts."""
        return 0 < self._whole_epochs() < self.epochs

    def _whole_epochs(self) -> int:
        # rounded first: 0.55 * 100 is 55.00000000000001
        return math.floor(round(self.start * self.epochs, 6))

    @property
    def prefix_epochs(self) -> int:
        """Whole epochs before averaging starts, which trainings share.

        Raises `ConfigError` where there is none, or none is left for averaging.
        """
        epochs = self._whole_epochs()
        if not self.has_prefix:
            lacking = "averaging" if epochs else "the training before it"
            start = f", start {'earlier' if epochs else 'later'}" if self.epochs > 1 else ""
            raise ConfigError(
                f"average.start: {self.start:g} of {self.epochs} epochs leaves no whole epoch for "
                f"{lacking}; train longer{start}, or name a number as average.lr."
            )
        return epochs

    def epochs_of(self, share: float) -> int:
        """Epochs of a multiple of SGD's."""
        return round(share * self.epochs)

    def stored(self, share: float = 1.0) -> int:
        """How many iterates a trajectory of so many times SGD's epochs stores."""
        return self.iterates.count(self.epoch * self.epochs_of(share))

    def before_averaging(self) -> float:
        """The share of SGD's epochs up to the first iterate that is averaged."""
        return min(self.iterates.first_step, self.total) / self.total


def last_tenth(epochs: int) -> float:
    """The share of the epochs before their last tenth, which is rounded down to whole epochs, but
    has one at least: from 10 epochs on, averaging never takes more than a tenth of them.

    >>> [round(last_tenth(epochs) * epochs) for epochs in (5, 15, 20, 200)]
    [4, 14, 18, 180]
    """
    return 1 - max(1, epochs // 10) / epochs
