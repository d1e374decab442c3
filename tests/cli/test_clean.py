"""`lowland clean`: what takes how much of a run folder, and only what is named is removed."""

import shutil

import pytest

from lowland.artifacts import Graph
from lowland.artifacts.clean import size_of
from lowland.cli.status import size_text
from tests.artifacts.toys import Count, Number, Sum
from tests.cli.inside import lowland


@pytest.fixture
def run(finished_runs, tmp_path):
    return shutil.copytree(finished_runs[0], tmp_path / "r")


def test_clean_shows_and_removes(run, finished_runs):
    config = finished_runs[0].with_suffix(".yaml")
    code, _, err = lowland("run", config, f"out={run}", "average.lr=0.02")
    assert code == 0, err
    code, out, _ = lowland("clean", run)
    assert code == 0
    assert "--remove stale" in out
    assert "--remove intermediate" in out
    size = size_of(run)
    code, out, _ = lowland("clean", run, "--remove", "stale,intermediate")
    assert code == 0
    assert "removed." in out
    assert size_of(run) < size
    assert not list((run / "trajectory").rglob("*.safetensors"))
    code, out, _ = lowland("run", config, f"out={run}", "average.lr=0.02")
    assert code == 0
    assert "SWA trajectory" not in out
    assert "--remove" not in lowland("clean", run)[1]


def test_only_the_uses_that_are_named_are_removed(tmp_path):
    """A number of other settings is stale; a count, whose sum is done, is intermediate."""
    for value in (1, 2):
        count = Count("count", 3)
        total = Sum("total", Number("number", value), count)
        Graph(tmp_path).build([total])
    code, out, err = lowland("clean", tmp_path)
    assert code == 0, err
    rows = [line.split()[:2] for line in out.splitlines()]
    for row in (["number", "stale"], ["total", "stale"], ["number", "result"],
                ["total", "result"], ["count", "intermediate"]):  # fmt: skip
        assert rows.count(row) == 1, row
    before = size_of(tmp_path / "artifacts")
    code, out, _ = lowland("clean", tmp_path, "--remove", "stale")
    freed = before - size_of(tmp_path / "artifacts")
    assert freed > 0
    assert code == 0
    assert out.endswith(f"\n{size_text(freed)} removed.\n")
    out = lowland("clean", tmp_path)[1]
    assert "stale" not in out
    assert "`--remove intermediate` removes them" in out


def test_a_word_that_is_no_use_and_a_folder_of_something_else(tmp_path):
    code, _, err = lowland("clean", tmp_path, "--remove", "stale,everything")
    assert code == 2
    assert "expected some of stale, unfinished, intermediate, got 'everything'" in err
    code, _, err = lowland("clean", tmp_path)
    assert code == 2
    assert "holds no graph.json" in err
