"""`import lowland` against `import torch`, each in a fresh process, from bytecode on disk."""

from __future__ import annotations

import os
import subprocess
import sys

from common import Row, ms, paired, ratio, report

# bytecode is written in the first, untimed round
ENVIRONMENT = {n: value for n, value in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}


def import_module(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True, env=ENVIRONMENT)


if __name__ == "__main__":
    lowland_times, torch_times = paired(
        lambda: import_module("lowland"), lambda: import_module("torch"), rounds=7, warm=1
    )
    report(
        [
            Row(
                "import lowland",
                "import torch",
                ratio(lowland_times, torch_times),
                "<= 1.3",
                f"{ms(lowland_times)} against {ms(torch_times)}",
            )
        ]
    )
