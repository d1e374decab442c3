"""One configuration for several values of a key, such as data splits or seeds, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lowland.cli.aggregate import Metrics, mean_over_runs, paired_differences
from lowland.cli.console import Terminal, say
from lowland.cli.tables import show_metrics
from lowland.errors import ConfigError
from lowland.records import Table
from lowland.runs.config import check_config, put
from lowland.runs.sections import Config

COMPARISON, DIFFERENCES = "comparison.json", "differences.json"


def repeated(config: Config, execute: Callable[[Config], Table]) -> tuple[Table, Table]:
    """Runs each value in a folder of its own inside `out`, and compares means over the runs.

    comparison.json has the mean and standard error of each metric, a row a method, and
    differences.json those of the differences to the first method in the same runs: it returns
    these two. Finished runs are read, not run again.
    """
    assert config.repeat is not None
    console = Terminal()
    over, values = config.repeat.over, config.repeat.each()
    each = [config_of(config, over, value) for value in values]  # all checked before the first runs
    folders = [one.out for one in each]
    twice = [value for value, out in zip(values, folders, strict=True) if folders.count(out) > 1]
    same = [one.model_dump(exclude={"out"}) for one in each]
    twice += [value for value, one in zip(values, same, strict=True) if same.count(one) > 1]
    if twice:
        raise ConfigError(f"repeat.values: {twice[0]} is named twice, and would count twice.")
    tables = []
    for number, (value, one) in enumerate(zip(values, each, strict=True), start=1):
        say(console, f"{over}={value} ({number} of {len(values)})")
        tables.append(execute(one))
    comparison, pairs = summary(tables)
    path = Path(config.out).expanduser()
    comparison.save(path / COMPARISON)
    title = f"Over {len(values)} values of {over}: mean ± standard error"
    show_metrics(comparison, "run", title, console)
    if len(pairs):
        pairs.save(path / DIFFERENCES)
        title = f"Difference to {comparison.method[0]}, run by run"
        show_metrics(pairs, "run difference", title, console)
    else:
        (path / DIFFERENCES).unlink(missing_ok=True)  # of more values, earlier
    say(console, f"Results: {path / COMPARISON}")
    return comparison, pairs


def config_of(config: Config, over: str, value: Any) -> Config:
    """The configuration of one value."""
    settings = config.model_dump() | {"repeat": None}
    old = put(settings, over, value, where=f"repeat.over: {over}")
    if over == "out" or isinstance(old, dict):
        raise ConfigError(f"repeat.over: expected a key with a value, got {over}.")
    settings["out"] = str(Path(config.out) / f"{over.rpartition('.')[2]}-{value}")
    return check_config(settings, where=f"{over}={value}")


def summary(tables: Sequence[Table]) -> tuple[Table, Table]:
    """Means over runs, and of differences to the first method: a row a method in both.

    >>> import torch
    >>> runs = [
    ...     Table({"method": ["a", "b"], "nll": torch.tensor([1.0, low])}) for low in (0.0, 2.0)
    ... ]
    >>> comparison, pairs = summary(runs)
    >>> comparison.nll.tolist(), comparison.nll_se.tolist(), pairs.method, pairs.nll.tolist()
    ([1.0, 1.0], [0.0, 1.0], ['b'], [0.0])
    """
    runs: dict[str, list[Metrics]] = {}
    for one in tables:
        for row in one.rows():
            runs.setdefault(row.pop("method"), []).append(row)
    means = [{"method": method, **mean_over_runs(each)} for method, each in runs.items()]
    return Table.from_rows(means), paired_differences(runs)
