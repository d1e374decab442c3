"""Tables of named columns."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lowland.errors import DataError
from lowland.records.base import Record

if TYPE_CHECKING:
    import pandas


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
        lists = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in self.columns.items()}
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
        sides = ["---" if isinstance(v, list) else "---:" for v in self.columns.values()]
        lines = [heading, sides, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

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

    def _cells(self) -> list[list[str]]:
        """The texts of the heading and of each row."""
        rows = [[_cell(value) for value in row.values()] for row in self.rows()]
        return [list(self.columns), *rows]

    def __str__(self) -> str:
        cells = self._cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        left = [isinstance(values, list) for values in self.columns.values()]
        lines = [
            "  ".join(
                c.ljust(w) if lean else c.rjust(w)
                for c, w, lean in zip(row, widths, left, strict=True)
            )
            for row in cells
        ]
        return "\n".join(line.rstrip() for line in lines)


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
