"""Elliptical slice sampling of a plane of the 1-D regression, 16 chains against one by hand.

The network and the rows of Izmailov et al. 2019, figure 1 (400 rows, 200-50-50-50 units), on the
plane of their trained curve where `../shared/data` is there, else on a plane and rows like them.
The rival is written as the published sampler is: one chain, `functional_call` on one weight vector
at a time over rows that lie in memory. `ll.infer` and the rival take turns, on one thread; what is
timed is sampling alone, after planning, tracing and warming up. The published rate is of another
machine: that row is a rate of this one in units of it, and no ratio in one run. Effective samples
are the roughest of the figures: the mass lies on ridges, where a run as short as this has some tens
of them, and one chain by itself does not know what it has not seen.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from arviz_stats.base import array_stats
from common import Row, ms, paired, ratio, report
from torch import Tensor

import lowland as ll
from lowland.zoo import Regression1dNet, regression1d

DATA = Path(__file__).parents[2] / "shared" / "data"
TEMPERATURE = 0.75
PUBLISHED = 11  # samples a second of the paper's authors' sampler on this problem
CHAINS, WARMUP = 16, 100
ROUNDS = 4
SAMPLES, ALONE = 75, 250  # a round: of each of our chains, and of theirs


def problem() -> tuple[ll.LossSurface, ll.Subspace, str]:
    """The surface, a plane, and what the plane is."""
    if (DATA / "regression1d.npy").is_file():
        w = torch.from_numpy(np.load(DATA / "regression1d_curve.npy")).double()
        x, y = regression1d(DATA / "regression1d.npy")["train"]
        what = "the published plane"
    else:
        x = torch.linspace(-6, 6, 400)[:, None]
        y = 0.1 * (x / 2) ** 2 + 0.2 * torch.randn(400, 1)
        w = torch.stack([ll.ParamLayout(net).flatten(net) for net in nets(3)]).double()
        what = "a random plane"
    center = w.mean(0)
    u = (w[2] - w[0]) / 3**0.5
    v = w[1] - w[0]
    v = (v - (v @ u) / (u @ u) * u) / 1.5
    plane = ll.Subspace(center.float(), torch.stack([u, v]).float())
    surface = ll.LossSurface(Regression1dNet(), ll.Regression(noise_variance=0.05), [(x, y)])
    return surface, plane, what


def nets(n: int) -> list[Regression1dNet]:
    return [Regression1dNet() for _ in range(n)]


class Published:
    """One chain of elliptical slice sampling, in a loop over weights of the network by name."""

    def __init__(self, surface: ll.LossSurface, plane: ll.Subspace) -> None:
        self.net = Regression1dNet().eval()
        self.layout, self.task = surface.layout, surface.task
        ((args, _, self.y),) = list(surface.data)
        (self.x,) = args
        self.plane = plane
        self.generator = torch.Generator().manual_seed(0)
        self.z = torch.zeros(plane.k)
        self.evaluations = 0
        self.value = self.log_likelihood(self.z)

    @torch.no_grad()
    def log_likelihood(self, z: Tensor) -> float:
        self.evaluations += 1
        w = self.plane.center + z @ self.plane.basis
        output = torch.func.functional_call(self.net, self.layout.unflatten(w), (self.x,))
        nll = self.task.nll(output, self.y).sum(dtype=torch.float64)
        return -float(nll) / TEMPERATURE

    def uniform(self) -> float:
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def sample(self, n: int) -> Tensor:  # (n, k)
        draws = torch.empty(n, self.plane.k)
        for i in range(n):
            nu = torch.randn(self.plane.k, generator=self.generator)
            level = self.value + math.log1p(-self.uniform())
            theta = 2 * math.pi * self.uniform()
            low, high = theta - 2 * math.pi, theta
            while True:
                z = self.z * math.cos(theta) + nu * math.sin(theta)
                value = self.log_likelihood(z)
                if value > level:
                    break
                low, high = (theta, high) if theta < 0 else (low, theta)
                theta = low + (high - low) * self.uniform()
            self.z, self.value = z, value
            draws[i] = z
        return draws


class InTurn:
    """The progress that `ll.infer` reports to: after each round of its, one of the rival's."""

    def __init__(self, rival: Published) -> None:
        self.rival = rival
        self.due = WARMUP * CHAINS
        self.ours: list[float] = []  # seconds a sample
        self.theirs: list[float] = []
        self.draws: list[Tensor] = []
        self.begun: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        if done < self.due or len(self.ours) == ROUNDS:
            return
        if self.begun is None:
            self.rival.sample(WARMUP)
            self.rival.evaluations = 0
        else:
            self.ours.append((time.perf_counter() - self.begun[1]) / (done - self.begun[0]))
            start = time.perf_counter()
            self.draws.append(self.rival.sample(ALONE))
            self.theirs.append((time.perf_counter() - start) / ALONE)
        self.due = done + SAMPLES * CHAINS
        self.begun = (done, time.perf_counter())


