"""Averages by powers of time, and their snapshots, from which other widths are reconstructed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.core.point import Point
from lowland.errors import ConfigError, StoreError
from lowland.files import PathLike
from lowland.trajectory.moments import Moments
from lowland.trajectory.store import Trajectory

WIDEST = 12**-0.5  # of a uniform profile: a number uniform on (0, 1) has this standard deviation
_FOLDER = "width-"


def power_exponent(width: float) -> float:
    r"""\(\gamma \ge 0\) of the profile \(\tau^\gamma\) whose standard deviation is `width` times
    the length of training.

    \(\sigma_{rel} = (\gamma + 1)^{1/2} (\gamma + 2)^{-1} (\gamma + 3)^{-1/2}\), solved for
    \(\gamma\) as a cubic.

    >>> round(power_exponent(0.05), 2), round(power_exponent(0.10), 2)
    (16.97, 6.94)
    """
    width = checks.number("width", width, above=0, most=WIDEST)
    square = width**-2
    return max(0.0, float(np.roots([1.0, 7.0, 16.0 - square, 12.0 - square]).real.max()))


class PowerEMA(Moments):
    r"""The average \(\frac{\gamma + 1}{t^{\gamma + 1}} \int_0^t \tau^\gamma w(\tau)\, d\tau\) of
    the iterates so far (Karras et al. 2024).

    \(m \leftarrow \beta_t m + (1 - \beta_t) w\) with \(\beta_t = (1 - 1/t)^{\gamma + 1}\): a moving
    average whose window grows with training, so that the first iterates are forgotten and no decay
    has to fit the length of the run. Update it after every step of the optimizer. Buffers are those
    of the last iterate.

    Args:
        layout: of the model whose iterates are averaged.
        width: the profile's standard deviation as a share of training, up to 0.288 for the uniform
            average; 0.05 averages over about the last tenth.
        device: where the average lives; None: the CPU.

    >>> ema = PowerEMA(ParamLayout(nn.Linear(1, 1, bias=False)), width=12**-0.5)  # uniform
    >>> for value in (1.0, 2.0, 6.0):
    ...     ema.update(torch.tensor([value]))
    >>> ema.mean
    tensor([3.])
    """

    def __init__(
        self,
        layout: ParamLayout,
        *,
        width: float = 0.1,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(layout, device=device)
        self.exponent = power_exponent(width)
        self.width = width

    def _settings(self) -> dict[str, Any]:
        return {"width": self.width}

    def _share(self) -> float:
        if self.count == 1:
            return 1.0
        return -math.expm1((self.exponent + 1) * math.log1p(-1 / self.count))

    def _buffer_share(self) -> float:
        return 1.0  # as of `EMA`


class PostHocEMA:
    """Two `PowerEMA`s, and snapshots of both on disk: `post_hoc_ema` makes the average of any
    width between theirs, and of wider ones, after training (Karras et al. 2024).

    A target of a `Collector`, or of a loop that calls `update(model)` after every step.

    Args:
        path: a folder for the snapshots, a `Trajectory` for each width. One that holds some is
            continued: load the state of the last checkpoint, and later snapshots are removed.
        layout: of the model. interval: steps between snapshots: some tens in a run are enough.
        widths: of the averages. device: where these live.

    Raises:
        ConfigError: fewer than two widths, or one outside (0, 0.288]. StoreError: a folder with
            snapshots of other widths.

    >>> import tempfile
    >>> layout = ParamLayout(nn.Linear(1, 1, bias=False))
    >>> ema = PostHocEMA(tempfile.mkdtemp(), layout, interval=2)
    >>> for value in (1.0, 2.0, 3.0, 4.0):
    ...     ema.update(torch.tensor([value]))
    >>> [(width, step) for width, step, _ in ema.snapshots()]
    [(0.05, 2), (0.05, 4), (0.1, 2), (0.1, 4)]
    """

    def __init__(
        self,
        path: PathLike,
        layout: ParamLayout,
        *,
        interval: int,
        widths: Sequence[float] = (0.05, 0.1),
        device: torch.device | str | None = None,
    ) -> None:
        self.layout = layout
        self.interval = checks.whole("interval", interval, least=1)
        self.widths = sorted(set(checks.numbers("widths", widths, above=0, most=WIDEST)))
        if len(self.widths) < 2:
            raise ConfigError(
                f"widths: expected two different ones or more, got {self.widths}; other widths are "
                "reconstructed from several."
            )
        self.averages = {w: PowerEMA(layout, width=w, device=device) for w in self.widths}
        folders = {width: Path(path) / f"{_FOLDER}{width:g}" for width in self.widths}
        names = {folder.name for folder in folders.values()}
        others = sorted({p.name for p in Path(path).glob(f"{_FOLDER}*")} - names)
        if others:
            raise StoreError(
                f"{path} holds snapshots of other widths, {', '.join(others)}; name another folder."
            )
        self.stores = {
            width: Trajectory.open(folder, layout=layout)
            if folder.exists()
            else Trajectory.create(folder, layout)
            for width, folder in folders.items()
        }

    @property
    def count(self) -> int:
        """The iterates so far; of snapshots alone, the step of the last one."""
        stored = [store.steps[-1] for store in self.stores.values() if len(store)]
        return max(self.averages[self.widths[0]].count, *stored, 0)

    def update(self, source: nn.Module | Mapping[str, Tensor] | Point | Tensor) -> None:
        """Takes an iterate: see `SWA.update`; each `interval`-th makes a snapshot."""
        for width, average in self.averages.items():
            average.update(source)
            if average.count % self.interval == 0:
                self.stores[width].append(average.point, step=average.count)

    def snapshots(self) -> Iterator[tuple[float, int, Point]]:
        """(width, step, average) of every snapshot, and of the averages as they are now."""
        for width, store in self.stores.items():
            for step, point in zip(store.steps, store, strict=True):
                yield width, step, point
            average = self.averages[width]
            if average.count > (store.steps[-1] if len(store) else 0):
                yield width, average.count, average.point

    def state_dict(self) -> dict[str, Any]:
        """The averages; snapshots are on disk already."""
        return {f"{width:g}": average.state_dict() for width, average in self.averages.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a state; later snapshots are removed."""
        if state.keys() != {f"{width:g}" for width in self.widths}:
            raise ConfigError(
                f"the state has the widths {', '.join(state)}, this collector has "
                f"{', '.join(f'{width:g}' for width in self.widths)}; build it as before."
            )
        for width, average in self.averages.items():
            average.load_state_dict(state[f"{width:g}"])
            self.stores[width].rewind(average.count)
