"""The graph builds what is missing or stale, exactly that, and survives a kill anywhere."""

import json
import random
import shutil
import signal
import time

import pytest

from lowland.artifacts import Graph, HeldError
from tests.artifacts.toys import Count, Number, Sum, build_long, build_slowly, tree
from tests.processes import SERVER


def built(graph, *targets):
    """The names of what a build makes."""
    names = [each.name for each in graph.needed(targets)]
    before = Number.builds
    graph.build(targets)
    assert Number.builds - before == sum(not name.startswith("count") for name in names)
    return names


APART = {"timing.json", "events.jsonl"}


def files_of(folder):
    """All files that two equal runs must share, byte by byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in APART and ".leases" not in path.parts
    }


def test_everything_is_built_once_inputs_first(tmp_path):
    graph, (top, *_) = Graph(tmp_path), tree()
    assert built(graph, top) == ["number/a", "number/b", "sum/inner", "count", "sum/all"]
    assert graph.load(top) == 1 + 2 + 100 + 5
    assert built(Graph(tmp_path), tree()[0]) == []


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"a": 7}, ["number/a", "sum/inner", "sum/all"]),
        ({"upto": 6}, ["count", "sum/all"]),
        ({"data": "other examples"}, ["sum/inner", "sum/all"]),
        ({}, []),
    ],
)
def test_a_change_rebuilds_what_depends_on_it_and_nothing_else(tmp_path, changes, names):
    Graph(tmp_path).build([tree()[0]])
    assert built(Graph(tmp_path), tree(**changes)[0]) == names
    assert built(Graph(tmp_path), tree()[0]) == []  # what was there before is there still


def test_a_version_of_a_kind_is_part_of_the_fingerprint(tmp_path, monkeypatch):
    Graph(tmp_path).build([tree()[0]])
    monkeypatch.setattr(Count, "version", 2)
    assert built(Graph(tmp_path), tree()[0]) == ["count", "sum/all"]


def test_inputs_that_were_removed_are_not_built_for_what_is_done(tmp_path):
    graph, (top, first, *_) = Graph(tmp_path), tree()
    graph.build([top])
    shutil.rmtree(graph.place(first))
    assert built(Graph(tmp_path), tree()[0]) == []


@pytest.mark.parametrize("hurt", ["edit", "swap", "shorten", "delete", "manifest"])
def test_what_was_changed_by_hand_is_reported_and_built_again(tmp_path, hurt):
    graph, (top, first, second, *_) = Graph(tmp_path), tree()
    graph.build([top])
    place = graph.place(first)
    file = place / "number.json"
    if hurt == "edit":
        file.write_text("7")
    elif hurt == "swap":
        shutil.copy(graph.place(second) / "number.json", file)
    elif hurt == "shorten":
        file.write_text("")
    elif hurt == "delete":
        file.unlink()
    else:
        (place / "manifest.json").write_text("{}")
    lines = []
    again = Graph(tmp_path, tell=lines.append)
    assert again.load(tree()[1]) == 1
    if hurt in ("edit", "swap"):
        assert "number.json is not what was written" in lines[0]


def test_a_stopped_count_goes_on_from_its_checkpoint(tmp_path):
    graph, (_, _, _, count, _) = Graph(tmp_path), tree(upto=10)

    def stopping(artifact):
        def report(done, total):
            if done == 8:
                raise KeyboardInterrupt

        return report

    before = Count.steps
    with pytest.raises(KeyboardInterrupt):
        graph.build([count], bar=stopping)
    (status,) = graph.status([count])
    assert status.state == "started"
    graph.build([count])
    assert Count.steps - before == 8 + 4  # 6 were saved, of 8 done
    assert graph.load(count) == 10
    assert not (graph.place(count) / "checkpoint").exists()


def test_requested_artifacts_are_built_and_recorded(tmp_path):
    extra = Number("number/extra", 3)

    class Search(Sum):
        kind = "search"

        def build(self, inputs, checkpoint, progress):
            return inputs.request(extra)

    graph, search = Graph(tmp_path), Search("search")
    graph.build([search])
    assert graph.load(search) == 3
    manifest = json.loads((graph.place(search) / "manifest.json").read_text())
    assert manifest["requested"] == {"number/extra": extra.fingerprint}


# -- two processes, and kills ----------------------------------------------------------------------


def start_build(function, folder):
    """A process that builds in a folder."""
    receiver, ready = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=function, args=(folder, ready))
    process.start()
    ready.close()
    with receiver:
        assert receiver.recv() == "building"
    return process


def test_what_another_process_builds_is_left_to_it_and_taken_over_when_it_dies(tmp_path):
    other = start_build(build_slowly, tmp_path)
    try:
        graph, (top, _, _, count, inner) = Graph(tmp_path), tree()
        with pytest.raises(HeldError, match=rf"count is under way in process {other.pid} since"):
            graph.build([top])
        assert graph.is_done(inner)  # all else was built
        (status,) = graph.status([count])
        assert (status.state, status.owner.pid) == ("under way", other.pid)
    finally:
        other.kill()
        other.join()
    (status,) = graph.status([count])
    assert status.state == "started"
    graph.build([top])
    assert graph.load(top) == 1 + 2 + 100 + 5


def test_builds_that_are_killed_at_random_end_with_the_same_bytes(tmp_path):
    Graph(tmp_path / "whole").build([tree(upto=1500)[0]])
    expected = files_of(tmp_path / "whole")
    generator = random.Random(0)
    kills = 0
    out = tmp_path / "killed"
    for _ in range(12):
        process = start_build(build_long, out)
        time.sleep(generator.uniform(0.0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if kills >= 4:
            break
    assert kills >= 3
    Graph(out).build([tree(upto=1500)[0]])
    assert files_of(out) == expected
