"""`import lowland` and all its names against `import torch`, each in a fresh process, from bytecode
on disk. The names are imported when they are first used: `import lowland` alone takes no torch."""

from __future__ import annotations

import os
import subprocess
import sys

from common import Row, ms, paired, ratio, report

# bytecode is written in the first, untimed round
ENVIRONMENT = {n: value for n, value in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


def row(code: str, times: list[float], torch_times: list[float], reach: str) -> Row:
    detail = f"{ms(times)} against {ms(torch_times)}"
    return Row(code, "import torch", ratio(times, torch_times), reach, detail)


if __name__ == "__main__":
    package, names = "import lowland", "from lowland import *"
    package_times, names_times, torch_times = paired(
        lambda: python(package),
        lambda: python(names),
        lambda: python("import torch"),
        rounds=7,
        warm=1,
    )
    report(
        [
            row(package, package_times, torch_times, "<= 0.1"),
            row(names, names_times, torch_times, "<= 1.3"),
        ]
    )
