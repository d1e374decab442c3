"""Batches of another size: the same examples in the same order, or the same batches."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.data import concatenate, is_sliceable
from lowland.evaluate import rebatch as module
from lowland.evaluate.rebatch import rebatch


@pytest.mark.parametrize("sizes", [(3, 4, 2), (25,), (10, 10), (9, 12)])
def test_examples_stay_in_their_order(sizes, monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 10)
    x = torch.arange(float(sum(sizes)))
    batches = list(rebatch([(part, {"y": 2 * part}) for part in x.split(sizes)]))
    assert torch.equal(torch.cat([part for part, _ in batches]), x)
    assert torch.equal(torch.cat([named["y"] for _, named in batches]), 2 * x)
    assert all(len(part) <= 10 for part, _ in batches)


def test_many_bytes_are_not_concatenated(monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 100)
    batches = [(torch.zeros(20),), (torch.zeros(20),)]
    assert [len(part) for (part,) in rebatch(batches)] == [20, 20]


def test_shapes_that_differ_stay_apart():
    batches = [(torch.zeros(2, 3),), (torch.zeros(2, 4),)]
    assert list(rebatch(batches)) == batches


def test_batches_that_differ_beside_their_tensors_stay_apart():
    x, y = torch.ones(2, 1), torch.zeros(2)
    assert concatenate([(x, 1.0, y), (x, 1.0, y)]) is not None
    assert concatenate([(x, 1.0, y), (x, 2.0, y)]) is None
    assert concatenate([{"a": x, "b": x}, {"b": x, "a": x}]) is None
    assert concatenate([(x, [4, 2], y), (x, [4, 2], y)]) is None
    assert is_sliceable((x, y))
    assert not is_sliceable((x, [4, 2], y))


class Times(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 1)

    def forward(self, x, by):
        return self.last(x) * by


def test_a_number_beside_the_tensors_belongs_to_its_batch():
    g = torch.Generator().manual_seed(0)
    batch = lambda: (torch.randn(4, 2, generator=g), torch.randn(4, 1, generator=g))  # noqa: E731
    data = [(x, by, y) for by, (x, y) in ((1.0, batch()), (2.0, batch()))]
    task = ll.Regression(noise_variance=1.0, unpack=lambda b: ((b[0], b[1]), {}, b[2]))
    surface = ll.LossSurface(Times(), task, data)
    w = surface.layout.flatten(surface.template.module)
    values = ll.LogLikelihood(surface)(w[None])
    torch.testing.assert_close(values[0], surface.log_likelihood(w))


class Mixes(nn.Module):
    """A layer of a graph network."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, x, edges):
        return self.last(x.index_add(0, edges[1], x[edges[0]]))


def test_graphs_are_not_split():
    g = torch.Generator().manual_seed(0)
    x, edges = torch.randn(6, 3, generator=g), torch.randint(6, (2, 9), generator=g)
    labels = torch.randint(2, (6,), generator=g)
    task = ll.Classification(unpack=lambda b: ((b[0], b[1]), {}, b[2]))
    surface = ll.LossSurface(Mixes(), task, [(x, edges, labels)])
    w = torch.randn(100, surface.layout.size, generator=g)
    pred = ll.predict(surface, w)
    expected = ll.predict(surface, w, strategy="points")
    torch.testing.assert_close(pred.probs, expected.probs)
    each = torch.stack([surface.log_likelihood(one) for one in w])
    torch.testing.assert_close(ll.LogLikelihood(surface)(w), each, rtol=1e-5, atol=1e-5)
