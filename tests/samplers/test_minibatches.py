"""Batches of data that do not fit in memory, pass after pass."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland import samplers
from lowland.core.data import ReplayableLoader
from lowland.samplers.minibatches import Stream


def problem(loader, **options):
    """A density whose rows are too many to hold, and three places."""
    net = nn.Linear(4, 1, bias=False)
    surface = ll.LossSurface(net, ll.Regression(noise_variance=0.3), loader)
    g = torch.Generator().manual_seed(1)
    sub = ll.Subspace(torch.randn(4, generator=g), torch.randn(2, 4, generator=g))
    density = samplers.log_density(sub, surface, temperature=2.0, prior_scale=1.5, **options)
    return surface, sub, density, torch.randn(3, 2, generator=g, dtype=torch.float64)


def rows(n=40):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 4, generator=g), torch.randn(n, 1, generator=g)


def shuffled():
    return ll.Batches(rows(), batch_size=10, seed=3)


def loader():
    x, y = rows()
    return torch.utils.data.DataLoader(list(zip(x, y, strict=True)), batch_size=10)


@pytest.fixture
def too_large(monkeypatch):
    """No memory for rows, which are read as they are asked for."""
    monkeypatch.setattr(ReplayableLoader, "resident", lambda self, **_: None)


@pytest.mark.usefixtures("too_large")
@pytest.mark.parametrize("data", [shuffled, loader])
def test_a_pass_is_unbiased(data):
    _, _, density, z = problem(data())
    value, gradient = density.value_and_grad(z)
    for start in (0, 4):
        each = [density.minibatch(z, start + step) for step in range(4)]
        assert len({float(v[0]) for v, _ in each}) == 4
        mean = torch.stack([v for v, _ in each]).mean(0)
        slope = torch.stack([g for _, g in each]).mean(0)
        torch.testing.assert_close(mean, value, rtol=1e-6, atol=0)
        torch.testing.assert_close(slope, gradient, rtol=1e-4, atol=1e-5)
    one = problem(data())[2].minibatch(z, 5)[0]  # any step, by itself
    assert torch.equal(one, density.minibatch(z, 5)[0])


def test_passes_are_in_orders_of_their_own():
    stream = Stream(ReplayableLoader(shuffled(), ll.Regression(noise_variance=1.0), device="cpu"))
    first, second = ([stream.at(t).target for t in range(e, e + 4)] for e in (0, 4))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert torch.equal(torch.cat(first).sort(0).values, torch.cat(second).sort(0).values)
    assert torch.equal(stream.at(6).target, second[2])


@pytest.mark.usefixtures("too_large")
@pytest.mark.filterwarnings("ignore:the chains disagree")
def test_sgld_goes_on_where_it_was_stopped(tmp_path):
    surface, sub, _, _ = problem(shuffled())
    options = {"sampler": "sgld", "chains": 2, "warmup": 5, "strategy": "points"}
    whole = ll.infer(sub, surface, **options, samples=20)
    file = tmp_path / "chains.safetensors"
    ll.infer(sub, surface, **options, samples=7, checkpoint=file)
    again = ll.infer(sub, surface, **options, samples=20, checkpoint=file)
    assert torch.equal(whole.coords, again.coords)


def test_a_limit_counts_examples_and_short_passes_raise():
    task = ll.Regression(noise_variance=1.0)
    limited = Stream(ReplayableLoader(loader(), task, device="cpu", count=25))
    assert len(limited) == 3
    assert len(limited.at(2).target) == 5

    class Short(list):
        def __len__(self):
            return 9

    x, y = rows()
    stream = Stream(ReplayableLoader(Short([(x, y)]), task, device="cpu"))
    with pytest.raises(ll.DataError, match="fewer than the 9 batches"):
        stream.at(1)
