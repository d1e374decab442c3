"""A random matrix with a row for each weight, too large to hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lowland import checks
from lowland.core.seeds import stream
from lowland.posteriors.noise import in_parallel

CHUNK = 1 << 14  # rows at a time: 6.5 MB at 100 columns
CACHED_ENTRIES = 1 << 26  # of a matrix whose chunks stay in memory: 256 MB


class RandomMatrix:
    r"""\(A \in R^{P \times k}\) with standard normal entries.

    100 columns of 36.5 million weights would be 14.6 GB. Chunks of rows come from (seed, number of
    the chunk) and are made anew for each product, on as many threads as torch uses; those of a
    matrix of at most `CACHED_ENTRIES` entries stay in memory.

    Raises:
        ConfigError: more columns than rows.

    >>> a, v = RandomMatrix(3, 2, seed=0), torch.ones(3).double()
    >>> dense = torch.stack([a.times(z) for z in torch.eye(2).double()], dim=1)
    >>> torch.allclose(a.pseudo_inverse_times(v), torch.linalg.pinv(dense) @ v)
    True
    """

    def __init__(self, rows: int, columns: int, *, seed: int) -> None:
        self.rows = rows
        self.columns = checks.whole(
            "subspace", columns, least=1, most=rows, hint="the model has no more weights"
        )
        self.seed = seed
        self._blocks: dict[int, Tensor] = {}

    def times(self, z: Tensor) -> Tensor:  # (k,) -> (P,)
        """A z, on the CPU, in z's dtype."""
        out = torch.empty(self.rows, dtype=z.dtype)

        def fill(part: slice, block: Tensor) -> None:
            torch.mv(block.to(z.dtype), z, out=out[part])

        self._for_each_block(fill)
        return out

    def transposed_times(self, v: Tensor) -> Tensor:  # (P,) -> (k,)
        """A^T v, in float64."""
        v = v.cpu()
        sums = torch.empty(-(-self.rows // CHUNK), self.columns, dtype=torch.float64)

        def fill(part: slice, block: Tensor) -> None:
            sums[part.start // CHUNK] = block.double().T @ v[part].double()

        self._for_each_block(fill)
        return sums.sum(0)

    def gram(self) -> Tensor:  # (k, k)
        """A^T A, in float64."""
        total = torch.zeros(self.columns, self.columns, dtype=torch.float64)
        for start in range(0, self.rows, CHUNK):
            block = self._block(start).double()
            total += block.T @ block
        return total

    def pseudo_inverse_times(self, v: Tensor) -> Tensor:  # (P,) -> (k,)
        """A^+ v in float64, by the normal equations, which are well conditioned for k << P."""
        root = torch.linalg.cholesky(self.gram())
        return torch.cholesky_solve(self.transposed_times(v)[:, None], root)[:, 0]

    def _block(self, start: int) -> Tensor:  # (rows of the chunk, k)
        if start in self._blocks:
            return self._blocks[start]
        size = min(CHUNK, self.rows - start)
        generator = stream("random matrix", self.seed, start // CHUNK)
        block = torch.randn(size, self.columns, generator=generator)
        if self.rows * self.columns <= CACHED_ENTRIES:
            self._blocks[start] = block
        return block

    def _for_each_block(self, work: Callable[[slice, Tensor], None]) -> None:
        def one(start: int) -> None:
            work(slice(start, min(start + CHUNK, self.rows)), self._block(start))

        in_parallel(one, range(0, self.rows, CHUNK))
