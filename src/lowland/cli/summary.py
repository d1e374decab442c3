"""From predictions to tables and curves: mean ± standard error over runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lowland.cli.aggregate import SE, Metrics, mean_over_runs, paired_differences
from lowland.cli.predictions import Judged
from lowland.core import Classification, Regression, Task
from lowland.metrics import metric_names
from lowland.records import Predictive, RiskCoverage, ShiftCurves, Table
from lowland.scoring import crps, scores
from lowland.uncertainty import ood, selective


class Summary:
    """Each method's figures over its runs.

    Args:
        rows: for each method its predictions in each run; one alone for what joins runs.
    """

    def __init__(
        self, rows: Sequence[Sequence[Judged]], shifts: list[tuple[str, int]], task: Task
    ) -> None:
        self.rows = rows
        self.shifts = shifts
        self.task = task
        self.many = any(len(runs) > 1 for runs in rows)
        self.figures = [[self._figures(run) for run in runs] for runs in rows]

    def comparison(self) -> Table:
        """A row a method: test figures, their mean over corruptions, AUROC by the first score."""
        found: list[dict[str, Any]] = []
        for runs, figures in zip(self.rows, self.figures, strict=True):
            words: dict[str, Any] = {"method": runs[0].title}
            if isinstance(self.task, Regression):
                exact = all(run.mixture is not None for run in runs)
                words["crps_of"] = "mixture" if exact else "Gaussian"
            found.append({**words, "runs": float(len(runs)), **self._averaged(figures)})
        return Table.from_rows(found)

    def differences(self) -> Table:
        """What a method adds to the first one's figures, run by run."""
        titles = [runs[0].title for runs in self.rows]
        return paired_differences(dict(zip(titles, self.figures, strict=True)))

    def shift(self) -> Table:
        """A row a method, kind and strength; strength 0 are the clean rows."""
        found: list[dict[str, Any]] = []
        for runs in self.rows:
            clean = [_metrics(run.clean) for run in runs if run.clean is not None]
            places = [("clean", 0, clean)] if clean else []
            for i, (kind, strength) in enumerate(self.shifts):
                places.append((kind, strength, [_metrics(run.shifted[i]) for run in runs]))
            for kind, strength, figures in places:
                words = {"method": runs[0].title, "kind": kind, "strength": float(strength)}
                found.append(words | self._averaged(figures))
        return Table.from_rows(found)

    def strange(self) -> Table:
        """A row a method, set and score: AUROC and FPR95."""
        found: list[dict[str, Any]] = []
        for runs in self.rows:
            for name in runs[0].strange:
                tables = [ood(run.test, run.strange[name], task=self.task) for run in runs]
                for i, score in enumerate(tables[0].score):
                    words = {"method": runs[0].title, "set": name, "score": score}
                    each = [
                        {"auroc": float(t.auroc[i]), "fpr95": float(t.fpr95[i])} for t in tables
                    ]
                    found.append(words | self._averaged(each))
        return Table.from_rows(found)

    def curves(self) -> dict[str, ShiftCurves]:
        """Metrics against the strength of corruption, by method."""
        out: dict[str, ShiftCurves] = {}
        for runs in self.rows:
            if not self.shifts or runs[0].clean is None:
                continue
            strengths = sorted({strength for _, strength in self.shifts})
            means: dict[str, dict[str, Tensor]] = {}
            errors: dict[str, dict[str, Tensor]] = {}
            for kind in dict.fromkeys(kind for kind, _ in self.shifts):
                at = [self.shifts.index((kind, strength)) for strength in strengths]
                each = [[run.clean, *(run.shifted[i] for i in at)] for run in runs]
                points = [
                    self._averaged([_metrics(p) for p in preds])
                    for preds in zip(*each, strict=True)
                ]
                means[kind] = {n: _column(points, n) for n in metric_names() if n in points[0]}
                if len(runs) > 1:
                    errors[kind] = {n: _column(points, n + SE) for n in means[kind]}
            out[runs[0].title] = ShiftCurves(torch.tensor([0, *strengths]), means, errors)
        return out

    def risks(self) -> dict[str, RiskCoverage]:
        """Error against coverage by method, the mean over runs."""
        if not isinstance(self.task, Classification):
            return {}
        out = {}
        for runs in self.rows:
            each = [selective(run.test, task=self.task) for run in runs]
            risk = torch.stack([one.risk for one in each]).mean(0)
            out[runs[0].title] = RiskCoverage(each[0].coverage, risk)
        return out

    def _figures(self, run: Judged) -> dict[str, float]:
        """Of one method in one run."""
        found = dict(run.test.metrics())
        if isinstance(self.task, Classification):
            found["aurc"] = selective(run.test, task=self.task).aurc
        if isinstance(self.task, Regression):
            found |= scores(run.test)
            if run.mixture is not None and run.test.targets is not None:
                found["crps"] = float(crps(run.test.targets, *run.mixture).mean())
        if run.shifted:
            each = [_metrics(pred) for pred in run.shifted]
            for name in metric_names():
                if name in each[0]:
                    found[f"{name}_corrupted"] = sum(one[name] for one in each) / len(each)
        for name, pred in run.strange.items():
            first = next(ood(run.test, pred, task=self.task).rows())
            found |= {f"auroc_{name}": first["auroc"], f"fpr95_{name}": first["fpr95"]}
        return found | {"samples": float(run.test.samples)}

    def _averaged(self, runs: Sequence[Metrics]) -> dict[str, float]:
        return mean_over_runs(runs, errors=self.many)


def _metrics(pred: Predictive | None) -> dict[str, float]:
    return {} if pred is None else pred.metrics()


def _column(points: list[dict[str, float]], name: str) -> Tensor:
    return torch.tensor([point[name] for point in points], dtype=torch.float64)
