r"""Formulas as MathML, converted while the site is built, so that pages load no script or font.

`pymdownx.arithmatex` finds the formulas, \( ... \) and \[ ... \], in pages and docstrings alike.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL
)  # as arithmatex writes it with `generic: true`


#: corrections of the converter's output: space between a function's name and its argument, and the
#: tilde as a relation
_REPLACEMENTS = (
    (re.compile(r"(<mi>(?:log|exp|det)</mi>)(?=<m[ifns])"), r'\1<mspace width="0.17em"/>'),
    (re.compile(r"<mi>&#x0007E;</mi>"), "<mo>&#x0223C;</mo>"),
)


def mathml(tex: str, *, display: str = "inline") -> str:
    r"""MathML of a formula; raises `ValueError` for a command that the converter does not know.

    >>> mathml(r"\sigma^2").partition("<mrow>")[2]
    '<msup><mi>&#x003C3;</mi><mn>2</mn></msup></mrow></math>'
    """
    formula_mathml = convert(tex, display=display)
    for pattern, replacement in _REPLACEMENTS:
        formula_mathml = pattern.sub(replacement, formula_mathml)
    unknown = re.search(r"\\[A-Za-z]+", formula_mathml)
    if unknown:
        raise ValueError(f"{unknown[0]} in the formula {tex}")
    return formula_mathml


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""

    def formula(match: re.Match[str]) -> str:
        tag, tex = match[1], html.unescape(match[2]).strip()
        try:
            formula_mathml = mathml(tex, display="block" if tag == "div" else "inline")
        except Exception as error:
            raise PluginError(f"{page.file.src_uri}: no MathML for {error!r}") from error
        return f'<{tag} class="formula">{formula_mathml}</{tag}>'

    return _FORMULA.sub(formula, content)
