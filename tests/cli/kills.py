"""Kills `lowland run` at random moments of building each kind of artifact, and resumes it.

`python kills.py CONFIG OUT TIMES`: builds everything once, then for each kind TIMES over removes an
artifact of that kind, kills the process that builds it again at a random call of a Python function,
and lets the next one finish. It prints a line of JSON: kills by kind, and files that differ from
those of the first build.
"""

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

from lowland.artifacts import Graph
from lowland.artifacts.nodes import read_graph
from lowland.artifacts.places import manifests
from lowland.cli import main

APART = {"events.jsonl", "timing.json"}
calls: Counter[str] = Counter()


def files_of(folder):
    """What two equal runs share byte by byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in APART and ".leases" not in path.parts
    }


def run(config, out, *, name="", at=0):
    """Runs the command in a process of its own, which is killed at a call while it builds `name`.

    Without a name it counts the calls of each artifact into OUT/../calls.json.
    """
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    build = Graph._build

    def watched(self, artifact, bar):
        count = 0

        def profile(frame, event, arg):
            nonlocal count
            if event == "call":
                count += 1
                if artifact.name == name and count == at:
                    os.kill(os.getpid(), signal.SIGKILL)

        outer = sys.getprofile()
        sys.setprofile(profile)
        try:
            build(self, artifact, bar)
        finally:
            sys.setprofile(outer)
        calls[artifact.name] = count

    Graph._build = watched
    sys.argv = ["lowland", "run", str(config), f"out={out}"]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    if not name:
        (Path(out).parent / "calls.json").write_text(json.dumps(calls))
    os._exit(code)


def remove(out, kind, generator):
    """Removes an artifact of a kind, and what is directly built from it; gives its name."""
    nodes = {node["name"]: node for node in read_graph(out)}
    places = {manifest.body["name"]: manifest.folder for manifest in manifests(out)}
    names = [name for name in places if nodes[name]["kind"] == kind]
    name = generator.choice(sorted(names))
    users = [other for other in places if name in nodes[other]["inputs"]]
    for each in [name, *users]:
        shutil.rmtree(places[each])
    return name


def kill_all(config, out, times):
    """Kills by kind, and the files that differ in the end."""
    generator = random.Random(0)
    assert run(config, out) == 0
    counts = json.loads((out.parent / "calls.json").read_text())
    expected = files_of(out)
    kills: Counter[str] = Counter()
    different: set[str] = set()
    kinds = {node["kind"] for node in read_graph(out)} - {"source"}
    for kind in sorted(kinds):
        for _ in range(times):
            name = remove(out, kind, generator)
            for _ in range(2):  # what was resumed may be killed again
                at = generator.randrange(1, max(2, counts[name]))
                kills[kind] += run(config, out, name=name, at=at) == -signal.SIGKILL
            assert run(config, out, name="none") == 0
            files = files_of(out)
            names = files.keys() | expected.keys()
            different |= {n for n in names if files.get(n) != expected.get(n)}
    return {"kills": dict(kills), "different": sorted(different), "files": len(expected)}


if __name__ == "__main__":
    print(json.dumps(kill_all(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
