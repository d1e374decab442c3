"""Files of artifacts under plain names in the run folder."""

import os

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.manifest import Manifest
from lowland.artifacts.view import hide, show, shown_files
from lowland.errors import StoreError
from tests.artifacts.toys import Number, tree


def test_what_lies_at_the_place_gives_way_and_only_our_own_is_hidden(tmp_path):
    graph, number = Graph(tmp_path), Number("number/a", 1)
    file = tmp_path / "numbers" / "number-a.json"
    file.parent.mkdir()
    file.write_text("a note")
    graph.build([number])
    manifest = Manifest.read(graph.place(number))
    assert file.read_text() == "1"
    hide(tmp_path, manifest)
    assert not file.exists()
    file.write_text("a note")
    hide(tmp_path, manifest)
    assert file.read_text() == "a note"
    show(tmp_path, manifest)
    assert file.read_text() == "1"


def test_without_hard_links_files_are_copied(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("this file system has no links")

    monkeypatch.setattr(os, "link", refuse)
    graph, number = Graph(tmp_path), Number("number/a", 1)
    graph.build([number])
    file = tmp_path / "numbers" / "number-a.json"
    assert file.read_text() == "1"
    assert not os.path.samefile(file, graph.place(number) / "number.json")


def test_a_folder_shows_its_files_and_those_of_earlier_builds_go(tmp_path):
    class Several(Number):
        def save(self, result, folder):
            (folder / "parts").mkdir()
            for i in range(result):
                (folder / "parts" / f"{i}.txt").write_text(str(i))

        def view(self):
            return {"parts": "parts"}

    graph, place = Graph(tmp_path), tmp_path / "parts"
    graph.build([Several("several", 3)])
    assert sorted(path.name for path in place.iterdir()) == ["0.txt", "1.txt", "2.txt"]
    graph.build([Several("several", 2)])
    assert sorted(path.name for path in place.iterdir()) == ["0.txt", "1.txt"]


@pytest.mark.parametrize("place", ["../note.txt", "/note.txt", "a/../../note.txt"])
def test_a_place_outside_of_the_run_is_refused(tmp_path, place):
    graph, number = Graph(tmp_path / "run"), Number("number/a", 1)
    graph.build([number])
    manifest = Manifest.read(graph.place(number))
    manifest.body["view"] = {"number.json": place}
    with pytest.raises(StoreError, match="delete it"):
        list(shown_files(tmp_path / "run", manifest))


def test_people_see_plain_names_that_take_no_room(tmp_path):
    graph, (top, first, *_) = Graph(tmp_path), tree()
    graph.build([top])
    shown = tmp_path / "numbers" / "number-a.json"
    assert shown.read_text() == "1"
    assert os.path.samefile(shown, graph.place(first) / "number.json")
    graph.build([tree(a=7)[0]])
    assert shown.read_text() == "7"
    assert graph.load(first) == 1
