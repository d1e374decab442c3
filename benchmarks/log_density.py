"""Log densities of many weight vectors against `functional_call` on one at a time.

Each call has 16 points, as from 16 chains of elliptical slice sampling, with the networks and
numbers of examples of Izmailov et al. 2019. The reference is a loop under `torch.no_grad()` over
examples in memory: each weight vector is called by `functional_call`, and the negative
log-likelihood is summed in float64. The largest network is also compared with its forward passes
alone. Small networks are compared on one thread, where other load on the machine matters least, and
on all threads.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import torch
from common import Row, ms, paired, ratio, report
from torch import Tensor, nn

import lowland as ll
from lowland.zoo import MLP, uci_net

CHAINS = 16
WARM = 220  # calls before the timing, by which operations are traced


def by_hand(net: nn.Module, layout: ll.ParamLayout, task: Any, x: Tensor, y: Tensor) -> Any:
    """Log densities one weight vector at a time."""

    @torch.no_grad()
    def work(weights: Tensor) -> Tensor:
        values = []
        for w in weights:
            output = torch.func.functional_call(net, layout.unflatten(w), (x,))
            values.append(-task.nll(output, y).sum(dtype=torch.float64))
        return torch.stack(values)

    return work


def small_network(
    what: str, net: nn.Module, task: Any, shape: tuple[int, int], reach: str
) -> list[Row]:
    """A small network, on one thread and on all."""
    x, y = torch.randn(*shape), torch.randn(shape[0], 1)
    surface = ll.LossSurface(net, task, [(x, y)])
    w = surface.layout.flatten(net)
    points = w + 0.05 * torch.randn(CHAINS, len(w))
    loop = by_hand(net, surface.layout, task, x, y)
    all_threads = torch.get_num_threads()
    out = []
    for threads in dict.fromkeys((1, all_threads)):
        torch.set_num_threads(threads)
        likelihood: Callable[[Tensor], Tensor] = ll.LogLikelihood(surface)
        for _ in range(WARM):
            values = likelihood(points)
        apart = float(((values - loop(points)) / values).abs().max())
        times, hand = paired(lambda f=likelihood: f(points), lambda: loop(points), rounds=60)
        a_second = CHAINS / statistics.median(times)
        detail = (
            f"{ms(times)} against {ms(hand)}, {a_second:,.0f} a second; "
            f"apart by at most {apart:.0e}"
        )
        work = f"functional_call, {what}, {CHAINS} points, threads: {threads}"
        out.append(Row(work, "log densities", ratio(hand, times), reach, detail))
    torch.set_num_threads(all_threads)
    return out


def large() -> list[Row]:
    """A network with operations large enough to use all cores."""
    net = MLP(inputs=9, outputs=1, widths=(1000, 1000, 500, 50))
    task = ll.Regression(noise_variance=0.05)
    x, y = torch.randn(41_000, 9), torch.randn(41_000, 1)
    surface = ll.LossSurface(net, task, [(x, y)])
    w = surface.layout.flatten(net)
    points = w + 0.01 * torch.randn(2, len(w))
    likelihood, loop = ll.LogLikelihood(surface), by_hand(net, surface.layout, task, x, y)

    @torch.no_grad()
    def passes() -> None:
        for _ in points:
            net(x)

    times, hand, alone = paired(
        lambda: likelihood(points), lambda: loop(points), passes, rounds=5, warm=1
    )
    what = "41,000 rows, [1000, 1000, 500, 50] units, 2 points"
    detail = f"{ms(times)} against "
    return [
        Row(
            f"functional_call, {what}",
            "log densities",
            ratio(hand, times),
            ">= 1",
            detail + ms(hand),
        ),
        Row(
            f"forward passes, {what}",
            "log densities",
            ratio(alone, times),
            ">= 0.9",
            detail + ms(alone),
        ),
    ]


def main() -> list[Row]:
    ll.keep_freed_memory()
    torch.manual_seed(0)
    learned_noise, fixed_noise = ll.Regression("learned"), ll.Regression(noise_variance=0.05)
    curve = MLP(inputs=2, outputs=1, widths=(200, 50, 50, 50))
    return [
        *small_network(
            "455 rows, 13-50-2 units", uci_net(inputs=13), learned_noise, (455, 13), ">= 5"
        ),
        *small_network("400 rows, 2-200-50-50-50-1 units", curve, fixed_noise, (400, 2), ">= 2"),
        *large(),
    ]


if __name__ == "__main__":
    report(main())
