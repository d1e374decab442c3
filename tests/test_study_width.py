"""The study of widths: one command that resumes, and a table that agrees with the records."""

import sys
from pathlib import Path

import pytest
import torch

from lowland.records import Table, WidthsResult
from tests.processes import call_in_process
from tests.study_scripts import random_cifar10, run_script

STUDY = Path(__file__).parents[1] / "studies" / "width"


@pytest.mark.soak  # five pictures of three trainings: half a minute
def test_one_command_in_parts(tmp_path):
    readme = (STUDY / "README.md").read_text()
    calls = [["--cells", "3"], []]
    first, rest = call_in_process(run_script, STUDY, random_cifar10(tmp_path), calls)
    assert [line.split(":")[0] for line in first.splitlines()[:3]] == [
        "seed0-SGD", "seed0-SWA", "seed0-solutions",
    ]  # fmt: skip
    assert "seed0-solutions:" not in rest  # stored
    results = tmp_path / "out" / "smoke"
    pictures = {"rays-plain", "rays-filter", "line", "plane-iterates", "plane-ends"}
    assert {path.stem for path in results.glob("*.png")} == pictures
    rows = list(Table.load(results / "seed0-solutions.json").rows())
    assert [row["solution"] for row in rows] == ["SGD", "SWA", "last iterate of SWA"]
    assert f"{rows[1]['test nll']:.4f}" in rest
    # the second half of the four epochs: two iterates, and the one where it begins
    assert len(list((results / "seed0-SWA").glob("*.safetensors"))) == 3
    assert (STUDY / "README.md").read_text() == readme  # a smoke run is no result


def test_widths_are_compared_ray_by_ray(tmp_path):
    assert call_in_process(_row_of_widths, tmp_path) == {
        "seed": "4", "rays": "plain", "SGD": "2 (1 to 3)", "SWA": "inf (1.5 to inf)",
        "SWA wider": "2 of 3",
    }  # fmt: skip


def _row_of_widths(folder):
    sys.path[:0] = [str(STUDY), str(STUDY.parent / "large-batch")]
    import report

    t = torch.linspace(0, 2, 3)
    for method, width in (("SGD", [1.0, 2.0, 3.0]), ("SWA", [1.5, torch.inf, 3.0])):
        values = torch.tensor(width, dtype=torch.float64)
        metrics = {"loss": torch.zeros(3, 3)}
        record = WidthsResult("plain", t, metrics, values, 0.01, 0.1, torch.ones(3), 0.0, 0.0)
        record.save(folder / f"seed4-rays-plain-{method}.json")
    (row,) = report.widths(folder / "seed4-rays-plain-SWA.json")
    return row
