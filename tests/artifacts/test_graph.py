"""The graph builds what is missing or stale, exactly that, and survives a kill anywhere."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowland.artifacts import Graph, HeldError, Source
from lowland.artifacts.clean import remove, usage
from lowland.artifacts.graph import ARTIFACTS, ordered, read_graph, statuses
from lowland.errors import StoreError
from tests.artifacts.toys import Count, Number, Sum


def tree(a=1, b=2, upto=5, data="rows"):
    """Two numbers and a count below two sums, and a source."""
    source = Source("data/train", 100, {"examples": data})
    first, second, count = Number("number/a", a), Number("number/b", b), Count("count", upto)
    inner = Sum("sum/inner", first, second, source)
    return Sum("sum/all", inner, count), first, second, count, inner


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
        ({"data": "other rows"}, ["sum/inner", "sum/all"]),
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
def test_what_was_changed_by_hand_is_told_and_built_again(tmp_path, hurt):
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


def test_status_says_what_changed(tmp_path):
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


def test_names_that_come_twice_are_refused():
    with pytest.raises(StoreError, match=r"value: 1 there, 2 now"):
        ordered([Number("number/a", 1), Number("number/a", 2)])
    a, b = Sum("sum/a"), Sum("sum/b")
    a.inputs, b.inputs = (b,), (a,)
    a.__dict__["fingerprint"] = b.__dict__["fingerprint"] = "0" * 32
    with pytest.raises(StoreError, match="in a circle"):
        ordered([a])


def test_people_see_plain_names_that_take_no_room(tmp_path):
    graph, (top, first, *_) = Graph(tmp_path), tree()
    graph.build([top])
    shown = tmp_path / "numbers" / "number-a.json"
    assert shown.read_text() == "1"
    assert os.path.samefile(shown, graph.place(first) / "number.json")
    graph.build([tree(a=7)[0]])
    assert shown.read_text() == "7"
    assert graph.load(first) == 1


# -- two processes, and kills ----------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from lowland.artifacts import Graph
from tests.artifacts.toys import Count
class Slow(Count):
    def build(self, inputs, checkpoint, progress):
        print("building", flush=True)
        time.sleep(60)
Graph(Path(sys.argv[1])).build([Slow("count", 5)])
"""


def test_what_another_process_builds_is_left_to_it_and_taken_over_when_it_dies(tmp_path):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "building\n"
        graph, (top, _, _, count, inner) = Graph(tmp_path), tree()
        with pytest.raises(HeldError, match=rf"count is under way in process {other.pid} since"):
            graph.build([top])
        assert graph.is_done(inner)  # all else was built
        (status,) = graph.status([count])
        assert (status.state, status.owner.pid) == ("under way", other.pid)
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
        other.stdout.close()
    (status,) = graph.status([count])
    assert status.state == "started"
    graph.build([top])
    assert graph.load(top) == 1 + 2 + 100 + 5


def test_builds_that_are_killed_at_random_end_with_the_same_bytes(tmp_path):
    script = """
import os, random, sys, time
from pathlib import Path
import tests.artifacts.test_graph as t
from lowland.artifacts import Graph
os.fsync = lambda handle: None
print("ready", flush=True)
Graph(Path(sys.argv[1])).build([t.tree(upto=300)[0]])
"""
    Graph(tmp_path / "whole").build([tree(upto=300)[0]])
    expected = files_of(tmp_path / "whole")
    generator = random.Random(0)
    kills = 0
    out = tmp_path / "killed"
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(out)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0.0, 0.15))
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if kills >= 4:
            break
    assert kills >= 3
    Graph(out).build([tree(upto=300)[0]])
    assert files_of(out) == expected


# -- disk ------------------------------------------------------------------------------------------


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
    assert built(Graph(tmp_path), tree(a=7)[0]) == []
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
    assert Path(graph.folder / ARTIFACTS).is_dir()
