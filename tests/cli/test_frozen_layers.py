"""Networks whose frozen layers are drawn anew for each seed: every row has its own layers."""

import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from lowland.records import Predictive
from tests.cli.inside import lowland

OWN = """
import torch
from torch import nn

def data():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(90, 6, generator=g)
    y = x[:, :3].argmax(1)
    parts = {"train": (0, 40), "validation": (40, 60), "test": (60, 90)}
    return {name: (x[a:b], y[a:b]) for name, (a, b) in parts.items()}

def model():
    net = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))
    net[0].requires_grad_(False)
    return net
"""
CONFIG = {
    "model": {"name": "frozen_own:model"},
    "data": {"name": "frozen_own:data"},
    "methods": ["ensemble", "multiswag"],
    "ensemble": 2,
    "samples": 2,
    "threads": 1,
    "train": {"epochs": 4, "batch_size": 10, "lr": 0.3},
    "average": {"lr": 0.3, "start": 0.5, "every": 0.5, "rank": 2, "scales": [1e-6]},
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frozen_own.py").write_text(OWN)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.syspath_prepend(str(tmp_path))
    import frozen_own

    yield frozen_own
    sys.modules.pop("frozen_own", None)


def test_every_network_is_evaluated_with_its_own_frozen_layers(own):
    code, out, err = lowland("run", "config.yaml", "out=run")
    assert code == 0, out + err
    x, _ = own.data()["test"]
    for method, names in (("ensemble", "sgd-{}"), ("multiswag", "average-{}")):
        by_hand = []
        for i in range(2):
            net = own.model()
            net.load_state_dict(load_file(f"run/weights/{names.format(i)}.safetensors"))
            with torch.no_grad():
                by_hand.append(net(x).softmax(1))
        found = Predictive.load(f"run/records/{method}.npz").probs
        # MultiSWAG at a scale of nearly 0 is the ensemble of its averages
        torch.testing.assert_close(found, torch.stack(by_hand).mean(0), atol=2e-3, rtol=1e-3)
