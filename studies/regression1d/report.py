"""The tables of the study."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import torch

from lowland.records import FunctionsResult

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
        *bands_table(bands),
    ]
    return "\n".join(lines)


def samplers_table(comparisons: list[dict[str, Any]]) -> list[str]:
    truth, *others = comparisons
    evidence = truth["log_evidence"]
    lines = [
        "| sampler | mean | sd | off, in standard errors | R-hat | log Z or ELBO | evaluations | "
        "draws a second | effective a second |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| quadrature | {pair(truth['mean'])} | {pair(truth['sd'])} | | | {evidence:.3f} | "
        f"{truth['evaluations']:,} | | |",
    ]
    for summary in others:
        variational = summary["bound"] is not None
        cells = [
            summary["sampler"],
            pair(summary["mean"]),
            pair(summary["sd"]),
            f"{summary['off']:.1f}",
            "" if variational else f"{summary['rhat']:.3f}",
            f"{summary['bound']:.3f} ({summary['bound'] - evidence:+.3f})" if variational else "",
            f"{summary['evaluations']:,}",
            "" if variational else f"{summary['draws'] / summary['seconds']:.0f}",
            "" if variational else f"{summary['ess'] / summary['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    warnings = [
        f"- {summary['sampler']}: {summary['told']}" for summary in comparisons if summary["told"]
    ]
    return [*lines, *([""] if warnings else []), *warnings]


def bands_table(bands: dict[str, FunctionsResult]) -> list[str]:
    """The standard deviation of functions at the data, between them and outside of them."""
    lines = [
        "| posterior | RMSE of the mean on the data | sd among the data | in the gaps | "
        "beyond, at distance 2 | gaps / data | beyond / data |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
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
        cells = [
            name,
            f"{errors.square().mean().sqrt():.3f}",
            *(f"{v:.3f}" for v in (among, gaps, beyond)),
            *(f"{v:.1f}" for v in (gaps / among, beyond / among)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def pair(values: list[float]) -> str:
    return ", ".join(f"{v:.3f}" for v in values)
