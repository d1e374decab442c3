"""EMA: an exponential moving average of SGD iterates."""

from __future__ import annotations

from typing import Any

import torch

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.trajectory.moments import Moments


class EMA(Moments):
    r"""Exponential moving average: \(m \leftarrow \beta m + (1 - \beta) w\), from iterate 1 on.

    Update it after every step of the optimizer. Of n iterates the first keeps a share of
    \(\beta^{n - 1}\), most of the average where n is not large beside \(1 / (1 - \beta)\). `warmup`
    takes \(\min(\beta, (1 + t) / (10 + t))\) at iterate t + 1 (TensorFlow's `num_updates`), so that
    about the last ninth of the iterates is averaged over until \(\beta\) is reached. Buffers are
    those of the last iterate.

    Args:
        layout: of the model whose iterates are averaged.
        decay: \(\beta\); about \(1 / (1 - \beta)\) iterates are averaged over.
        warmup: whether the decay grows to \(\beta\), for runs of few steps.
        device: where the average lives; None: the CPU.

    >>> from torch import nn
    >>> ema = EMA(ParamLayout(nn.Linear(1, 1, bias=False)), decay=0.5)
    >>> for value in (0.0, 1.0, 1.0):
    ...     ema.update(torch.tensor([value]))
    >>> ema.mean
    tensor([0.7500])
    """

    def __init__(
        self,
        layout: ParamLayout,
        *,
        decay: float = 0.999,
        warmup: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(layout, device=device)
        self.decay = checks.number("decay", decay, least=0, below=1)
        self.warmup = warmup

    def _settings(self) -> dict[str, Any]:
        return {"decay": self.decay, "warmup": self.warmup}

    def _share(self) -> float:
        before = self.count - 1  # iterates
        decay = min(self.decay, (1 + before) / (10 + before)) if self.warmup else self.decay
        return 1 - decay if before else 1.0

    def _buffer_share(self) -> float:
        # the early ones are those of a new network: with a tenth of them in it, a mean of inputs
        # may be many of their standard deviations off
        return 1.0
