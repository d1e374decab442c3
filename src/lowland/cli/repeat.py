"""One configuration for many values of a key: data splits, seeds. One table of them all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lowland.cli.config import Config, check_config
from lowland.cli.show import show_repeated
from lowland.errors import ConfigError
from lowland.records import Table


def repeated(config: Config, execute: Callable[[Config], Table]) -> Table:
    """Runs each value in a folder of its own inside of `out`, and compares means over them.

    The table has a row a method: mean and standard error of each figure, and of its differences to
    the first method in the same runs. Runs that are done are read, not run again.
    """
    assert config.repeat is not None
    console = Console()
    over, values = config.repeat.over, config.repeat.each()
    each = [one_of(config, over, value) for value in values]  # all checked before the first runs
    found = []
    for number, (value, one) in enumerate(zip(values, each, strict=True), start=1):
        console.print(f"{over}={value} ({number} of {len(values)})", highlight=False)
        found.append(execute(one))
    table = summary(found)
    path = Path(config.out).expanduser() / "comparison.json"
    table.save(path)
    show_repeated(table, f"Over {len(values)} values of {over}: mean ± standard error", console)
    console.print(f"Results: {path}", soft_wrap=True, highlight=False)
    return table


def one_of(config: Config, over: str, value: Any) -> Config:
    """The configuration of one value."""
    settings = config.model_dump(mode="json") | {"repeat": None}
    *sections, last = over.split(".")
    inner = settings
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"repeat.over: {over}: {section} is not a section.")
    if over == "out" or isinstance(inner.get(last), dict):
        raise ConfigError(f"repeat.over: expected a key with a value, got {over}.")
    inner[last] = value
    settings["out"] = str(Path(config.out) / f"{last}-{value}")
    return check_config(settings, where=f"{over}={value}")


def summary(tables: list[Table]) -> Table:
    """Mean and standard error over runs, and of differences to the first method.

    >>> runs = [
    ...     Table({"method": ["a", "b"], "nll": torch.tensor([1.0, low])}) for low in (0.0, 2.0)
    ... ]
    >>> found = summary(runs)
    >>> found.nll.tolist(), found.nll_error.tolist(), found.nll_difference.tolist()
    ([1.0, 1.0], [0.0, 1.0], [0.0, 0.0])
    """
    methods = tables[0].method
    columns: dict[str, Any] = {"method": methods}
    for name, first in tables[0].columns.items():
        if not isinstance(first, torch.Tensor):
            continue
        every = torch.stack([table.columns[name].double() for table in tables])  # (runs, methods)
        columns |= dict(zip((name, f"{name}_error"), _mean(every), strict=True))
        pair = _mean(every - every[:, :1])
        columns |= dict(zip((f"{name}_difference", f"{name}_difference_error"), pair, strict=True))
    return Table(columns)


def _mean(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # (runs, methods)
    runs = len(values)
    error = values.std(0) / runs**0.5 if runs > 1 else torch.full_like(values[0], torch.nan)
    return values.mean(0), error
