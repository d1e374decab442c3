"""The functions of a simplex: two spirals and a regression.

Start `python studies/simplex/spirals.py` in the project's root. It takes two minutes on one core.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import lowland as ll
from lowland import plots
from lowland.core.threads import using_threads
from lowland.evaluate import regular_grid
from lowland.records import Table
from lowland.zoo import MLP, Regression1dNet, regression1d, spirals

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from readme import processor, rewrite  # noqa: E402

SEEDS, DRAWS = 5, 100
FEATURES = Path("../shared/data/regression1d.npy")


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01, weight_decay=1e-4)


def two_spirals(seed: int, pictures: Path | None) -> dict[str, dict[str, float]]:
    """Test metrics of one network and of a simplex around it."""
    data = spirals(points=50, noise=1.0, seed=seed)
    train = ll.Batches(data["train"], batch_size=100, shuffle=False)
    test = ll.Batches(data["test"], batch_size=1000, shuffle=False)
    torch.manual_seed(seed)
    net = MLP(inputs=2, outputs=2, widths=(25,) * 7)
    task = ll.Classification()
    ll.sgd(net, task, train, epochs=200, optimizer=adam, seed=seed)
    surface = ll.LossSurface(net, task, train)
    w = surface.layout.flatten(net)
    simplex = ll.spro(
        surface, w, vertices=4, epochs=100, optimizer=adam, strategy="vmap", rise=5.0, seed=seed
    )
    posts = {"network": ll.PointMass(w), "simplex": ll.Uniform(simplex)}
    metrics = {}
    for name, post in posts.items():
        samples = DRAWS if post.support is None else None
        metrics[name] = ll.predict(surface, post, test, samples=samples).metrics()
        if pictures is not None:
            grid = regular_grid(data["train"][0], resolution=120)
            functions = ll.functions(surface, post, grid, samples=samples, data=data["train"])
            plots.save(plots.functions(functions), pictures / f"spirals-{name}.png")
    if pictures is not None:
        plots.save(plots.growth(simplex.log), pictures / "spirals-growth.png")
        triangle = ll.ternary(ll.Simplex(simplex.anchors[1:]), surface, names=["v1", "v2", "v3"])
        plots.save(plots.ternary(triangle), pictures / "spirals-triangle.png")
    return metrics


def regression(pictures: Path) -> float:
    """The 1-D regression of Izmailov et al. 2019: the simplex's highest training loss minus the
    network's."""
    data = regression1d(FEATURES)["train"]
    train = ll.Batches(data, batch_size=50, seed=0)
    torch.manual_seed(0)
    net = Regression1dNet()
    task = ll.Regression(noise_variance=0.05)

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.95)

    ll.sgd(net, task, train, epochs=600, optimizer=sgd, seed=0)
    surface = ll.LossSurface(net, task, train)
    w = surface.layout.flatten(net)
    simplex = ll.spro(
        surface, w, vertices=4, epochs=100, optimizer=sgd, log_volume=0.1, jitter=0.1, rise=0.5
    )
    x = torch.linspace(-12, 12, 400)[:, None]
    functions = ll.functions(surface, ll.Uniform(simplex), x, samples=50, data=data)
    plots.save(plots.functions(functions), pictures / "regression.png")
    return float(simplex.log.loss_max[-1] - simplex.log.loss_max[0])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/simplex-study/spirals"))
    options = parser.parse_args()
    start = time.perf_counter()
    with using_threads(1):
        metrics = [two_spirals(seed, options.out if seed == 0 else None) for seed in range(SEEDS)]
        rise = regression(options.out) if FEATURES.is_file() else None
    text = results(metrics, rise, time.perf_counter() - start)
    print(text)
    rewrite(HERE / "README.md", text, by="spirals.py")
    return 0


def results(metrics: list[dict[str, dict[str, float]]], rise: float | None, seconds: float) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    titles = {"network": "network", "simplex": f"{DRAWS} draws of its simplex"}
    rows: list[dict[str, str]] = [{"": title} for title in (*titles.values(), "difference, paired")]
    for metric, heading in (("accuracy", "accuracy"), ("nll", "NLL")):
        network, simplex = (
            torch.tensor([seed[name][metric] for seed in metrics], dtype=torch.float64)
            for name in titles
        )
        cells = spread(network), spread(simplex), spread(simplex - network, "+")
        for row, cell in zip(rows, cells, strict=True):
            row[heading] = cell
    lines = [
        f"{today}, {processor()}, one thread, torch {torch.__version__}, {seconds:.0f} s; "
        "`python studies/simplex/spirals.py`.",
        "",
        f"Two spirals, means and standard errors over {SEEDS} seeds of data and network:",
        "",
        Table.from_rows(rows).to_markdown(),
    ]
    if rise is not None:
        lines += [
            "",
            "Regression: the highest training loss at 20 random points of the simplex lies "
            f"{rise:+.3f} nats from the network's.",
        ]
    return "\n".join(lines)


def spread(values: Tensor, sign: str = "") -> str:
    error = values.std() / len(values) ** 0.5
    return f"{values.mean():{sign}.3f} ± {error:.3f}"


if __name__ == "__main__":
    sys.exit(main())
