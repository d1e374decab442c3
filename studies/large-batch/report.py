"""Tables and pictures of the study, from the records of its solutions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from measures import MEASURES
from scipy.stats import kendalltau

from lowland import plots
from lowland.plots.scales import log_ticks
from lowland.records import PathResult, Table

LINE = "line.json"  # among the results
RESAMPLES = 2000  # of the bootstrap over recipes
Records = list[dict[str, Any]]


def tables(records: Records) -> str:
    """Solutions, and the rank correlation of each measure with the test error, as Markdown."""
    if not records:
        return "No solution is there yet."
    note = f"{records[-1]['date']}, {records[-1]['machine']}; `python studies/large-batch/run.py`."
    reached = [record for record in records if record["reached"]]
    parts = [f"{note} {len(records)} solutions, {len(reached)} of them at the training loss."]
    parts.append(solutions(records))
    if len(reached) > 2:
        parts.append(
            f"Kendall's rank correlation over the {len(reached)} solutions at the training loss; "
            "in brackets the interval at 95% of the bootstrap over recipes. Positive with the test "
            "error: sharper solutions predict worse."
        )
        parts.append(correlations(reached))
    return "\n\n".join(parts)


def name_of(record: dict[str, Any]) -> str:
    recipe = record["recipe"]
    sam = ", SAM" if recipe["sam"] else ""
    return (
        f"{recipe['batch']}, {recipe['lr']:g}, {recipe['weight_decay']:g}{sam}, "
        f"seed {recipe['seed']}"
    )


def solutions(records: Records) -> str:
    rows = []
    for record in sorted(records, key=lambda each: each["test error"]):
        values = record["measures"]
        rows.append(
            {
                "batch, lr, weight decay": name_of(record),
                "epochs": f"{record['epochs']}{'' if record['reached'] else ' (not reached)'}",
                "train loss": f"{record['train nll']:.3f}",
                "test error": f"{record['test error']:.3f}",
                "test NLL": f"{record['test nll']:.3f}",
                **{name: f"{values[name]:.3g}" for name in MEASURES},
            }
        )
    return Table.from_rows(rows).to_markdown()


def correlations(records: Records) -> str:
    measures = {name: [each["measures"][name] for each in records] for name in MEASURES}
    columns = {
        "test error": [each["test error"] for each in records],
        "test NLL": [each["test nll"] for each in records],
        "top eigenvalue": measures["top eigenvalue"],
        "adaptive, l2": measures["adaptive, l2"],
    }
    groups = [str({**each["recipe"], "seed": 0}) for each in records]
    rows = [
        {"measure": name}
        | {
            other: "1" if other == name else correlation(values, column, groups)
            for other, column in columns.items()
        }
        for name, values in measures.items()
    ]
    return Table.from_rows(rows).to_markdown()


def correlation(a: list[float], b: list[float], groups: list[str], seed: int = 0) -> str:
    """Kendall's tau with its bootstrap interval; recipes are drawn, with all their seeds."""
    x, y = np.array(a), np.array(b)
    members = [np.array([i for i, g in enumerate(groups) if g == one]) for one in set_of(groups)]
    generator = np.random.default_rng(seed)
    taus = []
    for _ in range(RESAMPLES):
        drawn = generator.integers(len(members), size=len(members))
        index = np.concatenate([members[i] for i in drawn])
        taus.append(kendalltau(x[index], y[index]).statistic)
    low, high = np.nanquantile(taus, [0.025, 0.975])
    return f"{kendalltau(x, y).statistic:+.2f} [{low:+.2f}, {high:+.2f}]"


def set_of(groups: list[str]) -> list[str]:
    """Each group once, in their order."""
    return list(dict.fromkeys(groups))


def pictures(records: Records, results: Path, folder: Path) -> None:
    """The test error against six measures, the line between both plain solutions, six spectra."""
    scatter(records, folder)
    if (results / LINE).exists():
        axes = plots.interpolation(
            PathResult.load(results / LINE), ends=("batch 64", "batch 2,048")
        )
        plots.save(axes, folder / "line.png")
    spectra([record for record in records if "spectrum" in record], folder)


def spectra(records: Records, folder: Path) -> None:
    """Shares of the eigenvalues outside of the leading ones, of solutions with a full spectrum."""
    if not records:
        return
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    ax = figure.subplots()
    for record in records:
        nodes, weights = (np.ravel(record["spectrum"][key]) for key in ("nodes", "weights"))
        order = np.argsort(nodes)[::-1]
        style = "-" if record["recipe"]["batch"] == 64 else "--"
        ax.plot(nodes[order], np.cumsum(weights[order]), style, label=name_of(record))
    ax.set_yscale("log")
    ax.set_xlabel("eigenvalue")
    ax.set_ylabel("share of the other eigenvalues above it")
    ax.legend(fontsize="small", title="batch, learning rate, weight decay", title_fontsize="small")
    plots.save(figure, folder / "spectra.png")


def scatter(records: Records, folder: Path) -> None:
    """The test error against six measures; a point is a solution."""
    if len(records) < 3:
        return
    names = ["Keskar", "SAM", "adaptive, l2", "average, filter", "top eigenvalue", "1 / width"]
    figure = Figure(figsize=(10, 6), layout="constrained")
    for name, ax in zip(names, figure.subplots(2, 3, sharey=True).flat, strict=True):
        for batch, marker in ((64, "o"), (2048, "s")):
            for sam, colour in ((False, "tab:blue"), (True, "tab:orange")):
                some = [
                    each
                    for each in records
                    if each["recipe"]["batch"] == batch and bool(each["recipe"]["sam"]) == sam
                ]
                ax.scatter(
                    [each["measures"][name] for each in some],
                    [100 * each["test error"] for each in some],
                    marker=marker,
                    color=colour,
                    label=f"batch {batch}{', SAM' if sam else ''}",
                )
        log_ticks(ax, "x", np.array([each["measures"][name] for each in records]))
        ax.set_xlabel(name)
    figure.axes[0].set_ylabel("test error (%)")
    figure.axes[3].set_ylabel("test error (%)")
    figure.axes[0].legend(fontsize="small")
    plots.save(figure, folder / "measures.png")
