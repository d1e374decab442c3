"""Tables for LaTeX: special characters are escaped, and rows end where they should."""

import re
import shutil
import subprocess

import pytest

from lowland.records.latex import tabular

HOSTILE = [
    "50% of a_b & c",
    "$x^2$ #1 ~ {y} \\newpage",
    "[2pt] is no argument",
    "*",
    "an empty\n\nline",
    "1e+05 samples",
]


def cells(text):
    """The cells of a row whose separators are not escaped."""
    assert text.endswith(r" \\")
    return re.split(r"(?<!\\)&", text.removesuffix(r"\\"))


@pytest.mark.parametrize("label", HOSTILE)
def test_no_text_of_a_cell_is_a_command(label):
    lines = tabular(["method", "NLL"], [[label, "0.5"]], left=[True, False]).splitlines()
    heading, row = lines[2], lines[4]
    assert cells(heading) == ["method ", " NLL "]
    assert len(cells(row)) == 2
    text = cells(row)[0]
    bare = re.sub(r"\\(text\w+\{\}|[&%$#_{}])", "", text)  # without what is escaped
    assert not re.search(r"[&%$#_~^\\]", bare)
    assert not re.match(r"[*\[]", text)
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("-0.0123 ± 0.0004", r"$-0.0123 \pm 0.0004$"),
        ("+0.5±0.25", r"$+0.5 \pm 0.25$"),
        ("30", "$30$"),
        ("1.235e+05", r"$1.235 \cdot 10^{5}$"),
        ("1.2e-07 ± 3e-08", r"$1.2 \cdot 10^{-7} \pm 3 \cdot 10^{-8}$"),
        ("-", "-"),
        ("mean ± error", r"mean $\pm$ error"),
    ],
)
def test_numbers_are_mathematics(text, cell):
    row = tabular(["x"], [[text]], left=[False]).splitlines()[4]
    assert row == rf"{cell} \\"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs LaTeX")
def test_latex_compiles_it(tmp_path):
    table = tabular(["50% & more"], [[label] for label in HOSTILE], left=[True])
    source = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n%s\n\\end{document}"
    (tmp_path / "table.tex").write_text(source % table, encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "table.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
