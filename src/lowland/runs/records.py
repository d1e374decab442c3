"""Artifacts that are one record, saved and loaded by its class, and tables of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lowland.artifacts import Artifact, Checkpoint, Inputs, Settings
from lowland.progress import Report
from lowland.records import Table
from lowland.records.base import Record


class RecordArtifact(Artifact):
    """An artifact whose result is a record, in one file that people see as `records/FILE`.

    Args:
        file: its name in records/; its ending says how it is stored.
    """

    record: ClassVar[type[Record]]

    def __init__(
        self,
        name: str,
        inputs: Sequence[Artifact] = (),
        settings: Settings | None = None,
        *,
        file: str,
        title: str = "",
    ) -> None:
        super().__init__(name, inputs, settings, title=title)
        self.file = f"record{Path(file).suffix}"
        self.place = f"records/{file}"

    def save(self, result: Record, folder: Path) -> None:
        result.save(folder / self.file)

    def load(self, folder: Path) -> Any:
        return self.record.load(folder / self.file)

    def view(self) -> Mapping[str, str]:
        return {self.file: self.place}


class RowsTable(RecordArtifact):
    """A table with a row for each of some artifacts.

    Args:
        name: of the table and its file. parts: the artifacts by the labels of their rows.
    """

    quick = True
    record = Table

    def __init__(self, name: str, parts: Mapping[str, Artifact]) -> None:
        self.parts = dict(parts)
        artifacts, settings = list(parts.values()), {"rows": list(parts)}
        super().__init__(f"tables/{name}", artifacts, settings, file=f"{name}.json")

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Table:
        return Table.from_rows(
            self.row(label, inputs[part.name]) for label, part in self.parts.items()
        )

    def row(self, label: str, result: Any) -> dict[str, Any]:
        """The row of an artifact's result; by default that of a table of one row."""
        (row,) = result.rows()
        return dict(row)
