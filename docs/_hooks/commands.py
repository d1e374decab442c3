"""Writes the reference of the command line into its page, from the text of `--help`."""

import subprocess
import sys
from typing import Any

_PLACE = "<!-- commands -->"


def reference() -> str:
    """Every command with its arguments and options, as Markdown.

    >>> reference().splitlines()[0]
    '## `lowland run`'
    """
    command = [
        sys.executable,
        "-m",
        "typer",
        "lowland.cli.app",
        "utils",
        "docs",
        "--name",
        "lowland",
    ]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    # the text before the first command lists them all, as the contents of the page do
    return output[output.index("## ") :].strip()


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with each page before it is rendered."""
    return markdown.replace(_PLACE, reference()) if _PLACE in markdown else markdown
