"""Progress of long studies, for a log."""

from __future__ import annotations

import time


class ProgressLines:
    """Prints a line at most every `seconds`, with the step and the time left."""

    def __init__(self, label: str, seconds: float = 30.0) -> None:
        self.label, self.seconds = label, seconds
        self.start = self.last_print = time.monotonic()
        self.first_step: int | None = None
        self.last_step = 0

    def __call__(self, step: int, total: int | None) -> None:
        now = time.monotonic()
        self.first_step = step if self.first_step is None else self.first_step
        due = now - self.last_print >= self.seconds or step == total
        if total and step > self.first_step and step > self.last_step and due:
            self.last_print, self.last_step = now, step
            rest = (now - self.start) / (step - self.first_step) * (total - step)
            print(f"{self.label}: step {step} of {total}, {rest:.0f} s left", flush=True)
