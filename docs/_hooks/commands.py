"""Writes the reference of the command line into its page, from what `--help` says."""

import subprocess
import sys
from typing import Any

_PLACE = "<!-- commands -->"


def reference() -> str:
    """Every command with its arguments and options, as Markdown.

    >>> reference().splitlines()[0]
    '## `lowland run`'
    """
    asked = [sys.executable, "-m", "typer", "lowland.cli.app", "utils", "docs", "--name", "lowland"]
    made = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    # what comes before the first command is a list of them, which the page has as its contents
    return made[made.index("## ") :].strip()


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with each page before it is rendered."""
    return markdown.replace(_PLACE, reference()) if _PLACE in markdown else markdown
