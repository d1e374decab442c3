"""Files of artifacts under plain names in the run folder."""

import os

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.manifest import Manifest
from lowland.artifacts.view import hide, hide_others, show, shown_files, shown_places
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


class Private(Number):
    """A number that its owner alone may read, and edit."""

    kind = "private"
    permissions = 0o600


class Copied(Private):
    """The same, as a copy."""

    kind = "copied"
    copied = True


def shown_file(folder):
    return folder / "numbers" / "number-a.json"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("links", [False, True])
@pytest.mark.parametrize("kind", [Copied, Private])
def test_nobody_else_can_ever_read_what_is_private(tmp_path, monkeypatch, kind, links):
    """Also not while it is written: what umask leaves lies in a folder that nobody else opens."""
    modes = set()
    save, link, replace = kind.save, os.link, os.replace

    def watched_save(self, result, folder):
        save(self, result, folder)
        modes.add(("folder", folder.stat().st_mode & 0o077))

    def watched_link(source, target):
        if not links:
            raise OSError("this file system has no links")
        link(source, target)

    def watched_replace(source, target):
        if str(source).endswith(".json.tmp") and "numbers" in str(source):
            modes.add(("shown", os.stat(source).st_mode & 0o077))
        replace(source, target)

    monkeypatch.setattr(kind, "save", watched_save)
    monkeypatch.setattr(os, "link", watched_link)
    monkeypatch.setattr(os, "replace", watched_replace)
    graph, number = Graph(tmp_path), kind("number/a", 1)
    graph.build([number])
    assert modes == {("folder", 0), ("shown", 0)}
    assert shown_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert graph.place(number).stat().st_mode & 0o777 == 0o700
    linked = os.path.samefile(shown_file(tmp_path), graph.place(number) / "number.json")
    assert linked == (links and kind is Private)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("kind", [Copied, Private])
def test_permissions_follow_those_of_the_inputs(tmp_path, kind):
    number = kind("number/a", 1)
    number.permissions = 0o644
    Graph(tmp_path).build([number])
    assert shown_file(tmp_path).stat().st_mode & 0o777 == 0o644
    Graph(tmp_path).build([kind("number/a", 1)])
    assert shown_file(tmp_path).stat().st_mode & 0o777 == 0o600
    assert Graph(tmp_path).place(number).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("by", ["in place", "replaced"])
@pytest.mark.parametrize("kind", [Copied, Private])
def test_what_people_edited_stays_and_is_named(tmp_path, kind, by):
    messages = []
    graph = Graph(tmp_path, tell=messages.append)
    graph.build([kind("number/a", 1)])
    file = shown_file(tmp_path)
    if by == "replaced":
        file.unlink()
    file.write_text("my own")
    for value in (1, 1, 2):
        messages.clear()
        graph = Graph(tmp_path, tell=messages.append)
        graph.build([kind("number/a", value)])
        assert file.read_text() == "my own"
        assert messages[-1] == (
            f"{file} was edited, and stays as it is; delete it to have it written anew."
        )
    hide_others(tmp_path, [])
    assert file.read_text() == "my own"
    file.unlink()
    graph.build([kind("number/a", 2)])
    assert file.read_text() == "2"


@pytest.mark.parametrize("kind", [Copied, Private])
def test_what_nobody_edited_gives_way(tmp_path, kind):
    messages = []
    graph = Graph(tmp_path, tell=messages.append)
    for value in (1, 2, 1):
        graph.build([kind("number/a", value)])
        assert shown_file(tmp_path).read_text() == str(value)
    assert messages == []
    hide_others(tmp_path, [kind("number/a", 1)])
    assert shown_file(tmp_path).read_text() == "1"
    hide_others(tmp_path, [])
    assert not shown_file(tmp_path).exists()


def test_what_is_shown_now_is_not_hidden_for_an_earlier_one_with_the_same_content(tmp_path):
    graph = Graph(tmp_path)
    earlier, now = Copied("number/a", 1), Copied("number/a", 1)
    now.version = 2
    graph.build([earlier])
    graph.build([now])
    assert shown_places(tmp_path, [now.fingerprint]) == {shown_file(tmp_path)}
    hide_others(tmp_path, [now])
    assert shown_file(tmp_path).read_text() == "1"
