"""The file of an unfinished scan: a line of settings, then a checksummed line for each chunk.

A kill at any byte costs one chunk. Values have full precision and the header has the plan, so that
a continued scan has the same chunks as one that was never stopped: equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from lowland.artifacts.checkpoint import require_same
from lowland.core.options import Plan
from lowland.errors import StoreError
from lowland.files import PathLike, atomic_write
from lowland.landscape.point_metrics import Row
from lowland.trajectory.journal import journal_line, read_journal

FORMAT = "lowland-scan-1"


class PlanFields(TypedDict):
    """How points are evaluated."""

    strategy: Literal["points", "batches", "vmap"]
    chunk: int
    threads: int


class Header(TypedDict):
    """The first line of the file."""

    format: str
    settings: dict[str, Any]
    plan: PlanFields


class Chunk(TypedDict):
    """Each other line of the file."""

    points: list[int]
    names: list[str]
    values: list[list[float]]


class Journal:
    """The chunks of a scan in the order in which they were evaluated; in memory without a path.

    Args:
        path: the file, created by `start`; None: none. settings: the settings of this scan, as
            plain data; a file with others is refused.

    Attributes:
        plan: how points are evaluated, from the file; None before `start`.

    Raises:
        ConfigError: the file has other settings. StoreError: it is no scan.

    >>> journal = Journal(None, {"resolution": [2]})
    >>> journal.start(Plan("points", 1, 1))
    >>> journal.write([0], [{"loss": 0.5}])
    """

    def __init__(self, path: PathLike | None, settings: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.settings = dict(settings)
        self.plan: Plan | None = None
        self._chunks: list[tuple[list[int], list[Row]]] = []  # those of the file, for `replay`
        self._next = 0
        self._end = 0  # of the last whole line
        self._file: IO[bytes] | None = None
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def start(self, plan: Plan) -> None:
        """Creates the file, or continues the one that was read."""
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
        """The rows of the first of these points, as far as the file has them next."""
        rows: list[Row] = []
        while self._next < len(self._chunks) and len(rows) < len(points):
            indices, chunk = self._chunks[self._next]
            if list(points[len(rows) : len(rows) + len(indices)]) != indices:
                raise StoreError(
                    f"{self.path}: its points are in another order than those of this scan; "
                    "remove the file, or name another."
                )
            rows += chunk
            self._next += 1
        return rows

    def write(self, points: Sequence[int], rows: Sequence[Row]) -> None:
        """Appends a chunk."""
        if self.path is None:
            return
        if self._file is None:
            # open until the scan ends: an fsync a chunk would be slow for small networks, and
            # only a crash of the machine needs one
            self._file = open(self.path, "r+b")  # noqa: SIM115
            self._file.seek(self._end)
            self._file.truncate()  # a line that a kill cut off
        names = list(rows[0])
        values = [[row[name] for name in names] for row in rows]
        entry = {"points": list(points), "names": names, "values": values}
        self._file.write(journal_line(entry))
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, path: Path) -> None:
        contents = read_journal(path, form=FORMAT, header=Header, entry=Chunk)
        theirs = contents.header["settings"]
        require_same(path, theirs, self.settings, advice="give the same ones, or name another file")
        self.plan = Plan(**contents.header["plan"])
        # points of damaged lines are evaluated again
        self._end = contents.ends[-1]
        for number, entry in enumerate(contents.entries, start=2):
            points, names, values = entry["points"], entry["names"], entry["values"]
            if len(points) != len(values) or any(len(row) != len(names) for row in values):
                raise StoreError(
                    f"{path}: line {number}: its points, names and values differ in length; "
                    "name another file."
                )
            rows = [dict(zip(names, row, strict=True)) for row in values]
            self._chunks.append((points, rows))
