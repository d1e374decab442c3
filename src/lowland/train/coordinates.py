"""The coordinates at which a shape is trained: a stream that depends on the seed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from lowland.core.seeds import stream
from lowland.geometry import Shape

STRATA = 64  # samples of t that are stratified together


class CoordinateStream:
    """Draws of a shape's coordinates with their coefficients, by their numbers.

    >>> from lowland.geometry import Line
    >>> line = CoordinateStream(Line(torch.zeros(1), torch.ones(1)), seed=0)
    >>> coords, coefficients = line.at(60, 8)
    >>> coords.shape, bool((coefficients == torch.cat([1 - coords, coords], 1)).all())
    (torch.Size([8, 1]), True)
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.seed = shape, seed
        self._block: tuple[int, Tensor, Tensor] | None = None

    def at(self, first: int, n: int) -> tuple[Tensor, Tensor]:
        """n coordinates (n, k), from number `first` on, and their coefficients (n, A), float64."""
        parts, done = [], first
        while done < first + n:
            block, place = divmod(done, STRATA)
            stop = min(STRATA, place + first + n - done)
            if self._block is None or self._block[0] != block:
                generator = stream("coordinates", self.seed, block)
                # on the CPU: reading them on a GPU would wait for it at every step
                coords = self.shape.sample_coords(STRATA, generator=generator).cpu()
                self._block = block, coords, self.shape.coefficients(coords)
            parts.append([values[place:stop] for values in self._block[1:]])
            done += stop - place
        if len(parts) == 1:
            return parts[0][0], parts[0][1]
        coords, coefficients = map(torch.cat, zip(*parts, strict=True))
        return coords, coefficients
