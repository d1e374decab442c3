"""What a run works on: which rows are for what."""

import torch

from lowland.cli.config import check_config
from lowland.cli.setup import Setup

OWN = """
import torch
from torch import nn

def rows(shift):
    g = torch.Generator().manual_seed(0)
    return shift + torch.randn(64, 3, generator=g), torch.randint(2, (64,), generator=g)

def data(own=True):
    splits = {name: rows(0.0) for name in ("train", "validation", "test")}
    return splits | ({"batchnorm": rows(5.0)} if own else {})

def net():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))
"""


def test_batchnorm_statistics_come_from_their_own_rows(tmp_path, monkeypatch):
    (tmp_path / "batchnorm_rows.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    for own, mean in ((True, 5.0), (False, 0.0)):
        values = {
            "model": {"name": "batchnorm_rows:net"},
            "data": {"name": "batchnorm_rows:data", "args": {"own": own}},
            "threads": 1,
        }
        setup = Setup(check_config(values, where="here"))
        found = setup.surface.refresh(setup.layout.flatten(setup.model(0)))
        x, _ = setup.data["batchnorm" if own else "train"]
        torch.testing.assert_close(found["0.running_mean"], x.mean(0))
        assert abs(float(found["0.running_mean"].mean()) - mean) < 0.5
