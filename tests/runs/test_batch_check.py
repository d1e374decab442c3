"""Data and model that do not fit are found before a run."""

import math

import pytest

from lowland.errors import DataError
from lowland.runs.config import check_config
from lowland.runs.setup import Setup

DATA = """
import torch
from torch import nn

def data():
    g = torch.Generator().manual_seed(0)
    examples = torch.randn(64, 3, generator=g), torch.randint(2, (64,), generator=g)
    return {name: examples for name in ("train", "validation", "test")}

def net():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
"""

SLOPES = """
import pytest
import torch
from torch import nn

def data():
    x = torch.rand(40, 1)
    return {name: (x, x.cos()) for name in ("train", "validation", "test")}

class Slope(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1))

    def forward(self, x):
        x = x.detach().requires_grad_()
        return torch.autograd.grad(self.net(x).sum(), x, create_graph=True)[0]
"""


def test_a_network_that_differentiates_passes_the_trial(tmp_path, monkeypatch):
    (tmp_path / "slopes.py").write_text(SLOPES)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "slopes:Slope"},
        "data": {"name": "slopes:data"},
        "task": {"name": "lowland:Regression", "args": {"noise_variance": 0.1}},
        "threads": 1,
    }
    setup = Setup(check_config(values, where="here"))
    assert math.isfinite(float(setup.surface(setup.layout.flatten(setup.model(0)))))


def test_a_last_batch_of_one_example_is_reported_and_left_out(tmp_path, monkeypatch):
    (tmp_path / "batchnorm_of_one.py").write_text(DATA)
    monkeypatch.syspath_prepend(tmp_path)
    values = {
        "model": {"name": "batchnorm_of_one:net"},
        "data": {"name": "batchnorm_of_one:data"},
        "train": {"batch_size": 21},  # of 64 examples
        "threads": 1,
    }
    with pytest.raises(DataError, match=r"one example.*drop_last"):
        Setup(check_config(values, where="here"))
    values["train"]["drop_last"] = True
    setup = Setup(check_config(values, where="here"))
    assert setup.length() == 3
    assert [len(y) for _, y in setup.batches(0)] == [21, 21, 21]
