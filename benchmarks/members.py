"""100 small networks trained side by side against one after the other, on one thread.

Networks of 50 hidden units predict a mean and a variance from 455 examples of 13 features, as on
the UCI sets, by SGD with momentum and weight decay; SWAG of rank 20 collects one iterate per epoch.
Two references: `ll.sgd` on each network, and a bare loop on each. They take long, so a tenth of the
networks are timed, and the time is multiplied by ten.
"""

from __future__ import annotations

import torch
from common import Row, paired, ratio, report
from torch import nn

import lowland as ll

NETWORKS, ALONE = 100, 10
EXAMPLES, FEATURES, EPOCHS = 455, 13, 6
TASK = ll.Regression("learned")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return ll.GaussianHead(nn.Sequential(nn.Linear(FEATURES, 50), nn.ReLU(), nn.Linear(50, 2)))


def optimizer(parameters: object) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=0.1)


def examples_of(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(EXAMPLES, FEATURES, generator=g)
    return x, x[:, :1] + 0.1 * torch.randn(EXAMPLES, 1, generator=g)


def measure(batch_size: int) -> tuple[list[float], list[float], list[float]]:
    data = [ll.Batches(examples_of(m), batch_size=batch_size, seed=m) for m in range(NETWORKS)]
    networks = [network(m) for m in range(NETWORKS)]
    layout = ll.ParamLayout(networks[0])
    once_an_epoch = ll.Every(len(data[0]))

    def together() -> None:
        members = ll.Members(networks)
        swag = ll.SWAG(ll.ParamLayout(members), rank=20)
        collector = ll.Collector(swag, when=once_an_epoch)
        ll.sgd_members(
            members, TASK, data, epochs=EPOCHS, optimizer=optimizer, collectors=[collector]
        )

    def in_turn() -> None:
        for m in range(ALONE):
            collector = ll.Collector(ll.SWAG(layout, rank=20), when=once_an_epoch)
            ll.sgd(
                network(m), TASK, data[m], epochs=EPOCHS, optimizer=optimizer,
                collectors=[collector],
            )  # fmt: skip

    def by_hand() -> None:
        for m in range(ALONE):
            net, (x, y) = network(m), data[m].data
            opt = optimizer(net.parameters())
            for _ in range(EPOCHS):
                for index in torch.randperm(EXAMPLES).split(batch_size):
                    opt.zero_grad()
                    TASK.nll(net(x[index]), y[index]).mean().backward()
                    opt.step()

    side_by_side, one_by_one, hand = paired(together, in_turn, by_hand, rounds=7, warm=1)
    share = NETWORKS / ALONE
    return side_by_side, [share * t for t in one_by_one], [share * t for t in hand]


def main() -> list[Row]:
    torch.set_num_threads(1)
    rows = []
    for batch_size in (30, 100):
        side_by_side, one_by_one, hand = measure(batch_size)
        steps = EPOCHS * -(-EXAMPLES // batch_size)
        for name, times in (("ll.sgd on each in turn", one_by_one), ("a bare loop on each", hand)):
            a, b = (1e3 * sorted(t)[len(t) // 2] / steps for t in (times, side_by_side))
            rows.append(
                Row(
                    f"{name}, one thread",
                    f"{NETWORKS} networks of 50 hidden units side by side, batch {batch_size}",
                    ratio(times, side_by_side),
                    ">= 5",
                    f"{a:.1f} ms against {b:.1f} ms a step of all",
                )
            )
    return rows


if __name__ == "__main__":
    report(main())
