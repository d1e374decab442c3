"""The examples from which statistics are estimated."""

import copy

import torch
from torch import nn

import lowland as ll
from tests.core.random_data import one_batch
from tests.models import (
    conv_in,
    images,
)


class Graphs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x, edges):
        out = self.norm(self.linear(x))
        return out.index_add(0, edges[0], out[edges[1]])


def test_dependent_examples_are_not_cut_for_statistics():
    torch.manual_seed(0)
    edges = torch.randint(40, (2, 90))
    data = [{"x": torch.randn(40, 5), "edges": edges, "labels": torch.randint(3, (40,))}]
    surface = ll.LossSurface(Graphs(), ll.Classification(), data, bn_rows=10)
    assert torch.isfinite(surface(surface.layout.flatten(Graphs())))


def test_statistics_of_a_shuffled_loader_use_the_same_examples():
    x, y = torch.randn(200, 4), torch.randint(3, (200,))
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    values = set()
    for seed in range(3):
        torch.manual_seed(seed)
        loader = torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x, y), batch_size=20, shuffle=True
        )
        surface = ll.LossSurface(model, ll.Classification(), loader, bn_rows=40)
        before = torch.get_rng_state()
        statistics = surface.refresh(surface.layout.flatten(model))
        assert torch.equal(torch.get_rng_state(), before)
        values.add(float(statistics["1.running_mean"].sum()))
    assert len(values) == 1


def test_a_layer_that_is_called_twice_has_one_estimate(monkeypatch):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4), nn.Linear(4, 4)

        def forward(self, x):
            return self.norm(self.linear(self.norm(input=x)))

    torch.manual_seed(0)
    statistics = []
    for running in (0.0, 5.0):  # for any initial statistics
        model = Twice()
        model.load_state_dict(
            {**model.state_dict(), "norm.running_mean": torch.full((4,), running)}
        )
        monkeypatch.setattr("lowland.core.statistics.SHARE", 0.0)
        surface = ll.LossSurface(model, ll.Classification(), one_batch(classes=4))
        statistics.append(surface.refresh(torch.linspace(-1, 1, surface.layout.size)))
    for name in statistics[0]:
        torch.testing.assert_close(statistics[0][name], statistics[1][name], rtol=1e-4, atol=1e-5)


def test_instance_norm_is_estimated_as_torch_does():
    net = conv_in()
    x, y = map(torch.cat, zip(*images(), strict=True))
    surface = ll.LossSurface(net, ll.Classification(), [(x, y)])
    twin = copy.deepcopy(net)
    twin[1].momentum = 1.0  # its statistics are those of the last batch: all examples
    twin.train()(x)
    w = surface.layout.flatten(net)
    for method in ("exact", "batch"):
        statistics = surface.refresh(w, method=method)
        torch.testing.assert_close(statistics["1.running_mean"], twin[1].running_mean)
        torch.testing.assert_close(statistics["1.running_var"], twin[1].running_var)
    ragged = ll.LossSurface(net, ll.Classification(), images())
    for name, value in ragged.refresh(w).items():
        torch.testing.assert_close(value, surface.refresh(w)[name])  # for any batches
