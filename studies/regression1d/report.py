"""The tables of the study."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import torch

from lowland.records import FunctionsResult, Table

sys.path.append(str(Path(__file__).parents[1]))
from readme import processor


def results(comparisons: list[dict[str, Any]], bands: dict[str, FunctionsResult]) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"{today}, {processor()}, 2 cores, one thread, torch {torch.__version__}; "
        "`python studies/regression1d/run.py`.",
        "",
        "### The published curve's plane",
        "",
        *samplers_table(comparisons),
        "",
        "### Bands",
        "",
        bands_table(bands),
    ]
    return "\n".join(lines)


def samplers_table(comparisons: list[dict[str, Any]]) -> list[str]:
    truth, *others = comparisons
    evidence = truth["log_evidence"]
    rows = [
        {
            "sampler": "quadrature",
            "mean": pair(truth["mean"]),
            "sd": pair(truth["sd"]),
            "off, in standard errors": "",
            "R-hat": "",
            "log Z or ELBO": f"{evidence:.3f}",
            "evaluations": f"{truth['evaluations']:,}",
        }
    ]
    for summary in others:
        row = {
            "sampler": summary["sampler"],
            "mean": pair(summary["mean"]),
            "sd": pair(summary["sd"]),
            "off, in standard errors": f"{summary['off']:.1f}",
            "evaluations": f"{summary['evaluations']:,}",
        }
        if summary["bound"] is None:
            row["R-hat"] = f"{summary['rhat']:.3f}"
            row["draws a second"] = f"{summary['draws'] / summary['seconds']:.0f}"
            row["effective a second"] = f"{summary['ess'] / summary['seconds']:.0f}"
        else:
            row["log Z or ELBO"] = f"{summary['bound']:.3f} ({summary['bound'] - evidence:+.3f})"
        rows.append(row)
    warnings = [
        f"- {summary['sampler']}: {summary['told']}" for summary in comparisons if summary["told"]
    ]
    table = Table.from_rows(rows).to_markdown()
    return [table, *([""] if warnings else []), *warnings]


def bands_table(bands: dict[str, FunctionsResult]) -> str:
    """The standard deviation of functions at the data, between them and outside of them."""
    rows = []
    for name, band in bands.items():
        x = band.inputs[:, 0]
        spread = band.draws[..., 0].std(0)
        data = band.data_inputs[:, 0]
        near = (x[:, None] - data).abs().min(1).values
        inside = (x >= data.min()) & (x <= data.max())
        among = spread[near < 0.05].mean()
        gaps = spread[inside & (near > 0.8)].mean()
        beyond = spread[(~inside) & ((near - 2).abs() < 0.2)].mean()
        at = (data[:, None] - x).abs().argmin(1)
        errors = band.mean[at, 0] - band.data_targets[:, 0]
        rows.append(
            {
                "posterior": name,
                "RMSE of the mean on the data": f"{errors.square().mean().sqrt():.3f}",
                "sd among the data": f"{among:.3f}",
                "in the gaps": f"{gaps:.3f}",
                "beyond, at distance 2": f"{beyond:.3f}",
                "gaps / data": f"{gaps / among:.1f}",
                "beyond / data": f"{beyond / among:.1f}",
            }
        )
    return Table.from_rows(rows).to_markdown()


def pair(values: list[float]) -> str:
    return ", ".join(f"{v:.3f}" for v in values)
