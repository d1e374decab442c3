"""graph.json: the artifacts of the last command, then those of earlier ones."""

import json

import pytest

from lowland.artifacts.nodes import GRAPH, node_of, read_graph, write_graph
from lowland.artifacts.order import ordered
from lowland.errors import StoreError
from tests.artifacts.toys import Number, Sum, tree


def test_what_is_written_is_read(tmp_path):
    artifacts = ordered([tree()[0]])
    write_graph(tmp_path, artifacts)
    nodes = read_graph(tmp_path)
    assert nodes == [node_of(artifact) for artifact in artifacts]
    assert nodes[-1]["inputs"] == ["sum/inner", "count"]
    assert {"value": 1} in [node["settings"] for node in nodes]


def test_artifacts_of_earlier_commands_stay(tmp_path):
    number, other = Number("number/a", 1), Number("number/b", 2)
    write_graph(tmp_path, [number, other, Sum("sum/a", number), Sum("sum/b", other)])
    write_graph(tmp_path, [Number("number/a", 7)])
    nodes = {node["name"]: node for node in read_graph(tmp_path)}
    assert list(nodes) == ["number/a", "number/b", "sum/a", "sum/b"]
    assert nodes["number/a"]["settings"] == {"value": 7}


def test_a_command_that_is_alone_in_its_folder_keeps_no_others(tmp_path):
    write_graph(tmp_path, [Number("number/a", 1), Number("number/b", 2)])
    write_graph(tmp_path, [Number("number/a", 7)], alone=True)
    assert [node["name"] for node in read_graph(tmp_path)] == ["number/a"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"format": "lowland-graph-9", "artifacts": []}', "its format is 'lowland-graph-9'"),
        ('{"format": "lowland-graph-1", "artifacts": [1]}', "artifacts"),
        ("{", "damaged"),
    ],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / GRAPH).write_text(text)
    with pytest.raises(StoreError, match=words):
        read_graph(tmp_path)
    write_graph(tmp_path, [Number("number/a", 1)])  # they give way to what is planned
    assert json.loads((tmp_path / GRAPH).read_text())["format"] == "lowland-graph-1"


def test_a_configuration_is_no_run_folder(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(StoreError, match=r"config.yaml is a file, and no run folder; name the"):
        read_graph(tmp_path / "config.yaml")
