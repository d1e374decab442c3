"""`import lowland` against `import torch`, each in a fresh process."""

from __future__ import annotations

import subprocess
import sys

from common import Row, ms, paired, ratio, report


def importing(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True)


if __name__ == "__main__":
    ours, theirs = paired(
        lambda: importing("lowland"), lambda: importing("torch"), rounds=7, warm=1
    )
    report(
        [
            Row(
                "import lowland",
                "import torch",
                ratio(ours, theirs),
                "<= 1.3",
                f"{ms(ours)} against {ms(theirs)}",
            )
        ]
    )
