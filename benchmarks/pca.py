"""Principal components of K = 100 iterates of 1M weights, against scikit-learn's randomized SVD.

Each is also compared with a float64 SVD of the centred iterates: by the sine of the largest angle
between the subspaces of the first five components.
"""

from __future__ import annotations

import statistics

import numpy as np
import torch
from common import Row, paired, ratio, report
from sklearn.decomposition import PCA
from torch import Tensor

import lowland as ll

K, SIZE, RANK = 100, 1_000_000, 5
TOLERANCE = 1e-5


def walk() -> Tensor:
    """Iterates (K, P) that drift and scatter around a point far from zero, as those of SGD do."""
    generator = torch.Generator().manual_seed(0)
    steps = 0.01 * torch.randn(K, SIZE, generator=generator)
    start = torch.randn(SIZE, generator=generator)
    return (0.1 * steps.cumsum(0)).add_(steps).add_(start)


def exact(iterates: Tensor) -> np.ndarray:
    """The first directions (RANK, P) by a float64 SVD, of the triangle that QR leaves."""
    wide = iterates.double()
    wide -= wide.mean(0)
    q, r = torch.linalg.qr(wide.T)
    u = torch.linalg.svd(r).U[:, :RANK]
    return (q @ u).T.numpy()


def sine(found: np.ndarray, reference: np.ndarray) -> float:
    """Of the largest principal angle, by what is left of the directions outside of the others."""
    rows = np.linalg.qr(found.astype(np.float64).T)[0].T
    rest = rows - (rows @ reference.T) @ reference
    return float(np.linalg.norm(rest, 2))


def rows() -> list[Row]:
    iterates = walk()
    array = iterates.numpy()
    theirs = PCA(n_components=RANK, svd_solver="randomized", random_state=0)
    slow, fast = paired(
        lambda: theirs.fit(array), lambda: ll.Subspace.pca(iterates, rank=RANK), rounds=3, warm=1
    )
    reference = exact(iterates)
    ours = sine(ll.Subspace.pca(iterates, rank=RANK).basis.numpy(), reference)
    others = sine(theirs.components_, reference)
    shape = f"K = {K}, P = {SIZE // 1_000_000}M, {RANK} components"
    times = [statistics.median(found) for found in (slow, fast)]
    return [
        Row(
            "scikit-learn's randomized SVD",
            f"Subspace.pca, {shape}",
            ratio(slow, fast),
            ">= 3",
            f"{times[0]:.2f} s against {times[1]:.2f} s",
        ),
        Row(
            f"largest angle of Subspace.pca from a float64 SVD, {shape}",
            f"{TOLERANCE:.0e}",
            ours / TOLERANCE,
            "<= 1",
            f"sine {ours:.1e}; of scikit-learn's {others:.1e}",
        ),
    ]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    report(rows())
