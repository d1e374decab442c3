"""The terminal of all commands: what it is given is shown as it is, and does nothing else."""

from __future__ import annotations

import sys
import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

#: Cc: control characters, escape among them; Cf: what turns the direction of text; Cs: halves of
#: characters, which no terminal can be sent; Zl, Zp: ends of lines
_HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")


def visible(text: str) -> str:
    r"""Control characters as they are written in Python, so that a terminal does not obey them.

    >>> visible("a name\x1b[31m\nof two lines")
    'a name\\x1b[31m\\nof two lines'
    """
    return "".join(c if unicodedata.category(c) not in _HIDDEN else repr(c)[1:-1] for c in text)


class Terminal(Console):
    """rich's console without markup: names of users may hold brackets and escape characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """What rich makes of every string that is printed, in the cells of tables too."""
        lines = text.split("\n")
        return super().render_str("\n".join(map(visible, lines)), **options)


def say(console: Console, text: str) -> None:
    """A line that is wrapped by the terminal alone, so that paths can be copied."""
    console.print(text, soft_wrap=True)


def complain(text: str) -> None:
    """An error, on standard error."""
    print(f"lowland: {visible(text)}", file=sys.stderr)
