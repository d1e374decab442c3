"""The command line of lowland, called by the studies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def lowland(name: str, arguments: list[str], out: Path) -> int:
    """Runs `lowland ARGUMENTS` on one thread, prints into `out/NAME.log`, returns the exit code."""
    with open(out / f"{name}.log", "a") as log:
        return subprocess.run(
            [sys.executable, "-m", "lowland", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
