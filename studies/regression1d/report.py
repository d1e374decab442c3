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

PUBLISHED_RATE = 11  # samples a second of the published sampler in this plane


def results(compared: list[dict[str, Any]], bands: dict[str, FunctionsResult]) -> str:
    today = datetime.datetime.now(datetime.UTC).date()
    lines = [
        f"{today}, {processor()}, 2 cores, one thread, torch {torch.__version__}; "
        "`python studies/regression1d/run.py`.",
        "",
        "### The published curve's plane",
        "",
        *samplers_table(compared),
        "",
        "### Bands",
        "",
        *bands_table(bands),
    ]
    return "\n".join(lines)


def samplers_table(compared: list[dict[str, Any]]) -> list[str]:
    truth, *others = compared
    evidence = truth["log_evidence"]
    lines = [
        "| sampler | mean | sd | off, in standard errors | R-hat | log Z or ELBO | evaluations | "
        "draws a second | effective a second |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        f"| quadrature | {pair(truth['mean'])} | {pair(truth['sd'])} | | | {evidence:.3f} | "
        f"{truth['evaluations']:,} | | |",
    ]
    for one in others:
        fitted = one["bound"] is not None
        cells = [
            one["sampler"],
            pair(one["mean"]),
            pair(one["sd"]),
            f"{one['off']:.1f}",
            "" if fitted else f"{one['rhat']:.3f}",
            f"{one['bound']:.3f} ({one['bound'] - evidence:+.3f})" if fitted else "",
            f"{one['evaluations']:,}",
            "" if fitted else f"{one['draws'] / one['seconds']:.0f}",
            "" if fitted else f"{one['ess'] / one['seconds']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    told = [f"- {one['sampler']}: {one['told']}" for one in compared if one["told"]]
    return [*lines, *([""] if told else []), *told]


def bands_table(bands: dict[str, FunctionsResult]) -> list[str]:
    """The standard deviation of functions where data are, between them, and beyond them."""
    lines = [
        "| posterior | RMSE of the mean on the data | sd among the data | in the gaps | "
        "beyond, at distance 2 | gaps / data | beyond / data |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, one in bands.items():
        x = one.inputs[:, 0]
        spread = one.draws[..., 0].std(0)
        rows = one.data_inputs[:, 0]
        near = (x[:, None] - rows).abs().min(1).values
        inside = (x >= rows.min()) & (x <= rows.max())
        among = spread[near < 0.05].mean()
        gaps = spread[inside & (near > 0.8)].mean()
        beyond = spread[(~inside) & ((near - 2).abs() < 0.2)].mean()
        at = (rows[:, None] - x).abs().argmin(1)
        errors = one.mean[at, 0] - one.data_targets[:, 0]
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
