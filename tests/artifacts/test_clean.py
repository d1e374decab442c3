"""What takes how much disk, and what of it is removed."""

import json

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.clean import remove, size_of, usage
from lowland.artifacts.places import ARTIFACTS, leases_of
from lowland.errors import StoreError
from tests.artifacts.toys import Number, tree


def test_a_stopped_build_of_other_settings_is_unfinished_unless_it_is_under_way(tmp_path):
    graph = Graph(tmp_path)
    graph.build([Number("number/a", 1)])
    work = graph.work(Number("number/a", 2))
    work.mkdir(parents=True)
    (work / "half.txt").write_text("half")
    (entry,) = [each for each in usage(tmp_path) if each.use == "unfinished"]
    assert (entry.folder, entry.size) == (work, 4)
    with leases_of(tmp_path).hold(work.name, "number/a"):
        assert {each.use for each in usage(tmp_path)} == {"result"}
    assert remove(tmp_path, [entry]) == 4
    assert not work.exists()
    assert size_of(tmp_path / ARTIFACTS) > 0


def test_clean_removes_stale_and_intermediate_artifacts_alone(tmp_path):
    graph = Graph(tmp_path)
    graph.build([tree(a=1)[0]])
    graph.build([tree(a=7)[0]])
    uses = {(entry.name, entry.use) for entry in usage(tmp_path)}
    assert ("number/a", "stale") in uses
    assert ("number/a", "result") in uses
    assert ("count", "intermediate") in uses
    entries = [entry for entry in usage(tmp_path) if entry.use != "result"]
    assert remove(tmp_path, entries) == sum(entry.size for entry in entries)
    assert {entry.use for entry in usage(tmp_path)} == {"result"}
    assert Graph(tmp_path).needed([tree(a=7)[0]]) == []
    assert (tmp_path / "numbers" / "number-a.json").read_text() == "7"
    assert not (tmp_path / "numbers" / "count.json").exists()


def test_clean_follows_no_way_out(tmp_path):
    graph, (top, first, *_) = Graph(tmp_path / "run"), tree()
    graph.build([top])
    outside = tmp_path / "thesis.txt"
    outside.write_text("mine")
    file = graph.place(first) / "manifest.json"
    body = json.loads(file.read_text())
    body["view"] = {"number.json": "../thesis.txt"}
    body["fingerprint"] = "0" * 32  # stale
    file.write_text(json.dumps(body))
    entries = [entry for entry in usage(tmp_path / "run") if entry.use == "stale"]
    with pytest.raises(StoreError, match=r"\.\./thesis\.txt"):
        remove(tmp_path / "run", entries)
    assert outside.read_text() == "mine"
    assert (graph.folder / ARTIFACTS).is_dir()
