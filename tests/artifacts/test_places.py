"""Artifacts take their place in one step, and lines are added to events.jsonl."""

import json
import os

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.places import EVENTS, log_event, make_work, manifests, permit, publish
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(
    ("permissions", "folder"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755), (0o400, 0o700)]
)
def test_a_folder_is_open_to_those_alone_who_may_read_its_files(tmp_path, permissions, folder):
    work, place = tmp_path / ".work" / "a", tmp_path / "a"
    make_work(work, None)
    (work / "of an earlier start.txt").write_text("weights")
    make_work(work, permissions)
    assert work.stat().st_mode & 0o777 == folder
    publish(work, place, permissions)
    file = place / "of an earlier start.txt"
    assert place.stat().st_mode & 0o777 == folder
    assert file.stat().st_mode & 0o777 == permissions
    permit(place, 0o600)
    assert (place.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


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
