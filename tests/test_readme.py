"""The first example of the README runs; READMEs of studies have markers for results."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
WRITERS = [p for p in (ROOT / "studies").glob("*/*.py") if "rewrite(" in p.read_text("utf-8")]


@pytest.mark.parametrize("script", WRITERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_study_has_a_place_for_its_results(script):
    """A study without markers would fail at its end, after hours."""
    by = re.findall(r'rewrite\(.*by="([\w.]+)"', script.read_text("utf-8")) or ["run.py"]
    readme = (script.parent / "README.md").read_text("utf-8")
    assert [readme.count(f"<!-- results: written by {name} -->") for name in by] == [1] * len(by)


def test_the_example(capsys):
    torch.set_num_threads(1)  # tiny tensors; conftest sets it back
    torch.manual_seed(0)
    readme = (ROOT / "README.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    names: dict = {}
    exec(example, names)
    metrics = names["pred"].metrics()
    assert metrics.keys() >= {"accuracy", "nll", "ece", "brier"}
    assert metrics["accuracy"] > 0.8
    assert names["pred"].probs.shape == (1078, 10)
    assert str(round(metrics["accuracy"], 3))[:5] in capsys.readouterr().out
