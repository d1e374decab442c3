"""Artifacts that take no time: numbers, their sum, and a count that goes on where it stopped."""

import json
import time
from dataclasses import dataclass

from lowland.artifacts import Artifact, Graph, Source
from lowland.files import write_text


@dataclass(frozen=True)
class Value:
    """The settings of a number."""

    value: int = 0


class Number(Artifact):
    """A number from its settings."""

    kind = "number"
    builds = 0

    def __init__(self, name, value):
        super().__init__(name, settings=Value(value))

    def build(self, inputs, checkpoint, progress):
        Number.builds += 1
        progress(1, 1)
        return self.settings.value

    def save(self, result, folder):
        (folder / "number.json").write_text(json.dumps(result))

    def load(self, folder):
        return json.loads((folder / "number.json").read_text())

    def view(self):
        return {"number.json": f"numbers/{self.name.replace('/', '-')}.json"}


class Sum(Number):
    """The sum of its inputs."""

    kind = "sum"

    def __init__(self, name, *inputs):
        Artifact.__init__(self, name, inputs)

    def build(self, inputs, checkpoint, progress):
        Number.builds += 1
        return sum(inputs[each.name] for each in self.inputs)


class Count(Number):
    """Counts up to its value, a line of a file at a time, and saves its state at every third."""

    kind = "count"
    intermediate = True
    steps = 0

    def build(self, inputs, checkpoint, progress):
        upto = self.settings.value
        state = checkpoint.load(kind="count", same={"upto": upto}) or {"i": 0}
        lines = checkpoint.folder / "lines.txt"
        done = lines.read_text().splitlines()[: state["i"]] if lines.exists() else []
        for i in range(state["i"], upto):
            Count.steps += 1
            done.append(f"line {i}")
            if i % 3 == 2:
                write_text(lines, "\n".join(done) + "\n")  # whole, whenever it is killed
                checkpoint.save({"i": i + 1}, kind="count", same={"upto": upto})
            progress(i + 1, upto)
        write_text(lines, "\n".join(done) + "\n")
        return upto


def tree(a=1, b=2, upto=5, data="examples"):
    """Two numbers and a count below two sums, and a source."""
    source = Source("data/train", 100, {"examples": data})
    first, second, count = Number("number/a", a), Number("number/b", b), Count("count", upto)
    inner = Sum("sum/inner", first, second, source)
    return Sum("sum/all", inner, count), first, second, count, inner


class Slow(Count):
    """A count that takes a minute from when it is `ready`."""

    def __init__(self, name, value, ready):
        super().__init__(name, value)
        self.ready = ready

    def build(self, inputs, checkpoint, progress):
        self.ready.send("building")
        time.sleep(60)


def build_slowly(folder, ready):
    """In a process of its own: holds the count of the tree for a minute."""
    Graph(folder).build([Slow("count", 5, ready)])


def build_long(folder, ready):
    """In a process of its own: the tree with a long count."""
    ready.send("building")
    Graph(folder).build([tree(upto=1500)[0]])
