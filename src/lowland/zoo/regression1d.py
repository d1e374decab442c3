"""The regression of one input to one target whose bands are figure 1 of subspace inference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowland.errors import DataError
from lowland.zoo.mlp import MLP


class Regression1dNet(nn.Module):
    """An MLP on the features x/2 and its square (Izmailov et al. 2019).

    >>> net = Regression1dNet()
    >>> sum(p.numel() for p in net.parameters()), net(torch.zeros(4, 1)).shape
    (15801, torch.Size([4, 1]))
    """

    def __init__(
        self, *, widths: Sequence[int] = (200, 50, 50, 50), activation: str = "relu"
    ) -> None:
        super().__init__()
        self.net = MLP(inputs=2, outputs=1, widths=widths, activation=activation)

    def forward(self, x: Tensor) -> Tensor:  # (N, 1) -> (N, 1)
        output: Tensor = self.net(torch.cat([x / 2, (x / 2) ** 2], dim=1))
        return output


def regression1d(path: str | Path) -> dict[str, Any]:
    """Inputs and targets (N, 1) of a `.npy` file of two columns, as {"train": (x, y)}.

    Raises:
        DataError: no such file, or one of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; give the path of the (N, 2) array of x and y.")
    table = np.load(path, allow_pickle=False)
    if table.ndim != 2 or table.shape[1] != 2:
        raise DataError(f"{path}: expected an array (N, 2) of x and y, got {table.shape}.")
    values = torch.from_numpy(table).float()
    return {"train": (values[:, :1], values[:, 1:])}
