"""The UCI regression sets with their standard splits, and the network of the papers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lowland.core import GaussianHead, Regression
from lowland.errors import ConfigError, DataError
from lowland.files import PathLike
from lowland.tensor_files import read_arrays

Split = tuple[Tensor, Tensor]


def uci(
    *,
    name: str,
    split: int = 0,
    root: PathLike = "../shared/data/uci",
    validation: float = 0.1,
    noise_variance: float | str | None = "learned",
    seed: int = 0,
) -> dict[str, Any]:
    r"""One split of a UCI regression set: features (N, d) and targets (N, 1), standardised.

    Mean and standard deviation are those of the training examples only; the code published with
    Izmailov et al. 2019 uses those of the whole set, including the test examples. The result
    contains a "task", a `Regression` with the target's mean and standard deviation, whose metrics
    are in the target's units, and as "constant" the columns that do not vary over the training
    examples: they are set to 0.

    Args:
        name: of a file `root/name.npz` with `x` (N, d), `y` (N,) and `test_mask` (splits, N), a
            row of booleans a split.
        split: which of them.
        validation: share of the examples outside of the test split to hold out, drawn by (`seed`,
            `split`); 0: training uses all of them, and there is no "validation".
        noise_variance: of the task, see `Regression`; "learned" goes with `uci_net`.

    Raises:
        ConfigError: a set or split that is not there, a share that leaves nothing. DataError: a
            file of another form.

    >>> import tempfile
    >>> root, g = tempfile.mkdtemp(), np.random.default_rng(0)
    >>> x, y = g.normal(size=(10, 2)), g.normal(5.0, size=10)
    >>> np.savez(f"{root}/tiny.npz", x=x, y=y, test_mask=np.arange(10)[None] < 2)
    >>> data = uci(name="tiny", root=root, validation=0.25)
    >>> {split: tuple(data[split][0].shape) for split in ("train", "validation", "test")}
    {'train': (6, 2), 'validation': (2, 2), 'test': (2, 2)}
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"validation: expected a share in [0, 1), got {validation}.")
    x, y, test_mask = _read(Path(root).expanduser(), name)
    if not 0 <= split < len(test_mask):
        raise ConfigError(f"split: {name} has splits 0 to {len(test_mask) - 1}, got {split}.")
    test = np.flatnonzero(test_mask[split])
    rest = np.flatnonzero(~test_mask[split])
    rest = np.random.default_rng((seed, split)).permutation(rest)
    validation_index, train = np.split(rest, [round(len(rest) * validation)])
    if len(train) < 2 or len(test) == 0 or (validation and not len(validation_index)):
        raise ConfigError(
            f"{name}, split {split}: validation={validation} gives {len(train)} examples to train "
            f"on, {len(validation_index)} to validate and {len(test)} to test; choose another "
            "share."
        )
    mean, std = x[train].mean(0), x[train].std(0)
    constant = np.ptp(x[train], axis=0) == 0  # their std may be rounding, and not 0
    target_mean, target_std = float(y[train].mean()), float(y[train].std())
    if np.ptp(y[train]) == 0:
        raise DataError(f"{name}, split {split}: every target is {y[train][0]}: nothing to learn.")

    def standardised(index: np.ndarray) -> Split:
        features = np.where(constant, 0.0, (x[index] - mean) / np.where(constant, 1.0, std))
        targets = (y[index] - target_mean) / target_std
        return torch.from_numpy(features).float(), torch.from_numpy(targets).float()[:, None]

    splits: dict[str, Any] = {
        "train": standardised(np.sort(train)),
        "test": standardised(test),
    }
    if validation:
        splits["validation"] = standardised(np.sort(validation_index))
    task = Regression(noise_variance, target_mean=target_mean, target_std=target_std)
    model = {"inputs": x.shape[1]}  # the arguments of `uci_net`
    return splits | {"task": task, "model": model, "constant": np.flatnonzero(constant).tolist()}


def _read(root: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    path = root / f"{name}.npz"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in root.glob("*.npz"))) or "none"
        raise ConfigError(f"{name}: no such set; in {root} there are: {there}.")
    try:
        arrays = read_arrays(path)
        x, y, mask = (arrays[key] for key in ("x", "y", "test_mask"))
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: expected arrays x, y and test_mask ({error}).") from error
    if x.ndim != 2 or y.shape != (len(x),) or mask.ndim != 2 or mask.shape[1] != len(x):
        raise DataError(
            f"{path}: expected x (N, d), y (N,) and test_mask (splits, N), got {x.shape}, "
            f"{y.shape} and {mask.shape}."
        )
    if mask.dtype != bool:
        raise DataError(f"{path}: expected booleans in test_mask, got {mask.dtype}.")
    x, y = x.astype(np.float64), y.astype(np.float64)
    bad = int((~np.isfinite(x)).any(1).sum() + (~np.isfinite(y)).sum())
    if bad:
        raise DataError(f"{path}: {bad} examples hold NaN or infinity; drop them.")
    return x, y, mask


def uci_net(*, inputs: int, hidden: int = 50) -> nn.Module:
    """One hidden layer of ReLU units, outputs mean and raw variance, and one learned global noise
    variance added to it: the network of Izmailov et al. 2019 for these sets.

    >>> uci_net(inputs=13)(torch.zeros(4, 13)).shape
    torch.Size([4, 2])
    """
    return GaussianHead(nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, 2)))
