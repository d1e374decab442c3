"""Tables of named columns."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowland.errors import DataError
from lowland.metrics import metric_of
from lowland.records.base import Record
from lowland.records.latex import tabular

if TYPE_CHECKING:
    import pandas

Forms = dict[str, tuple[str, str]]  # column -> (heading, format)
SE = "_se"  # the ending of columns of standard errors


@dataclass(frozen=True, eq=False)
class Table(Record):
    """Named columns of one length: tensors (n,), or lists of strings. `table.nll` is a column.

    >>> table = Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])})
    >>> table.nll[1], len(table)
    (tensor(0.2500), 2)
    >>> print(table)
    method     nll
    SGD     0.5000
    SWA     0.2500
    """

    figure = "table"
    columns: dict[str, Any]

    def __post_init__(self) -> None:
        for name, values in self.columns.items():
            if not isinstance(values, Tensor | list | tuple) or getattr(values, "ndim", 1) == 0:
                raise DataError(f"columns: {name}: expected a tensor (n,) or a list, got {values}.")
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns: expected one length, got {lengths}.")

    def __getattr__(self, name: str) -> Any:
        # called for names that are no attribute; "columns" itself is missing while unpickling
        columns = self.__dict__.get("columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"no column {name!r}; there are {', '.join(columns)}.")

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]]) -> Table:
        """Rows as a table: numbers in float64, or strings; missing values are NaN or empty.

        >>> print(Table.from_rows([{"method": "SGD", "nll": 0.5}, {"method": "SWAG", "scale": 1}]))
        method     nll   scale
        SGD     0.5000     nan
        SWAG       nan  1.0000
        """
        rows = list(rows)
        columns: dict[str, Any] = {}
        for name in dict.fromkeys(name for row in rows for name in row):
            if any(isinstance(row.get(name), str) for row in rows):
                columns[name] = [row.get(name, "") for row in rows]
            else:
                values = [row.get(name, math.nan) for row in rows]
                columns[name] = torch.tensor(values, dtype=torch.float64)
        return cls(columns)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Rows as dicts of plain values."""
        lists = {name: _plain(values) for name, values in self.columns.items()}
        for i in range(len(self)):
            yield {name: values[i] for name, values in lists.items()}

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a pandas frame."""
        import pandas

        return pandas.DataFrame(list(self.rows()), columns=list(self.columns))

    def to_markdown(self) -> str:
        """The same as a table of Markdown, numbers with four decimals.

        >>> print(Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])}).to_markdown())
        | method | nll |
        | --- | ---: |
        | SGD | 0.5000 |
        | SWA | 0.2500 |
        """
        heading, *rows = self._cells()
        sides = ["---" if is_left else "---:" for is_left in self._left()]
        lines = [heading, sides, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def to_latex(self) -> str:
        r"""The same as a `tabular` of LaTeX's package booktabs, numbers with four decimals.

        >>> print(Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])}).to_latex())
        \begin{tabular}{lr}
        \toprule
        method & nll \\
        \midrule
        SGD & $0.5000$ \\
        SWA & $0.2500$ \\
        \bottomrule
        \end{tabular}
        """
        heading, *rows = self._cells()
        return tabular(heading, rows, left=self._left())

    def to_texts(self, forms: Forms | None = None) -> Table:
        """The columns for readers: each under a heading, with ± its standard errors behind it.

        Standard errors are the columns that end with `_se`. A missing number is `-`.

        Args:
            forms: the heading and the format of each column, in order; None: of all columns, with
                titles and formats of registered metrics, and four significant digits of others.

        >>> table = Table({"nll": torch.tensor([0.5, 0.25]), "nll_se": torch.tensor([0.1, 0.2])})
        >>> print(table.to_texts({"nll": ("NLL", "{:.2f}")}).to_markdown())
        | NLL |
        | ---: |
        | 0.50 ± 0.10 |
        | 0.25 ± 0.20 |
        """
        forms = self._forms() if forms is None else forms
        return Table({forms[name][0]: self._texts(name, forms[name][1]) for name in forms})

    def to_csv(self) -> str:
        """The same as comma-separated values, numbers with all their digits; NaN is `nan`.

        >>> Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])}).to_csv()
        'method,nll\\nSGD,0.5\\nSWA,0.25\\n'
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(row.values() for row in self.rows())
        return text.getvalue()

    def _forms(self) -> Forms:
        """Heading and format of each column but the standard errors."""
        forms: Forms = {}
        for name, values in self.columns.items():
            metric = metric_of(name)
            if metric is not None and metric.name == name:
                forms[name] = metric.title, metric.form
            elif name.removesuffix(SE) not in self.columns or not name.endswith(SE):
                forms[name] = name, "{:.4g}" if isinstance(values, Tensor) else "{}"
        return forms

    def _texts(self, name: str, form: str) -> list[str]:
        """The cells of a column, with ± its standard errors where there are any."""
        values, errors = self.columns[name], self.columns.get(f"{name}{SE}")
        texts = [_text(form, value) for value in _plain(values)]
        if errors is None:
            return texts
        constant = metric_of(name) is None  # such as networks: without an error of 0
        return [
            text
            if math.isnan(error) or (error == 0 and constant)
            else f"{text} ± {_error(form, error)}"
            for text, error in zip(texts, _plain(errors), strict=True)
        ]

    def _left(self) -> list[bool]:
        """Which columns are aligned left: those of texts that are no numbers."""
        return [
            not isinstance(values, Tensor) and not all(map(_NUMBER.match, map(str, values)))
            for values in self.columns.values()
        ]

    def _cells(self) -> list[list[str]]:
        """The texts of the heading and of each row."""
        rows = [[_cell(value) for value in row.values()] for row in self.rows()]
        return [list(self.columns), *rows]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                c.ljust(w) if lean else c.rjust(w)
                for c, w, lean in zip(row, widths, self._left(), strict=True)
            )
            for row in cells
        ]
        return "\n".join(line.rstrip() for line in lines)


_NUMBER = re.compile(r"[-+]?(\d|inf|nan|$)")


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else list(values)


def _text(form: str, value: Any) -> str:
    if isinstance(value, float) and math.isnan(value):
        return "-"
    if isinstance(value, float) and abs(value) >= 1e5:
        form = "{:.4g}"
    return form.format(value)


def _error(form: str, error: float) -> str:
    """A standard error; where the format has significant digits, with two of them."""
    if form.endswith("g}") and math.isfinite(error):
        return f"{float(f'{error:.2g}'):g}"
    return _text(form.replace("+", ""), error)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
