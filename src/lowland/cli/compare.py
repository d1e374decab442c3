"""`lowland compare`: how far the probabilities of finished runs can be trusted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lowland.artifacts import Artifact
from lowland.artifacts.nodes import GRAPH
from lowland.artifacts.order import complete
from lowland.artifacts.places import ARTIFACTS
from lowland.artifacts.view import hide_others
from lowland.cli.arguments import out_option
from lowland.cli.builder import Builder
from lowland.cli.compared import ComparedRun
from lowland.cli.comparison_curves import (
    RiskRecord,
    ShiftRecord,
    selective_picture,
    shift_picture,
)
from lowland.cli.comparison_tables import (
    ComparisonTable,
    DifferencesTable,
    OODTable,
    ShiftTable,
)
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.method_metrics import MethodMetrics, MethodRow
from lowland.cli.ood import NOISE, CompareOptions
from lowland.cli.options import Keys, with_section_options
from lowland.cli.predictions import MethodPredictions, pooled
from lowland.cli.tables import show_metrics
from lowland.cli.trust import Trust
from lowland.core import Classification
from lowland.core.threads import using_threads
from lowland.files import require_own
from lowland.metrics import metric_names
from lowland.records import Table
from lowland.runs.folder import versions
from lowland.runs.results import External
from lowland.runs.stored import read_yaml, write_yaml

_SETTINGS = "compare.yaml"
_FORMAT = "lowland-compare-2"
_POOLED = {"sgd": "Deep ensemble of {} runs", "swag": "MultiSWAG of {} runs"}


@with_section_options
def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders that `lowland run` made. Several must differ in the seed alone: metrics "
            "are then means ± standard errors over them, and pools over them are added.",
        ),
    ],
    options: Annotated[CompareOptions, Keys(but=("ood",))],
    out: Annotated[
        Path | None, out_option("RUN/compare, or `compare` beside the first of several runs")
    ] = None,
    ood: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET",
            help=f"Out-of-distribution examples: {', '.join(NOISE)} (with the moments of the run's "
            "own), package.module:callable, or '{name: ..., args: {...}}'; it may be given several "
            "times; none for none. Without it: noise.",
        ),
    ] = None,
    trust: Trust = False,
) -> None:
    """Evaluate the uncertainty of finished runs: corruption, other data, selective prediction.

    Stop it at any moment; the same command goes on where it stopped. With other options what
    depends on them is built again, and the rest is kept.
    """
    sets = [] if ood == ["none"] else ood or None
    options = options.model_copy(update={"ood": sets})
    execute(load_runs(runs, trust=trust), options, None if out is None else out.expanduser())


def execute(runs: list[FinishedRun], options: CompareOptions, out: Path | None = None) -> Table:
    """Does what `lowland compare` does for runs that fit together."""
    first = runs[0].folder.path
    path = out or (first / "compare" if len(runs) == 1 else first.parent / "compare")
    _require_own(path)
    builder = Builder(path, Terminal(), threads=runs[0].plan.threads)
    graph = builder.graph
    with using_threads(builder.threads):
        compared = [ComparedRun(run, options, is_done=graph.is_done) for run in runs]
        comparison = Comparison(compared)
    targets = complete(comparison.targets())
    for each in [each for artifact in graph.needed(targets) for each in artifact.inputs]:
        if isinstance(each, External):
            each.require()
    _write_settings(path, runs, options)  # all was checked before
    builder.build(targets)
    hide_others(path, targets)
    _show(comparison, builder, options)
    for note in dict.fromkeys(note for run in compared for note in run.notes):
        say(builder.console, note)
    builder.say_results()
    table: Table = builder.load(comparison.table)
    return table


class Comparison:
    """The tables, curves and pictures of runs.

    Attributes:
        rows: the methods that all runs have, then the pools over several runs.
    """

    def __init__(self, runs: Sequence[ComparedRun]) -> None:
        self.corruptions = runs[0].shifted.corruptions
        self.sets = list(runs[0].shifted.sets)
        self.task = runs[0].setup.task
        self.rows = self._rows(runs)
        self.table = ComparisonTable(self.rows)
        single = [row for row in self.rows if len(row.runs) == len(runs)]
        self.differences = DifferencesTable(self.rows) if len(runs) > 1 < len(single) else None

    def targets(self) -> list[Artifact]:
        """What the folder shows."""
        targets: list[Artifact] = [self.table]
        if self.differences is not None:
            targets.append(self.differences)
        if self.sets:
            targets.append(OODTable(self.rows))
        if isinstance(self.task, Classification):
            risks = {row.title: RiskRecord(row, self.task) for row in self.rows}
            targets.append(selective_picture(risks))
        if self.corruptions:
            targets.append(ShiftTable(self.rows, self.corruptions))
            curves = {row.title: ShiftRecord(row, self.corruptions) for row in self.rows}
            targets += [shift_picture(curves, name) for name in metric_names(table="difference")]
        return targets

    def _rows(self, runs: Sequence[ComparedRun]) -> list[MethodRow]:
        methods: dict[str, list[MethodMetrics]] = {}
        for run in runs:
            for predictions in run.methods():
                metrics = self._metrics(run.prefix, predictions)
                methods.setdefault(predictions.key, []).append(metrics)
        rows = [MethodRow(tuple(each)) for each in methods.values() if len(each) == len(runs)]
        for key, title in _POOLED.items() if len(runs) > 1 else ():
            if key in methods:
                members = [each.predictions for each in methods[key]]
                pool = pooled(title.format(len(runs)), members, task=self.task)
                rows.append(MethodRow((self._metrics("pooled", pool),)))
        return rows

    def _metrics(self, prefix: str, predictions: MethodPredictions) -> MethodMetrics:
        return MethodMetrics(prefix, predictions, self.corruptions, self.task)


def _require_own(path: Path) -> None:
    """Raises `StoreError` where the folder holds anything but an earlier comparison."""
    rest = (GRAPH, ARTIFACTS)
    require_own(path, [_SETTINGS], rest=rest, content="earlier comparison", option="--out")
    file = path / _SETTINGS
    if file.is_file():  # of another version: refused
        read_yaml(file, dict[str, Any], form=_FORMAT, advice="name another folder with --out")


def _write_settings(path: Path, runs: list[FinishedRun], options: CompareOptions) -> None:
    body = {
        # from here, so that runs and the comparison can be moved together
        "runs": [os.path.relpath(run.folder.path, path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "options": options.model_dump(),
        "versions": versions(),
    }
    path.mkdir(parents=True, exist_ok=True)
    write_yaml(path / _SETTINGS, body, form=_FORMAT)


def _show(comparison: Comparison, builder: Builder, options: CompareOptions) -> None:
    console = builder.console
    table: Table = builder.load(comparison.table)
    many = " (mean ± standard error over runs)" if comparison.table.many else ""
    show_metrics(table, "test", f"Test data{many}", console)
    if comparison.differences is not None:
        title = f"Test data: difference to {comparison.rows[0].title}, run by run"
        show_metrics(builder.load(comparison.differences), "difference", title, console)
    if comparison.corruptions:
        kinds = dict.fromkeys(each.kind.replace("_", " ") for each in comparison.corruptions)
        strengths = ", ".join(map(str, options.strengths))
        title = f"Corrupted: mean over {', '.join(kinds)}; strengths {strengths}"
        show_metrics(table, "corrupted", title, console)
    score = "entropy" if isinstance(comparison.task, Classification) else "variance"
    for name in comparison.sets:
        title = f"Out of distribution, {name}: separated from test data by {score}"
        show_metrics(table, "ood", title, console, of=name)
