"""Tables for LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

_SPECIAL = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{sign: f"{{{sign}}}" for sign in "[*"},  # arguments of the \\ of the row before
        "±": r"$\pm$",
    }
)
_NUMBER = r"[-+]?\d+(\.\d+)?(e[-+]\d+)?"
_NUMBERS = re.compile(rf"{_NUMBER}( ?± ?{_NUMBER})?")


def tabular(heading: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[bool]) -> str:
    r"""A `tabular` of the package booktabs; numbers are in mathematics, and ± is \pm.

    Args:
        heading: a text for each column. rows: the same of each row. left: whether a column is
            aligned left, as texts are.

    >>> print(tabular(["method", "NLL"], [["SGD", "0.50 ± 0.01"]], left=[True, False]))
    \begin{tabular}{lr}
    \toprule
    method & NLL \\
    \midrule
    SGD & $0.50 \pm 0.01$ \\
    \bottomrule
    \end{tabular}
    """
    sides = "".join("l" if is_left else "r" for is_left in left)
    lines = [" & ".join(map(_cell, row)) + r" \\" for row in (heading, *rows)]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{sides}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
        ]
    )


def _cell(text: str) -> str:
    text = " ".join(text.split())  # an empty line would end the paragraph
    if not _NUMBERS.fullmatch(text):
        return text.translate(_SPECIAL)
    power = re.sub(r"e([-+]\d+)", lambda e: rf" \cdot 10^{{{int(e[1])}}}", text)
    number = re.sub(" ?± ?", r" \\pm ", power)
    return f"${number}$"
