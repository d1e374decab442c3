"""What came out, as frozen records that go to disk and come back.

A record holds tensors, numbers, strings and dicts of these. `.save(path)` writes `.json` (short
things, to be read by people) or `.npz` (arrays), after the path's ending; `.load(path)` gives the
record back. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from lowland.errors import StoreError
from lowland.files import PathLike, replacing, write_text

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Record:
    """Base of all records: to and from disk, and to a picture.

    In `.json` files numbers come back as float64 or int64 tensors, in `.npz` files as they were.
    """

    figure: ClassVar[str] = ""  # the file of lowland.plots that draws it

    def save(self, path: PathLike) -> Path:
        """Writes the record, atomically; a path without ending becomes `.npz`."""
        path = Path(path)
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        if path.suffix == ".json":
            body = {"record": type(self).__name__, **_lists(values)}
            write_text(path, json.dumps(body, indent=1) + "\n")
            return path
        path = _with_ending(path)
        arrays: dict[str, np.ndarray] = {}
        rest = _apart(values, "", arrays)
        header = json.dumps({"record": type(self).__name__, "fields": rest})
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{"record.json": np.array(header)}, **arrays)  # type: ignore[arg-type]
        return path

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads a record of this class; raises `StoreError` for damaged or foreign files."""
        path = _with_ending(Path(path))
        try:
            if path.suffix == ".json":
                body = json.loads(path.read_text(encoding="utf-8"))
                name, values = body.pop("record"), _tensors(body)
            else:
                # opened here: np.load leaves damaged files open
                with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                    header = json.loads(str(file["record.json"]))
                    name, values = header["record"], _together(header["fields"], file)
        except FileNotFoundError:
            raise StoreError(f"{path}: no such record; check the path.") from None
        except Exception as error:
            raise StoreError(f"{path}: not a record, or a damaged one ({error}).") from error
        if name != cls.__name__:
            raise StoreError(f"{path}: expected a {cls.__name__}, found a {name}.")
        try:
            return cls(**values)
        except TypeError as error:
            raise StoreError(f"{path}: a {name} of another version of lowland ({error}).") from None

    def plot(self, *, ax: Axes | None = None, **options: Any) -> Axes:
        """Draws the record with matplotlib (the `plots` extra) and returns the axes."""
        from lowland import plots

        return plots.draw(self.figure, self, ax=ax, **options)


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
        """Rows as a table: numbers in float64, or words; what a row lacks is NaN, or empty.

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

    def __str__(self) -> str:
        cells = [list(self.columns)]
        cells += [[_cell(value) for value in row.values()] for row in self.rows()]
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


@dataclass(frozen=True, eq=False)
class TrainingLog(Record):
    """A training run, one entry per epoch; `averages` holds other curves over epochs, by name.

    `columns`: epoch (epochs done), loss (mean over the epoch, training mode), lr, seconds, and
    what the `validate` function gave. `averages`: {name: {"epoch": (m,), "nll": (m,)}}.
    """

    figure = "training"
    columns: dict[str, Tensor]
    averages: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time spent in training, all sittings together."""
        return float(self.columns["seconds"].sum())


@dataclass(frozen=True, eq=False)
class Reliability(Record):
    """Confidence against accuracy in equal bins of confidence: (bins,) each; empty bins are NaN."""

    figure = "reliability"
    confidence: Tensor
    accuracy: Tensor
    count: Tensor

    @property
    def ece(self) -> float:
        """Expected calibration error: |accuracy - confidence|, weighted by count."""
        gap = (self.accuracy - self.confidence).abs().nan_to_num(0.0)
        return float((gap * self.count).sum() / self.count.sum())


@dataclass(frozen=True, eq=False)
class RiskCoverage(Record):
    """Selective prediction: the error on the surest rows, against their share; (N,) each.

    >>> record = RiskCoverage(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5]))
    >>> record.aurc, record.excess
    (0.25, 0.0)
    """

    figure = "risk_coverage"
    coverage: Tensor
    risk: Tensor

    @property
    def aurc(self) -> float:
        """Area under the curve: the mean of the risk over coverages 1/N, 2/N... 1."""
        return float(self.risk.double().mean())

    @property
    def excess(self) -> float:
        """AURC less that of the best order of the same rows, every wrong one last (0-1 loss)."""
        n = len(self.risk)
        right = n - round(n * float(self.risk[-1]))
        covered = torch.arange(1, n + 1, dtype=torch.float64)
        return self.aurc - float(((covered - right).clamp_min(0) / covered).mean())


