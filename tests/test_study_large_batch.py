"""The study of large batches: one command that resumes, and correlations that are what they say."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import call_in_process
from tests.study_scripts import random_cifar10, run_script

STUDY = Path(__file__).parents[1] / "studies" / "large-batch"


@pytest.fixture
def modules(monkeypatch):
    """The study's own modules; other studies have some of the same names."""
    for folder in (STUDY.parent, STUDY):
        monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if "large-batch" in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_one_command_that_resumes(tmp_path):
    readme = (STUDY / "README.md").read_text()
    first, second = call_in_process(run_script, STUDY, random_cifar10(tmp_path), [[], []])
    assert "1 of 2: batch64" in first
    assert "1 of 2" not in second  # stored
    results = tmp_path / "out" / "smoke"
    (record,) = (json.loads(path.read_text()) for path in results.glob("batch2048-*.json"))
    assert record["recipe"]["batch"] == 2048
    assert record["products"] <= 150
    assert all(np.isfinite(list(record["measures"].values())))
    assert f"{record['test nll']:.3f}" in second
    assert {path.name for path in results.glob("*.png")} == {"line.png", "spectra.png"}
    assert (STUDY / "README.md").read_text() == readme  # a smoke run is no result


def test_recipes(modules):
    import run

    recipes = run.recipes()
    grid = {recipe for recipe in recipes if recipe.seed == 0}
    assert (len(set(recipes)), len(grid)) == (28, 24)
    assert [recipe.batch for recipe in recipes] == [64, 2048] * 14  # a stopped study compares both
    assert set(run.densities()) < grid
    plain = [recipe for recipe in recipes if not recipe.sam and not recipe.weight_decay]
    assert sum(recipe.seed > 0 for recipe in plain) == 4


def test_the_bootstrap_draws_recipes_with_all_their_seeds(modules, monkeypatch):
    import report

    monkeypatch.setattr(report, "RESAMPLES", 100)
    g = np.random.default_rng(0)
    x = list(g.normal(size=8).repeat(6))
    y = [value + 1.5 * noise for value, noise in zip(x, g.normal(size=8).repeat(6), strict=True)]

    def width(groups):
        low, high = report.correlation(x, y, groups).split("[")[1].strip("]").split(",")
        return float(high) - float(low)

    by_recipe = width([str(i // 6) for i in range(48)])
    # the broken twin, as if the six seeds of a recipe were six recipes
    assert by_recipe > 1.5 * width([str(i) for i in range(48)])
    assert report.correlation(x[::6], x[::6], list("abcdefgh")) == "+1.00 [+1.00, +1.00]"
