"""`lowland run` and `compare` where items are positions, and some of them do not count."""

import sys

import pytest
import yaml

import lowland as ll
from lowland.records import Predictive, Table
from tests.cli.inside import lowland

OWN = """
import torch
from torch import nn
import lowland as ll

def pixelwise(outputs=3):
    return nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, outputs, 1))

def labelled():
    g = torch.Generator().manual_seed(0)
    x = torch.rand(60, 2, 5, 5, generator=g)
    y = (3 * x[:, 0]).long().clamp_max(2)
    y[torch.rand(y.shape, generator=g) < 0.3] = 255
    return x, y

def measured():
    x, y = labelled()
    return x, 3 * x[:, :1] + 0.1 * torch.randn(60, 1, 5, 5, generator=torch.Generator())

def split(x, y, **more):
    parts = {"train": (0, 30), "validation": (30, 45), "test": (45, 60)}
    return {name: (x[a:b], y[a:b]) for name, (a, b) in parts.items()} | more

def segments():
    return split(*labelled(), task=ll.Classification(ignore_index=255))

def number():
    return pixelwise(1)

class Last(nn.Sequential):
    def forward(self, x):
        return super().forward(x).movedim(1, -1)

def last():
    return Last(*pixelwise())

def maps():
    return split(*measured(), task=ll.Regression(0.1, target_mean=1.5, target_std=0.8))
"""
CONFIG = {
    "methods": ["sgd", "swag"],
    "samples": 3,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 10, "lr": 0.1},
    "average": {"lr": 0.1, "start": 0.5, "every": 0.5, "rank": 2, "scales": [0.5]},
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "positions_own.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("positions_own", None)


def run(folder, model, data, **changes):
    config = {
        "model": {"name": f"positions_own:{model}"},
        "data": {"name": f"positions_own:{data}"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG | config | changes))
    code, out, err = lowland("run", "config.yaml", "out=run")
    assert code == 0, out + err
    return Predictive.load(folder / "run/records/swag.npz"), out


def test_pixels_that_do_not_count(folder):
    pred, _ = run(folder, "pixelwise", "segments")
    assert pred.task["settings"]["ignore_index"] == 255
    there = pred.targets != 255
    wrong = (pred.probs.argmax(1) != pred.targets)[there].double().mean()
    assert float(ll.selective(pred).risk[-1]) == pytest.approx(float(wrong))
    row = next(row for row in Table.load(folder / "run/records/swag.json").rows())
    assert row["accuracy"] == pytest.approx(1 - float(wrong))
    tempered = ll.temper(pred, row["temperature"]).metrics()["nll"]
    assert tempered == pytest.approx(row["nll_tempered"], rel=1e-5)
    code, out, err = lowland(
        "compare", "run", "--kinds", "contrast", "--strengths", "3", "--ood", "noise"
    )
    assert code == 0, out + err
    table = Table.load(folder / "run/compare/records/comparison.json")
    row = next(row for row in table.rows() if row["method"] == "SWAG")
    assert row["aurc"] == pytest.approx(ll.selective(pred).aurc)


def test_classes_on_the_last_axis(folder):
    task = {"name": "lowland:Classification", "args": {"class_dim": -1, "ignore_index": 255}}
    text = OWN.replace(", task=ll.Classification(ignore_index=255)", "")
    (folder / "positions_own.py").write_text(text)
    longer = CONFIG["train"] | {"epochs": 12}
    pred, _ = run(folder, "last", "segments", task=task, train=longer)
    assert pred.probs.shape == (15, 3, 5, 5)
    assert pred.metrics()["accuracy"] > 0.4


def test_maps(folder):
    pred, _ = run(folder, "number", "maps")
    assert pred.mean.shape == pred.targets.shape == (15, 1, 5, 5)
    code, out, err = lowland("compare", "run", "--ood", "noise")
    assert code == 0, out + err
    table = Table.load(folder / "run/compare/records/comparison.json")
    assert table.crps[0] == pytest.approx(
        ll.scores(Predictive.load(folder / "run/records/sgd.npz"))["crps"]
    )
