"""Elliptical slice sampling of a plane of the 1-D regression, 16 chains against one by hand.

The network and the examples are those of Izmailov et al. 2019, figure 1 (400 examples, 200-50-50-50
units), on the plane of their trained curve where `../shared/data` exists, otherwise on a plane and
examples like them. The reference is written like the published sampler: one chain,
`functional_call` on one weight vector at a time over examples in memory. `ll.infer` and the
reference take turns on one thread; sampling alone is timed, after planning, tracing and warm-up.
The published speed is from another machine, so that row is no ratio of one run. Effective samples
are the least precise result: the mass lies on ridges, a run of this length has some tens of them,
and a single chain overestimates its own.
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
PUBLISHED = 11  # samples a second of the authors' sampler on this problem
CHAINS, WARMUP = 16, 100
ROUNDS = 4
SAMPLES, ALONE = 75, 250  # per round, of each chain of `ll.infer` and of the single chain


def problem() -> tuple[ll.LossSurface, ll.Subspace, str]:
    """The surface, a plane, and its description."""
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


class OneChain:
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
    """Progress for `ll.infer`: after each round of samples, the single chain samples as well."""

    def __init__(self, single: OneChain) -> None:
        self.single = single
        self.due = WARMUP * CHAINS
        self.many_times: list[float] = []  # seconds a sample
        self.single_times: list[float] = []
        self.draws: list[Tensor] = []
        self.round_start: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> None:
        if done < self.due or len(self.many_times) == ROUNDS:
            return
        if self.round_start is None:
            self.single.sample(WARMUP)
            self.single.evaluations = 0
        else:
            self.many_times.append(
                (time.perf_counter() - self.round_start[1]) / (done - self.round_start[0])
            )
            start = time.perf_counter()
            self.draws.append(self.single.sample(ALONE))
            self.single_times.append((time.perf_counter() - start) / ALONE)
        self.due = done + SAMPLES * CHAINS
        self.round_start = (done, time.perf_counter())


def against_published(surface: ll.LossSurface, plane: ll.Subspace, what: str) -> list[Row]:
    turns = InTurn(OneChain(surface, plane))
    chain = ll.infer(
        plane,
        surface,
        sampler="ess",
        temperature=TEMPERATURE,
        start=torch.zeros(plane.k),  # as in the single chain
        chains=CHAINS,
        warmup=WARMUP,
        samples=(ROUNDS + 1) * SAMPLES,  # towards the end chains finish one after the other
        progress=turns,
    )
    single = torch.stack(turns.draws).reshape(1, -1, plane.k).double().numpy()
    single_ess = array_stats.ess(single, chain_axis=0, draw_axis=1, method="bulk")
    share = float(chain.ess.min()) / chain.draws.shape[0]  # effective samples a sample
    other = float(np.min(single_ess)) / single.shape[1]
    many, hand = (1 / float(np.median(t)) for t in (turns.many_times, turns.single_times))
    calls = chain.about["evaluations_per_transition"]
    each = turns.single.evaluations / single.shape[1]
    faster = ratio(turns.single_times, turns.many_times)
    problem = f"{what} of 400 rows, 200-50-50-50 units"
    return [
        Row(
            f"one chain by hand, {problem}",
            f"ll.infer, {CHAINS} chains: samples a second",
            faster,
            ">= 2",
            f"{many:,.0f} against {hand:,.0f} a second; {calls:.1f} and {each:.1f} evaluations a "
            "sample",
        ),
        Row(
            f"one chain by hand, {problem}",
            f"ll.infer, {CHAINS} chains: effective samples a second",
            faster * share / other,
            ">= 1",
            f"{many * share:,.1f} against {hand * other:,.1f} a second, by bulk ESS "
            f"({float(chain.ess.min()):.0f} and {float(np.min(single_ess)):.0f} in all), the "
            "least of the coordinates",
        ),
        Row(
            f"ll.infer, {CHAINS} chains, {problem}: samples a second",
            f"{PUBLISHED} a second, published",
            many / PUBLISHED,
            ">= 25",
            f"{many:,.0f} a second; 50 times is the aim",
        ),
    ]


def together(surface: ll.LossSurface, plane: ll.Subspace) -> Row:
    """Log densities of all chains in one batched computation, and one by one."""
    z = 0.1 * torch.randn(CHAINS, plane.k, dtype=torch.float64)
    likelihoods = {
        how: ll.LogLikelihood(surface, strategy=how, trace=True) for how in ("points", "vmap")
    }
    slow, fast = paired(
        lambda: likelihoods["points"].along(plane, z),
        lambda: likelihoods["vmap"].along(plane, z),
        rounds=40,
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
