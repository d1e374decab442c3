"""Results of studies and benchmarks in their READMEs, between two markers."""

from __future__ import annotations

import platform
from pathlib import Path

END = "<!-- end of results -->"


def rewrite(readme: Path, results: str, *, by: str = "run.py") -> None:
    """Replaces the text between the markers of the script `by` with new results."""
    start = f"<!-- results: written by {by} -->"
    before, marker, rest = readme.read_text().partition(start)
    if not marker:
        raise ValueError(f"{readme} has no line {start!r}")
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{start}\n\n{results}\n\n{END}{after}")


def processor() -> str:
    """The model name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
