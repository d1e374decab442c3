"""Artifacts that are one record."""

import pytest
import torch

from lowland.artifacts import Graph
from lowland.records import Table
from lowland.runs.records import RecordArtifact


class Small(RecordArtifact):
    kind = "small"
    record = Table

    def build(self, inputs, checkpoint, progress):
        return Table({"method": ["a"], "nll": torch.tensor([0.5])})


@pytest.mark.parametrize("file", ["small.json", "small.npz"])
def test_the_record_is_saved_shown_and_loaded(tmp_path, file):
    graph, artifact = Graph(tmp_path), Small("tables/small", file=file)
    graph.build([artifact])
    assert (graph.place(artifact) / f"record{file[5:]}").is_file()
    for table in (graph.load(artifact), Table.load(tmp_path / "records" / file)):
        assert table.nll.tolist() == [0.5]
