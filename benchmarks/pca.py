"""Principal components of K = 100 iterates of 1M weights, against scikit-learn's randomized SVD.

Both are also compared with a float64 SVD of the centred iterates, by the sine of the largest angle
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


def synthetic_iterates() -> Tensor:
    """Iterates (K, P) like those of SGD: a random walk plus noise around a point far from zero."""
    generator = torch.Generator().manual_seed(0)
    steps = 0.01 * torch.randn(K, SIZE, generator=generator)
    start = torch.randn(SIZE, generator=generator)
    return (0.1 * steps.cumsum(0)).add_(steps).add_(start)


def exact(iterates: Tensor) -> np.ndarray:
    """The first directions (RANK, P) by QR and a float64 SVD of its triangular factor."""
    wide = iterates.double()
    wide -= wide.mean(0)
    q, r = torch.linalg.qr(wide.T)
    u = torch.linalg.svd(r).U[:, :RANK]
    return (q @ u).T.numpy()


def sine(basis: np.ndarray, reference: np.ndarray) -> float:
    """The sine of the largest principal angle: the norm of the basis outside of the reference."""
    basis = np.linalg.qr(basis.astype(np.float64).T)[0].T
    rest = basis - (basis @ reference.T) @ reference
    return float(np.linalg.norm(rest, 2))


def main() -> list[Row]:
    iterates = synthetic_iterates()
    array = iterates.numpy()
    sklearn_pca = PCA(n_components=RANK, svd_solver="randomized", random_state=0)
    slow, fast = paired(
        lambda: sklearn_pca.fit(array),
        lambda: ll.Subspace.pca(iterates, rank=RANK),
        rounds=3,
        warm=1,
    )
    reference = exact(iterates)
    angle = sine(ll.Subspace.pca(iterates, rank=RANK).basis.numpy(), reference)
    sklearn_angle = sine(sklearn_pca.components_, reference)
    shape = f"K = {K}, P = {SIZE // 1_000_000}M, {RANK} components"
    times = [statistics.median(seconds) for seconds in (slow, fast)]
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
            angle / TOLERANCE,
            "<= 1",
            f"sine {angle:.1e}; of scikit-learn's {sklearn_angle:.1e}",
        ),
    ]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    report(main())
