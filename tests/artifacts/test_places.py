"""Artifacts take their place in one step, and lines are added to events.jsonl."""

import json

from lowland.artifacts import Graph
from lowland.artifacts.places import EVENTS, log_event, manifests, publish
from tests.artifacts.toys import tree


def test_publishing_replaces_a_damaged_folder_and_makes_files_read_only(tmp_path):
    work, place = tmp_path / "work", tmp_path / "places" / "a"
    work.mkdir()
    (work / "new.txt").write_text("new")
    place.mkdir(parents=True)
    (place / "old.txt").write_text("old")
    publish(work, place)
    assert [path.name for path in place.iterdir()] == ["new.txt"]
    assert (place / "new.txt").stat().st_mode & 0o777 == 0o444
    assert not work.exists()


def test_whole_artifacts_alone_have_manifests(tmp_path):
    graph, (top, first, *_) = Graph(tmp_path), tree()
    assert list(manifests(tmp_path)) == []
    graph.build([top])
    assert {m.body["name"] for m in manifests(tmp_path)} == {each.name for each in tree()}
    (graph.place(first) / "manifest.json").unlink()
    assert "number/a" not in {m.body["name"] for m in manifests(tmp_path)}


def test_events_are_lines_that_are_added(tmp_path):
    log_event(tmp_path, "building", artifact="number/a")
    log_event(tmp_path, "built", artifact="number/a", seconds=0.5)
    lines = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert [line["event"] for line in lines] == ["building", "built"]
    assert lines[1]["seconds"] == 0.5
    assert "time" in lines[0]
