"""The UCI study: one command that resumes, and tables that agree with the records."""

import json
import math
import re
import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import call_in_process
from tests.study_scripts import output_of

STUDY = Path(__file__).parents[1] / "studies" / "uci"


@pytest.fixture
def data(tmp_path):
    """A small set under the name of one that the study knows."""
    g = np.random.default_rng(0)
    x = g.normal(size=(70, 3))
    y = 20 + 9 * (x[:, 0] + 0.2 * g.normal(size=70))
    mask = np.arange(70)[None] // 7 == np.arange(2)[:, None]
    np.savez(tmp_path / "boston.npz", x=x, y=y, test_mask=mask)
    return tmp_path


def study(data, *more):
    """What the command prints, in a process of its own."""
    words = ["--smoke", "--sets", "boston", "--data", str(data), "--out", str(data / "out"), *more]
    return call_in_process(output_of, STUDY / "run.py", words)


def test_one_command_in_parts(data):
    readme = (STUDY / "README.md").read_text()
    first = study(data, "--stages", "papers")
    assert "boston papers:" in first
    results = data / "out" / "smoke"
    before = (results / "boston-papers.json").read_text()
    rest = study(data)
    assert "boston papers:" not in rest  # stored
    assert (results / "boston-papers.json").read_text() == before
    assert {p.name for p in results.glob("*.json")} == {
        "boston-papers.json", "boston-tuned.json", "boston-falling.json",
        "boston-papers-subspaces.json", "boston-recommended.json",
    }  # fmt: skip
    record = json.loads((results / "boston-tuned.json").read_text())
    assert (record["splits"], record["modes"]) == (2, 2)
    for metrics in record["methods"].values():
        assert all(len(values) == 2 for values in metrics.values())
        # errors of a sensible fit are a few standard deviations of the targets, 9, at most
        assert all(0 < value < 30 for value in metrics["rmse"])
    # one choice of settings per split
    assert len(record["walk"]) == len(record["sgd"]) == 2
    falling = json.loads((results / "boston-falling.json").read_text())
    assert falling["methods"]["SGD"] == record["methods"]["SGD"]
    subspaces = json.loads((results / "boston-papers-subspaces.json").read_text())["methods"]
    assert set(subspaces) == {
        "PCA + ESS", "PCA + ESS, five networks", "PCA + VI", "PCA + NUTS", "random + ESS",
        "curve + ESS",
    }  # fmt: skip
    best = json.loads((results / "boston-recommended.json").read_text())
    assert {one["depth"] for one in best["walk"]} <= {1, 2}
    for metrics in [*subspaces.values(), *best["methods"].values()]:
        assert all(0 < value < 30 for value in metrics["rmse"])
    assert (STUDY / "README.md").read_text() == readme  # a smoke run is no result


def test_tables_are_means_errors_and_paired_differences(tmp_path, monkeypatch):
    for folder in (STUDY.parent, STUDY):
        monkeypatch.syspath_prepend(folder)
    sys.modules.pop("report", None)
    import readme
    import report

    g = np.random.default_rng(0)
    level = g.normal(size=20)  # splits differ far more than methods do
    nll = {
        m: (3 + level + 0.01 * g.normal(size=20) - 0.1 * i) for i, m in enumerate(report.METHODS)
    }
    record = {
        "set": "boston", "stage": "papers", "date": "2026-01-01", "machine": "a machine",
        "torch": "2", "command": "run", "splits": 20, "modes": 5, "seconds": {"papers": 3.0},
        "lost": [], "methods": {
            m: {"nll_gaussian": list(v), "rmse": list(v + 9), "coverage": [0.9] * 20}
            for m, v in nll.items()
        },
    }  # fmt: skip
    (tmp_path / "boston-papers.json").write_text(json.dumps(record))
    text = report.tables(tmp_path)
    rows = [line for line in text.splitlines() if line.startswith("| boston")]
    cells = [[c.strip() for c in row.strip("|").split("|")][1:] for row in rows]
    mean = -statistics.fmean(nll["SGD"])
    error = statistics.stdev(nll["SGD"]) / math.sqrt(20)
    assert cells[0][0] == f"{mean:.3f} ± {error:.3f}"
    pair = [a - b for a, b in zip(nll["SGD"], nll["SWA"], strict=True)]
    expected = f"{statistics.fmean(pair):+.3f} ± {statistics.stdev(pair) / math.sqrt(20):.3f}"
    assert cells[1][0] == expected
    # the broken twin, as if the splits were not the same: its error is many times larger
    independent = math.hypot(error, statistics.stdev(nll["SWA"]) / math.sqrt(20))
    assert float(re.search(r"± (.*)", cells[1][0])[1]) < independent / 10
    assert cells[4][0] == f"{mean - report.PAPER['boston']['SGD']:+.3f}"
    page = tmp_path / "README.md"
    start = "<!-- results: written by run.py -->"
    page.write_text(f"before\n{start}\nold\n{readme.END}\nafter\n")
    readme.rewrite(page, text)
    body = page.read_text()
    assert body.startswith("before\n")
    assert body.endswith("after\n")
    assert "old" not in body
    with pytest.raises(ValueError, match="has no line"):  # another script's results stay
        readme.rewrite(page, text, by="other.py")
    assert rows[0] in body
