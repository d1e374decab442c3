"""`lowland compare`: how far the probabilities of finished runs can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lowland import plots
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import FinishedRun, load_runs
from lowland.cli.predictions import BASELINES, Judged, Predictions, joined
from lowland.cli.show import Bars, show_figures
from lowland.cli.strange import NOISE, Asked
from lowland.cli.summary import Summary
from lowland.cli.trust import Trust
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, StoreError
from lowland.metrics import metric_names
from lowland.records import Table
from lowland.runs.folder import locked, versions
from lowland.runs.stored import write_yaml
from lowland.uncertainty.corruption import CORRUPTIONS, STRENGTHS

_RECORD = "compare.yaml"
_JOINED = {"sgd": "Deep ensemble of {} runs", "swag": "MultiSWAG of {} runs"}


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN",
            help="Folders that `lowland run` made. Several must differ in the seed alone: figures "
            "are then means ± standard errors over them, and rows that join them are added.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where tables, records and pictures go: RUN/compare, or a folder `compare` beside "
            "the first of several.",
        ),
    ] = None,
    examples: Annotated[
        int,
        typer.Option(min=2, help="Examples of the test split that are corrupted; of strange sets."),
    ] = 2000,
    kinds: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,...",
            help=f"Corruptions, of {', '.join(CORRUPTIONS)}; none for none. All, where the data "
            "are images.",
        ),
    ] = None,
    strengths: Annotated[
        str, typer.Option(metavar="N,...", help="Strengths of corruption, of 1 to 5.")
    ] = "1,2,3,4,5",
    ood: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SET",
            help=f"Out-of-distribution rows: {', '.join(NOISE)} (with the moments of the run's "
            "own), package.module:callable, or '{name: ..., args: {...}}'; it may be given several "
            "times; none for none. Without it: noise.",
        ),
    ] = None,
    baselines: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help=f"Rows made from the annealed SGD run, of {', '.join(BASELINES)}; none for none. "
            "Without it: those that fit.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the corruptions' and sets' noise.")] = 0,
    trust: Trust = False,
) -> None:
    """Judge the uncertainty of finished runs: corrupted and strange rows, selective prediction.

    Predictions are kept in the folder: stop it at any moment, the same command goes on.
    """
    asked = Asked(
        kinds=_words(kinds),
        strengths=_strengths(strengths),
        ood=[] if ood == ["none"] else ood or None,
        baselines=_baselines(baselines),
        examples=examples,
        seed=seed,
    )
    execute(load_runs(runs, trust=trust), asked, None if out is None else out.expanduser())


def execute(runs: list[FinishedRun], asked: Asked, out: Path | None = None) -> Table:
    """Does what `lowland compare` does for runs that fit together."""
    console = Terminal()
    first = runs[0].folder.path
    place = out or (first / "compare" if len(runs) == 1 else first.parent / "compare")
    _require_ours(place)
    begun = Predictions(runs[0], asked, place / "predictions")  # checks all before it writes
    place.mkdir(parents=True, exist_ok=True)
    with locked(place):
        with using_threads(runs[0].threads):
            summary, notes = _judged(runs, begun, console)
        comparison = summary.comparison()
        _write(summary, comparison, runs, asked, place)
        with console.status("pictures"):
            pictures = _draw(summary, place / "pictures")
    _show(summary, comparison, asked, console)
    for note in notes:
        say(console, note)
    say(console, f"Results: {place}/")
    if pictures:
        say(console, f"Pictures: {', '.join(pictures)}")
    return comparison


def _require_ours(place: Path) -> None:
    """Raises `StoreError` where the folder holds anything but an earlier comparison."""
    if place.exists() and not place.is_dir():
        raise StoreError(f"{place} is a file; name a folder with --out.")
    holds = {p.name for p in place.iterdir()} if place.is_dir() else set()
    if holds - {"predictions", f".{_RECORD}.tmp"} and _RECORD not in holds:  # stopped, or done
        raise StoreError(
            f"{place} is not empty, and no earlier comparison; name another folder with --out."
        )


def _judged(
    runs: list[FinishedRun], begun: Predictions, console: Console
) -> tuple[Summary, list[str]]:
    """Every method of every run, and what joins runs."""
    found: dict[str, list[Judged]] = {}
    notes: dict[str, None] = {}
    task, shifts = begun.task, begun.strange.shifts
    with Bars(console) as bars:
        for run in runs:
            one = begun if run is begun.run else Predictions(run, begun.asked, begun.cache)
            for key, judged in one.judged(bars):
                found.setdefault(key, []).append(judged)
            notes |= dict.fromkeys(one.notes)
    rows = [one for one in found.values() if len(one) == len(runs)]
    if len(runs) > 1:
        for key, title in _JOINED.items():
            if key in found:
                rows.append([joined(title.format(len(runs)), found[key], task)])
    return Summary(rows, shifts, task), list(notes)


def _write(
    summary: Summary, comparison: Table, runs: list[FinishedRun], asked: Asked, place: Path
) -> None:
    body = {
        "runs": [str(run.folder.path) for run in runs],
        "seeds": [run.config.seed for run in runs],
        "asked": {**vars(asked), "strengths": list(asked.strengths)},
        "versions": versions(),
    }
    write_yaml(place / _RECORD, body, form="lowland-compare-1")
    records = place / "records"
    # what was asked for before, and is not now, would stand beside it
    tabled = ("differences.json", "shift.json", "shift-*.json", "ood.json", "selective-*.npz")
    drawn = ("selective.png", "shift-*.png")
    for folder, patterns in ((records, tabled), (place / "pictures", drawn)):
        for old in [file for pattern in patterns for file in folder.glob(pattern)]:
            old.unlink()
    comparison.save(records / "comparison.json")
    tables = {
        "differences": summary.differences(),
        "shift": summary.shift(),
        "ood": summary.strange(),
    }
    for name, table in tables.items():
        if len(table):
            table.save(records / f"{name}.json")
    for title, curve in summary.curves().items():
        curve.save(records / f"shift-{_file(title)}.json")
    for title, risk in summary.risks().items():
        risk.save(records / f"selective-{_file(title)}.npz")


def _draw(summary: Summary, folder: Path) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    done = []
    risks, curves = summary.risks(), summary.curves()
    if risks:
        plots.save(plots.risk_coverage(risks), folder / "selective.png")
        done.append("selective.png")
    held = {name for one in curves.values() for kind in one.curves.values() for name in kind}
    for metric in (name for name in metric_names(table="difference") if name in held):
        plots.save(plots.shift(curves, metric=metric), folder / f"shift-{metric}.png")
        done.append(f"shift-{metric}.png")
    return done


def _show(summary: Summary, comparison: Table, asked: Asked, console: Console) -> None:
    many = " (mean ± standard error over runs)" if summary.many else ""
    show_figures(comparison, "test", f"Test data{many}", console)
    differences = summary.differences()
    if len(differences):
        first = summary.rows[0][0].title
        show_figures(
            differences, "difference", f"Test data: difference to {first}, run by run", console
        )
    if summary.shifts:
        kinds = ", ".join(dict.fromkeys(kind.replace("_", " ") for kind, _ in summary.shifts))
        title = f"Corrupted: mean over {kinds}; strengths {', '.join(map(str, asked.strengths))}"
        show_figures(comparison, "corrupted", title, console)
    sets = summary.rows[0][0].strange
    for name in sets:
        title = f"Out of distribution, {name}: told from test data by {_score(summary)}"
        show_figures(comparison, "strange", title, console, of=name)


def _score(summary: Summary) -> str:
    return "variance" if summary.rows[0][0].test.variance is not None else "entropy"


def _words(text: str | None) -> list[str] | None:
    """A list by commas; `none` is an empty one."""
    if text is None:
        return None
    words = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    return [] if words == ["none"] else words


def _strengths(text: str) -> tuple[int, ...]:
    words = _words(text) or []
    if not words or any(word not in map(str, STRENGTHS) for word in words):
        raise ConfigError(f"--strengths: expected some of 1,2,3,4,5, got {text!r}.")
    return tuple(sorted({int(word) for word in words}))


def _baselines(text: str | None) -> list[str] | None:
    words = _words(text)
    for word in words or ():
        if word not in BASELINES:
            raise ConfigError(
                f"--baselines: expected some of {', '.join(BASELINES)}, or none, got {word!r}."
            )
    return words


def _file(title: str) -> str:
    """A title as part of a file's name."""
    return title.lower().replace(",", "").replace(" ", "-")
