"""Progress of long studies, for a log."""

from __future__ import annotations

import time


class Lines:
    """A line on the progress of a run, now and then."""

    def __init__(self, label: str, seconds: float = 30.0) -> None:
        self.label, self.seconds = label, seconds
        self.began = self.told = time.monotonic()
        self.first: int | None = None
        self.last = 0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        self.first = done if self.first is None else self.first
        fresh = done > self.last and (now - self.told >= self.seconds or done == total)
        if total and done > self.first and fresh:
            self.told, self.last = now, done
            left = (now - self.began) / (done - self.first) * (total - done)
            print(f"{self.label}: step {done} of {total}, {left:.0f} s left", flush=True)