@dataclass(frozen=True, eq=False)
class ShiftCurves(Record):
    """Metrics under corruptions of growing strength: for each kind, (S,) of each metric.

    `strength`: (S,), 0 for the clean rows. `curves`: {kind: {"nll": (S,), ...}}, mean over runs
    where there are several, and then `errors`, of the same form, their standard errors.

    >>> nll = {
    ...     "noise": {"nll": torch.tensor([0.25, 0.5])},
    ...     "blur": {"nll": torch.tensor([0.25, 1])},
    ... }
    >>> ShiftCurves(torch.tensor([0, 1]), nll).mean("nll")
    tensor([0.2500, 0.7500])
    """

    figure = "shift"
    strength: Tensor
    curves: dict[str, dict[str, Tensor]]
    errors: dict[str, dict[str, Tensor]] = field(default_factory=dict)

    def mean(self, metric: str) -> Tensor:
        """Mean over kinds of one metric, (S,)."""
        return torch.stack([curve[metric] for curve in self.curves.values()]).mean(0)


@dataclass(frozen=True, eq=False)
class Predictive(Record):
    """A model average over a loader: N rows, C classes or D targets.

    Fields that do not apply, or that `keep=` left out, are None.

    Attributes:
        probs: (N, C, ...), the mean of probabilities over samples.
        mean, variance: (N, D), of the predictive mixture, in the target's own units; `variance`
            is total: mean of variances plus variance of means.
        entropy, mutual_information: (N,), in nats: of the average, and what of it comes from
            disagreement between samples.
        targets: the loader's, where it has them, in their own units.
        target_log_prob: (items,), log of the mean likelihood over samples.
        nll_by_samples: (S,), the NLL of the average of the first s samples.
        figures: what `metrics()` gives.
    """

    figure = "predictive"
    kind: str
    samples: int
    probs: Tensor | None = None
    mean: Tensor | None = None
    variance: Tensor | None = None
    entropy: Tensor | None = None
    mutual_information: Tensor | None = None
    targets: Tensor | None = None
    target_log_prob: Tensor | None = None
    nll_by_samples: Tensor | None = None
    reliability: dict[str, Tensor] | None = None
    figures: dict[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """accuracy, nll, ece, brier | rmse, nll, nll_gaussian, coverage; {} without targets."""
        return dict(self.figures)


def _with_ending(path: Path) -> Path:
    return path if path.suffix in (".json", ".npz") else path.with_name(f"{path.name}.npz")


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _lists(node: Any) -> Any:
    """Tensors made lists."""
    if isinstance(node, Tensor):
        return node.tolist()
    if isinstance(node, dict):
        return {key: _lists(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_lists(value) for value in node]
    return node


def _tensors(node: Any) -> Any:
    """Lists of numbers made tensors."""
    if isinstance(node, dict):
        return {key: _tensors(value) for key, value in node.items()}
    if isinstance(node, list) and not _holds(node, str | dict | None):
        integers = not _holds(node, float)
        return torch.tensor(node, dtype=torch.int64 if integers and node else torch.float64)
    if isinstance(node, list):
        return [_tensors(value) for value in node]
    return node


def _holds(node: Any, kinds: Any) -> bool:
    if isinstance(node, list):
        return any(_holds(value, kinds) for value in node)
    return isinstance(node, kinds)


def _apart(node: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """Moves tensors into `arrays` under their path, and leaves the path in their place."""
    if isinstance(node, Tensor):
        node = node.detach().cpu()
        arrays[path] = (node.float() if node.dtype == torch.bfloat16 else node).numpy()
        return {"array": path}
    if isinstance(node, dict):
        body = {key: _apart(value, f"{path}/{key}", arrays) for key, value in node.items()}
        return {"dict": body}
    return node


def _together(node: Any, arrays: Any) -> Any:
    if isinstance(node, dict) and "array" in node:
        return torch.from_numpy(arrays[node["array"]])
    if isinstance(node, dict):
        return {key: _together(value, arrays) for key, value in node["dict"].items()}
    return node
