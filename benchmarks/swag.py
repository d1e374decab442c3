"""SWAG on the parameters of VGG-16-BN: an update, a draw, and peak memory.

The reference works like the published code (swa_gaussian, 2019), tensor by tensor: each update
concatenates the (K, P) factor anew, and each draw concatenates the factors of the layers.
"""

from __future__ import annotations

import subprocess
import sys

import torch
from common import VGG16BN, Row, ms, paired, peak_bytes, ratio, report

from lowland import SWAG, ParamLayout

RANK = 20


class Reference:
    """The update and the draw of swa_gaussian, without its modules and device copies."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        self.parameters = parameters
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.ones_like(p) for p in parameters]
        self.factors = [1e-3 * torch.randn(RANK, p.numel()) for p in parameters]
        self.count = RANK

    def update(self) -> None:
        n = self.count
        for i, parameter in enumerate(self.parameters):
            mean = self.means[i] * n / (n + 1) + parameter / (n + 1)
            square = self.squares[i] * n / (n + 1) + parameter**2 / (n + 1)
            deviation = (parameter - mean).view(1, -1)
            factor = torch.cat((self.factors[i], deviation), 0)[-RANK:]
            self.means[i], self.squares[i], self.factors[i] = mean, square, factor
        self.count += 1

    def draw(self) -> torch.Tensor:
        mean = torch.cat([m.view(-1) for m in self.means])
        square = torch.cat([s.view(-1) for s in self.squares])
        variance = torch.clamp(square - mean**2, 1e-30)
        diagonal = variance.sqrt() * torch.randn_like(variance)
        factor = torch.cat(self.factors, 1)
        low_rank = factor.t().matmul(torch.randn(RANK)) / (RANK - 1) ** 0.5
        return mean + 0.5**0.5 * (diagonal + low_rank)


def times() -> list[Row]:
    model = VGG16BN()
    parameters = [p.detach() for p in model.parameters()]
    layout = ParamLayout(model)
    swag = SWAG(layout, rank=RANK)
    for _ in range(RANK + 1):  # the ring is full
        for p in parameters:
            p += 1e-3 * torch.randn_like(p)
        swag.update(model)
    post = swag.posterior()
    reference = Reference(parameters)
    vectors = [torch.randn(layout.size) for _ in range(6)]

    def move() -> None:
        """Reads 3 P floats and writes 3 P: as many as w, mean, variance and a deviation need."""
        for source, target in zip(vectors[:3], vectors[3:], strict=True):
            target.copy_(source)

    size = f"P = {layout.size / 1e6:.1f}M, rank {RANK}"
    update, moves = paired(lambda: swag.update(model), move, rounds=21)
    fast, slow = paired(lambda: swag.update(model), reference.update, rounds=5)
    while swag.count <= 64:
        swag.update(model)
    late, late_moves = paired(lambda: swag.update(model), move, rounds=21)
    draw, reference_draw = paired(lambda: post.draw(0), reference.draw, rounds=5)
    return [
        Row(
            f"SWAG update, {size}",
            "moving 6 P floats",
            ratio(update, moves),
            "<= 1.3",
            f"{ms(update)} against {ms(moves)}",
        ),
        Row(
            f"SWAG update from the 65th iterate on, {size}",
            "moving 6 P floats",
            ratio(late, late_moves),
            "<= 2.2",
            f"{ms(late)} against {ms(late_moves)}; rounding is carried from update to update",
        ),
        Row(
            "concatenating the factor at each update",
            "SWAG update",
            ratio(slow, fast),
            ">= 6",
            f"{ms(slow)} against {ms(fast)}",
        ),
        Row(
            "joining per-layer factors, then a matvec",
            f"SWAG draw, {size}",
            ratio(reference_draw, draw),
            ">= 4",
            f"{ms(reference_draw)} against {ms(draw)}",
        ),
    ]


def memory(dtype: str) -> None:
    """Prints the peak memory that collecting and drawing add to that of the model, and P."""
    model = VGG16BN()
    layout = ParamLayout(model)
    before = peak_bytes()
    swag = SWAG(layout, rank=RANK, deviations_dtype=dtype)
    for _ in range(66):  # from the 65th on there is one more vector
        swag.update(model)
    post = swag.posterior()
    for i in range(3):
        post.draw(i)
    print(peak_bytes() - before, layout.size)


def peaks() -> list[Row]:
    rows = []
    for dtype, share, reach in (("float32", 1, "<= 1.1"), ("bfloat16", 0.5, "<= 0.62")):
        out = subprocess.run(
            [sys.executable, __file__, "--peak", dtype], capture_output=True, text=True, check=True
        )
        peak, size = map(int, out.stdout.split())
        rows.append(
            Row(
                f"peak memory of SWAG and its draws, deviations in {dtype}",
                "(K + 3) P floats",
                peak / (4 * size * (RANK + 3)),
                reach,
                f"{peak / 1e9:.2f} GB; (K x {share} + 3) P would be "
                f"{4 * size * (RANK * share + 3) / 1e9:.2f} GB",
            )
        )
    return rows


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    if "--peak" in sys.argv:
        memory(sys.argv[-1])
    else:
        report(times() + peaks())
