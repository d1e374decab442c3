"""The state of each artifact, from the files of a run folder alone."""

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.nodes import read_graph
from lowland.artifacts.places import ARTIFACTS, WORK
from lowland.artifacts.status import statuses
from lowland.errors import StoreError
from tests.artifacts.toys import tree


def test_a_damaged_artifact_and_a_stopped_build_are_named(tmp_path):
    graph, (top, first, _, count, _) = Graph(tmp_path), tree()
    graph.build([top])
    (graph.place(first) / "number.json").unlink()
    (tmp_path / ARTIFACTS / WORK).mkdir(exist_ok=True)
    graph.place(count).rename(graph.work(count))
    states = {status.name: status for status in statuses(tmp_path, read_graph(tmp_path))}
    assert states["number/a"].state == "damaged"
    assert states["number/a"].reason == "number.json is missing"
    assert states["count"].state == "started"
    assert not states["count"].is_done


def test_status_shows_what_changed(tmp_path):
    graph, (top, *_) = Graph(tmp_path), tree()
    assert {s.state for s in graph.status([top])} == {"missing", "given"}
    graph.build([top])
    assert {s.state for s in graph.status([top])} == {"done", "given"}
    changed = {s.name: s for s in graph.status([tree(a=7, data="others")[0]])}
    assert changed["number/a"].state == "stale"
    assert changed["number/a"].reason == "value: 1 there, 7 now"
    assert changed["sum/inner"].reason == "other number/a, data/train"
    assert changed["sum/all"].reason == "other sum/inner"
    assert changed["number/b"].state == "done"
    assert changed["count"].size > 0


def test_status_needs_the_folder_alone(tmp_path):
    Graph(tmp_path).build([tree()[0]])
    found = statuses(tmp_path, read_graph(tmp_path))
    assert [s.name for s in found][-1] == "sum/all"
    assert all(s.is_done for s in found)
    with pytest.raises(StoreError, match=r"holds no graph\.json"):
        read_graph(tmp_path / "elsewhere")
