"""Metrics of several runs: means, standard errors, paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lowland.records import Table
from lowland.records.table import SE

Metrics = Mapping[str, float]  # of one method in one run


def mean_over_runs(runs: Sequence[Metrics], *, errors: bool = True) -> dict[str, float]:
    r"""The mean of each metric over R runs, and its standard error \(s / \sqrt R\).

    s is the deviation over R - 1; the error of a single run is NaN, and so is all of a metric that
    some run lacks.

    >>> mean_over_runs([{"nll": 1.0}, {"nll": 3.0}])
    {'nll': 2.0, 'nll_se': 1.0}
    """
    means = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = torch.tensor([run.get(name, math.nan) for run in runs], dtype=torch.float64)
        means[name] = float(values.mean())
        if errors:
            n = len(values)
            means[name + SE] = float(values.std() / math.sqrt(n)) if n > 1 else math.nan
    return means


def paired_differences(methods: Mapping[str, Sequence[Metrics]]) -> Table:
    """The metrics of each method minus those of the first, run by run: their mean and error.

    Methods share the luck of a run, so these means have smaller errors than those of the metrics.
    Empty for a single run.

    >>> methods = {"SGD": [{"nll": 1.0}, {"nll": 9.0}], "SWA": [{"nll": 0.5}, {"nll": 8.5}]}
    >>> print(paired_differences(methods))
    method      nll  nll_se
    SWA     -0.5000  0.0000
    """
    first, *others = methods.items()
    rows: list[dict[str, Any]] = []
    for title, runs in others:
        if len(runs) == len(first[1]) > 1:
            pairs = zip(runs, first[1], strict=True)
            each = [{n: a[n] - b[n] for n in a if n in b and n != "samples"} for a, b in pairs]
            rows.append({"method": title, **mean_over_runs(each)})
    return Table.from_rows(rows)
