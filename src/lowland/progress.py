"""Progress of long work: a callable of (done, total), or rich's bar with the time left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lowland.errors import LowlandError

Report = Callable[[int, int | None], None]
Progress = bool | Report


@contextmanager
def reporting(progress: Progress, label: str) -> Iterator[Report]:
    """Yields the function to call as `report(done, total)`; True draws a bar on standard error.

    >>> with reporting(lambda done, total: print(done, total), "work") as report:
    ...     report(1, 2)
    1 2
    """
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda done, total: None
    else:
        with _bar(label) as report:
            yield report


@contextmanager
def _bar(label: str) -> Iterator[Report]:
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        raise LowlandError(
            'progress=True needs rich: pip install "lowland[cli]", or pass a callable(done, total).'
        ) from None
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
