"""What the studies and benchmarks write into their READMEs: results between two markers."""

from __future__ import annotations

import platform
from pathlib import Path

START, END = "<!-- results: written by run.py -->", "<!-- end of results -->"


def rewrite(readme: Path, results: str) -> None:
    """Puts results in the place of what stands between the markers."""
    before, _, rest = readme.read_text().partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n\n{results}\n\n{END}{after}")


def processor() -> str:
    """The machine's, as its makers call it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