def against_published(surface: ll.LossSurface, plane: ll.Subspace, what: str) -> list[Row]:
    turns = InTurn(Published(surface, plane))
    chain = ll.infer(
        plane,
        surface,
        sampler="ess",
        temperature=TEMPERATURE,
        start=torch.zeros(plane.k),  # as theirs
        chains=CHAINS,
        warmup=WARMUP,
        samples=(ROUNDS + 1) * SAMPLES,  # towards the end chains are done one after the other
        progress=turns,
    )
    theirs = torch.stack(turns.draws).reshape(1, -1, plane.k).double().numpy()
    found = array_stats.ess(theirs, chain_axis=0, draw_axis=1, method="bulk")
    share = float(chain.ess.min()) / chain.draws.shape[0]  # effective samples a sample
    other = float(np.min(found)) / theirs.shape[1]
    mine, hand = (1 / float(np.median(t)) for t in (turns.ours, turns.theirs))
    calls = chain.about["evaluations_per_transition"]
    each = turns.rival.evaluations / theirs.shape[1]
    faster = ratio(turns.theirs, turns.ours)
    problem = f"{what} of 400 rows, 200-50-50-50 units"
    return [
        Row(
            f"one chain by hand, {problem}",
            f"ll.infer, {CHAINS} chains: samples a second",
            faster,
            ">= 2",
            f"{mine:,.0f} against {hand:,.0f} a second; {calls:.1f} and {each:.1f} evaluations a "
            "sample",
        ),
        Row(
            f"one chain by hand, {problem}",
            f"ll.infer, {CHAINS} chains: effective samples a second",
            faster * share / other,
            ">= 1",
            f"{mine * share:,.1f} against {hand * other:,.1f} a second, by bulk ESS "
            f"({float(chain.ess.min()):.0f} and {float(np.min(found)):.0f} in all), the least of "
            "the coordinates",
        ),
        Row(
            f"ll.infer, {CHAINS} chains, {problem}: samples a second",
            f"{PUBLISHED} a second, published",
            mine / PUBLISHED,
            ">= 25",
            f"{mine:,.0f} a second; 50 times is the aim",
        ),
    ]


def together(surface: ll.LossSurface, plane: ll.Subspace) -> Row:
    """The chains' log densities as one batched computation, and one by one."""
    z = 0.1 * torch.randn(CHAINS, plane.k, dtype=torch.float64)
    made = {how: ll.LogLikelihood(surface, strategy=how, trace=True) for how in ("points", "vmap")}
    slow, fast = paired(
        lambda: made["points"].along(plane, z), lambda: made["vmap"].along(plane, z), rounds=40
    )
    return Row(
        f"{CHAINS} chains' log densities one by one",
        "by vmap, traced",
        ratio(slow, fast),
        ">= 1",
        f"{ms(slow)} against {ms(fast)}",
    )


def main() -> list[Row]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ll.keep_freed_memory()
    surface, plane, what = problem()
    return [*against_published(surface, plane, what), together(surface, plane)]


if __name__ == "__main__":
    report(main())
