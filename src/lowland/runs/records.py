"""Artifacts that are one record: saved and loaded by its class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lowland.artifacts import Artifact, Settings
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
