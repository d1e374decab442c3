"""Commands print what is built again, and why, and what is kept; results are loaded by artifact."""

import io

import torch

from lowland.cli.builder import Builder
from lowland.cli.console import Terminal
from tests.artifacts.toys import Number, Sum


class Picture(Number):
    """A picture whose result is its path, or none."""

    kind = "picture"

    def __init__(self, name, path):
        super().__init__(name, 0)
        self.path = path

    def load(self, folder):
        return self.path


class Threads(Number):
    """The number of threads that it is built with."""

    kind = "threads"

    def build(self, inputs, checkpoint, progress):
        return torch.get_num_threads()


def builder(folder, *, threads=1):
    return Builder(folder, Terminal(file=io.StringIO(), width=200), threads=threads)


def output_of(build):
    return build.console.file.getvalue()


def test_a_new_folder_needs_no_outline(tmp_path):
    build = builder(tmp_path)
    total = Sum("sum", Number("a", 1), Number("b", 2))
    build.build([total])
    assert build.load(total) == 3
    assert "built again" not in output_of(build)
    assert "artifacts to build" not in output_of(build)


def test_a_change_is_printed_at_its_cause_alone(tmp_path):
    builder(tmp_path).build([Sum("sum", Number("a", 1), Number("b", 2))])
    build = builder(tmp_path)
    total = Sum("sum", Number("a", 5), Number("b", 2))
    build.build([total])
    lines = output_of(build).splitlines()
    (line,) = [line for line in lines if "is built again" in line]
    assert line.startswith("a is built again (value: 1 there, 5 now")
    assert "2 artifacts to build; 1 of 3 are kept." in lines
    assert build.load(total) == 7


def test_only_the_first_call_prints_the_outline(tmp_path):
    first, second = Number("a", 1), Number("b", 2)
    builder(tmp_path).build([first])
    build = builder(tmp_path)
    build.build([first])
    build.build([second])
    assert "to build" not in output_of(build)
    assert build.load(second) == 2


def test_artifacts_are_built_with_the_threads_of_the_run(tmp_path):
    before = torch.get_num_threads()
    build = builder(tmp_path, threads=before + 1)
    artifact = Threads("threads", 0)
    build.build([artifact])
    assert build.load(artifact) == before + 1
    assert torch.get_num_threads() == before


def test_results_name_the_folder_and_the_pictures_that_were_drawn(tmp_path):
    build = builder(tmp_path)
    path = tmp_path / "pictures" / "loss.png"
    build.build([Picture("pictures/loss", path), Picture("pictures/none", None), Number("a", 1)])
    build.say_results()
    assert output_of(build).splitlines()[-2:] == [f"Results: {tmp_path}/", "Pictures: loss.png"]
