"""Kills commands at random moments of building each kind of artifact, and resumes them.

`python kills.py CONFIG FOLDER TIMES [COMMAND...]`: makes a run of a configuration, and what each
command makes of it: `run`, `connect`, `simplex`, `subspace`, `scan`, `sharpness`, `compare` and
`average`, or those that are named. Then, for each kind of artifact in the folder of a command, it
removes one of that kind, kills the process that builds it again at a random call of a Python
function, TIMES over, and lets the next one finish. It prints a line of JSON for each command: its
kills of each kind, and the files that differ from those of the first build.
"""

import json
import os
import random
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path

import yaml

import lowland.runs.run  # the kinds of a run: commands import them in forks
from lowland.artifacts import Artifact, Graph
from lowland.artifacts.nodes import read_graph
from lowland.artifacts.places import manifests
from lowland.cli import main

APART = {"events.jsonl", "timing.json"}
CALLS = "calls.json"
calls: Counter[str] = Counter()


def files_of(folder):
    """What two equal runs share byte by byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in APART and ".leases" not in path.parts
    }


def lowland(folder, *args, name="", at=0):
    """Runs a command in a process of its own, which is killed at a call while it builds `name`.

    Without a name it counts the calls of each artifact into FOLDER/calls.json.
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
    sys.argv = ["lowland", *map(str, args)]
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    if not name:
        (folder / CALLS).write_text(json.dumps(calls))
    os._exit(code)


def remove(out, kind, generator):
    """Removes an artifact of a kind, and what is built from it; gives its name."""
    nodes = {node["name"]: node for node in read_graph(out)}
    places = {manifest.body["name"]: manifest.folder for manifest in manifests(out)}
    names = [name for name in places if nodes[name]["kind"] == kind]
    name = generator.choice(sorted(names))
    others = [name]
    for each in others:  # grows; a removed intermediate is built again for its users alone
        if each == name or nodes[each]["kind"] in intermediate_kinds(Artifact):
            users = (other for other in places if each in nodes[other]["inputs"])
            others += [user for user in users if user not in others]
    for each in others:
        shutil.rmtree(places[each])
    return name


def intermediate_kinds(cls):
    """The kinds of artifacts that are not built where all that needs them is done."""
    kinds = {getattr(cls, "kind", "")} if cls.intermediate else set()
    return kinds.union(*map(intermediate_kinds, cls.__subclasses__()))


def kill_all(folder, out, command, times):
    """Kills by kind of what a command makes in `out`, and the files that differ in the end."""
    generator = random.Random(0)
    assert lowland(folder, *command) == 0
    counts = json.loads((folder / CALLS).read_text())
    expected = files_of(out)
    kills: Counter[str] = Counter()
    different: set[str] = set()
    kinds = {node["kind"] for node in read_graph(out)} - {"source"}
    for kind in sorted(kinds):
        for _ in range(times):
            if kills[kind] >= times:
                break
            name = remove(out, kind, generator)
            for _ in range(min(2, times)):  # what was resumed may be killed again
                at = generator.randrange(1, max(2, counts[name]))
                kills[kind] += lowland(folder, *command, name=name, at=at) == -signal.SIGKILL
            assert lowland(folder, *command, name="none") == 0
            files = files_of(out)
            names = files.keys() | expected.keys()
            different |= {n for n in names if files.get(n) != expected.get(n)}
    return {"kills": dict(kills), "different": sorted(different), "files": len(expected)}


def commands_of(folder):
    """The commands by name, with the folder of each; all but the first are of the first's run."""
    run, config = folder / "run", folder / "config.yaml"
    short = ("--epochs", 1)
    sampling = ("--rank", 2, "--chains", 2, "--samples", 5, "--warmup", 3)
    measuring = ("--eigenvalues", 1, "--probes", 2, "--directions", 2, "--points", 4)
    measuring += ("--examples", 60)
    stages = {
        "connect": (run, *short, "--points", 3),
        "simplex": (run, "--vertices", 2, *short, "--points", 2, "--draws", 2),
        "subspace": (run, *sampling, "--temperature", 10, "--draws", 2),
        "scan": (run, "--plane", "sgd-0,sgd-1,swa-0", "--resolution", 3, "--refine", 0),
        "sharpness": (run, "--weights", "sgd-0,average-0", *measuring),
        "compare": (run, "--examples", 20, "--strengths", "1"),
    }
    commands = {"run": (run, ("run", config, f"out={run}"))}
    for name, words in stages.items():
        commands[name] = folder / name, (name, *words, "--out", folder / name)
    words = folder / "checkpoints", "--config", config, "--ema", 0.5, "--each", "--trust"
    commands["average"] = folder / "average", ("average", *words, "--out", folder / "average")
    return commands


def prepare(config, folder):
    """The plan of a run, in the configuration of all that follow, and checkpoints to average."""
    run, file = folder / "run", folder / "config.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    assert lowland(folder, "run", config, f"out={run}", name="none") == 0
    shutil.copyfile(run / "plan.json", folder / "plan.json")
    body = yaml.safe_load(config.read_text()) | {"plan": str(folder / "plan.json")}
    file.write_text(yaml.safe_dump(body))
    for step, weights in enumerate(sorted((run / "weights").glob("sgd-*.safetensors")), start=1):
        checkpoint = folder / "checkpoints" / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        shutil.copyfile(weights, checkpoint / "model.safetensors")
        (checkpoint / "config.json").write_text("{}")
    shutil.rmtree(run)  # it is built by that plan


if __name__ == "__main__":
    folder, times = Path(sys.argv[2]), int(sys.argv[3])
    prepare(Path(sys.argv[1]), folder)
    commands = commands_of(folder)
    names = sys.argv[4:] or list(commands)
    if "run" not in names:  # what the others are made of
        assert lowland(folder, *commands["run"][1], name="none") == 0
    for name in names:
        print(json.dumps({name: kill_all(folder, *commands[name], times)}), flush=True)
