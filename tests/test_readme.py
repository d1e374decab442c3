"""The five lines at the top of the README run as they stand; results have a place to go to."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from lowland.train import Batches
from lowland.zoo import ConvNet, digits

ROOT = Path(__file__).parents[1]
WRITERS = [p for p in (ROOT / "studies").glob("*/*.py") if "rewrite(" in p.read_text("utf-8")]


@pytest.mark.parametrize("script", WRITERS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_study_has_a_place_for_its_results(script):
    """One that had none would fail at its end, after hours."""
    by = re.findall(r'rewrite\(.*by="([\w.]+)"', script.read_text("utf-8")) or ["run.py"]
    readme = (script.parent / "README.md").read_text("utf-8")
    assert [readme.count(f"<!-- results: written by {name} -->") for name in by] == [1] * len(by)


def test_the_five_lines(capsys):
    torch.set_num_threads(1)  # tiny tensors; conftest sets it back
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", readme, re.S)
    lines = [line for line in block.splitlines() if line.strip()]
    (update,) = [line for line in lines if line.startswith("swag.update")]
    splits = digits(train=0.2)
    train = Batches(splits["train"], batch_size=64)
    torch.manual_seed(0)
    model = ConvNet(widths=(4, 8))
    given = {
        "model": model,
        "train_loader": train,
        "test_loader": Batches(splits["test"], batch_size=256, shuffle=False),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    place = lines.index(update)
    exec("\n".join(lines[:place]), given)
    for epoch in range(30):
        for x, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        if epoch >= 10:
            exec(update, given)
    exec("\n".join(lines[place + 1 :]), given)
    metrics = given["pred"].metrics()
    assert metrics.keys() >= {"accuracy", "nll", "ece", "brier"}
    assert metrics["accuracy"] > 0.8
    assert given["pred"].probs.shape == (len(splits["test"][1]), 10)
    assert str(round(metrics["accuracy"], 3))[:5] in capsys.readouterr().out
