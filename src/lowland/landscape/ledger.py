"""What a scan has found so far, in a file: a line of settings, then a checksummed line a chunk.

A kill at any byte costs the chunk under way. Values stand at full precision and the plan is kept,
so that a scan that goes on makes the same chunks as one that was never stopped: equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from lowland.artifacts.checkpoint import require_same
from lowland.core.options import Plan
from lowland.errors import StoreError
from lowland.files import PathLike, atomic_write
from lowland.landscape.figures import Row
from lowland.trajectory.journal import journal_line, read_journal

FORMAT = "lowland-scan-1"


class PlanFields(TypedDict):
    """How points are evaluated."""

    strategy: Literal["points", "batches", "vmap"]
    chunk: int
    threads: int


class Header(TypedDict):
    """The first line."""

    format: str
    settings: dict[str, Any]
    plan: PlanFields


class Chunk(TypedDict):
    """Each other line."""

    points: list[int]
    names: list[str]
    values: list[list[float]]


class Ledger:
    """The chunks of a scan in the order in which they were evaluated; in memory without a path.

    Args:
        path: the file, made by `start`; None: nothing is kept. settings: of this scan, plain data:
            a file of others is refused.

    Attributes:
        plan: how points are evaluated, as the file says; None before `start`.

    Raises:
        ConfigError: the file is of a scan with other settings. StoreError: it is no scan.

    >>> ledger = Ledger(None, {"resolution": [2]})
    >>> ledger.start(Plan("points", 1, 1))
    >>> ledger.write([0], [{"loss": 0.5}])
    """

    def __init__(self, path: PathLike | None, settings: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.settings = dict(settings)
        self.plan: Plan | None = None
        self._chunks: list[tuple[list[int], list[Row]]] = []  # of the file, to be replayed
        self._next = 0
        self._end = 0  # of what is whole
        self._file: IO[bytes] | None = None
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def start(self, plan: Plan) -> None:
        """Begins a file, or goes on with the one that was read."""
        if self.path is not None and self.plan is None:
            header = {
                "format": FORMAT,
                "settings": self.settings,
                "plan": {"strategy": plan.strategy, "chunk": plan.chunk, "threads": plan.threads},
            }
            line = journal_line(header)
            with atomic_write(self.path) as temporary:
                temporary.write_bytes(line)
            self._end = len(line)
        self.plan = plan

    def replay(self, points: Sequence[int]) -> list[Row]:
        """Rows of the first of these points, as far as the file goes on with them."""
        found: list[Row] = []
        while self._next < len(self._chunks) and len(found) < len(points):
            indices, rows = self._chunks[self._next]
            if list(points[len(found) : len(found) + len(indices)]) != indices:
                raise StoreError(
                    f"{self.path}: its points are not those that this scan comes to; remove the "
                    "file, or name another."
                )
            found += rows
            self._next += 1
        return found

    def write(self, points: Sequence[int], rows: Sequence[Row]) -> None:
        """Adds a chunk."""
        if self.path is None:
            return
        if self._file is None:
            # open for as long as the scan runs: an fsync a chunk would be felt with small networks,
            # and only what the machine itself loses needs one
            self._file = open(self.path, "r+b")  # noqa: SIM115
            self._file.seek(self._end)
            self._file.truncate()  # of a line that a kill cut off
        names = list(rows[0])
        values = [[row[name] for name in names] for row in rows]
        entry = {"points": list(points), "names": names, "values": values}
        self._file.write(journal_line(entry))
        self._file.flush()

    def close(self) -> None:
        """Closes the file; what was written stays."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, path: Path) -> None:
        read = read_journal(path, form=FORMAT, header=Header, entry=Chunk)
        theirs = read.header["settings"]
        require_same(path, theirs, self.settings, advice="give the same ones, or name another file")
        self.plan = Plan(**read.header["plan"])
        # from a damaged line on points are evaluated again
        self._end = read.ends[-1]
        for number, entry in enumerate(read.entries, start=2):
            points, names, values = entry["points"], entry["names"], entry["values"]
            if len(points) != len(values) or any(len(row) != len(names) for row in values):
                raise StoreError(
                    f"{path}: line {number}: its points, names and values are not as many as one "
                    "another; name another file."
                )
            rows = [dict(zip(names, row, strict=True)) for row in values]
            self._chunks.append((points, rows))
