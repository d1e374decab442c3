"""Progress bars in the terminal; lines in a file."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from lowland.artifacts import Artifact
from lowland.cli.console import visible
from lowland.progress import Report

SECONDS = 30.0  # between lines on the progress of a stage, where there is no terminal


class Bars:
    """Progress bars with the time left, one for each stage."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._by_title: dict[str, Report] = {}

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def add(self, label: str) -> Callable[[int, int | None], None]:
        """A bar for a stage, in files a line now and then: call the result with (done, total)."""
        if not self._console.is_terminal:
            return self._lines(label)
        task = self._bars.add_task(visible(label), total=None)
        return lambda done, total: self._bars.update(task, completed=done, total=total)

    def of(self, artifact: Artifact) -> Report:
        """A bar for all artifacts of one title; none is shown for what takes a moment."""
        if artifact.quick:
            return lambda done, total: None
        if artifact.title not in self._by_title:
            self._by_title[artifact.title] = self.add(artifact.title)
        return self._by_title[artifact.title]

    def _lines(self, label: str) -> Callable[[int, int | None], None]:
        start = previous = time.monotonic()
        last = 0

        def report(done: int, total: int | None) -> None:
            nonlocal previous, last
            now = time.monotonic()
            if done > last and (done == total or now - previous >= SECONDS):
                previous, last = now, done
                of = "" if total is None else f" of {total}"
                self._console.print(f"{label}: {done}{of}, {now - start:.0f} s")

        return report
