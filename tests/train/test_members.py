"""Many networks as one module, and SGD with settings of their own."""

import pytest
import torch
from torch import nn

import lowland as ll
from tests.train.side_by_side import (
    REGRESSION,
    M,
    batches,
    convnet,
    mlp,
    seeded,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def test_a_changing_rate_is_torchs():
    """What torch multiplies by a rate is the sum of gradients, so that none is held in it."""
    g = torch.Generator().manual_seed(0)
    gradients = torch.randn(8, 2, 5, generator=g, dtype=torch.float64)
    factors = [1.0, 0.3, 2.0, 2.0, 0.01, 5.0, 0.0, 1.0]
    rates, decays = [0.1, 0.02], [0.3, 0.0]
    start = torch.randn(2, 5, generator=g, dtype=torch.float64)
    together = nn.Parameter(start.clone())
    ours = ll.MemberSGD([together], lr=rates, weight_decay=decays)
    alone = [nn.Parameter(row.clone()) for row in start]
    theirs = [
        torch.optim.SGD([w], lr=rate, momentum=0.9, weight_decay=decay)
        for w, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    for factor, gradient in zip(factors, gradients, strict=True):
        together.grad = gradient.clone()
        ours.param_groups[0]["lr"] = factor
        ours.step()
        for m in range(2):
            alone[m].grad = gradient[m].clone()
            theirs[m].param_groups[0]["lr"] = rates[m] * factor
            theirs[m].step()
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=1e-12)


def test_the_split_views_share_memory_and_have_one_z2_a_network():
    members = ll.Members(seeded(mlp))
    swag = ll.SWAG(ll.ParamLayout(members), rank=3)
    g = torch.Generator().manual_seed(0)
    walks = torch.randn(5, *members.weights.shape, generator=g)
    for w in walks:
        swag.update(w.flatten())
    parts = members.split(swag)
    for m, part in enumerate(parts):
        mine = walks[:, m].double()
        torch.testing.assert_close(part.mean.double(), mine.mean(0), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            part.variance.double(), mine.var(0, correction=0), rtol=1e-4, atol=1e-6
        )
        assert part.mean.data_ptr() == swag.mean[m * members.layout.size :].data_ptr()
        assert part.deviations.shape == (3, members.layout.size)
    # draws of two networks are not the same noise in a mixture
    mixture = ll.Mixture([part.posterior() for part in parts])
    first, second = mixture.draw(0) - parts[0].mean, mixture.draw(1) - parts[1].mean
    assert not torch.allclose(first, second)
    other = ll.SWAG(ll.ParamLayout(nn.Linear(2, 1)), rank=3)
    with pytest.raises(ll.LayoutError, match="another model"):
        members.split(other)


def test_frozen_parameters_and_buffers_of_their_own():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("shift", torch.randn(3))
            self.register_buffer("same", torch.ones(()))
            self.frozen = nn.Linear(3, 3)
            self.frozen.requires_grad_(False)
            self.net = mlp()

        def forward(self, x):
            return self.net(self.frozen(x - self.shift) * self.same)

    models = seeded(Scaled)
    members = ll.Members(models)
    assert set(members.per_member) == {"shift", "frozen.weight", "frozen.bias"}
    assert set(members.shared) == {"same"}
    x = torch.randn(M, 2, 3)
    expected = torch.stack([model(x[m]) for m, model in enumerate(models)])
    torch.testing.assert_close(members(x), expected)
    data = batches()
    ll.sgd_members(members, REGRESSION, data, epochs=1)
    for m, model in enumerate(models):
        ll.sgd(model, REGRESSION, data[m], epochs=1)
        torch.testing.assert_close(
            members.weights[m], members.layout.flatten(model), rtol=1e-4, atol=1e-5
        )
    buffers = members.point(1).buffers
    assert set(buffers) == {"shift"}
    assert torch.equal(buffers["shift"], models[1].shift)


def test_dropout_differs_between_networks():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5))
    members = ll.Members([net, net])
    out = members(torch.ones(2, 1, 3))
    assert not torch.equal(out[0], out[1])
    members.eval()
    out = members(torch.ones(2, 1, 3))
    assert torch.equal(out[0], out[1])


def test_what_are_no_members():
    with pytest.raises(ll.ConfigError, match="at least one"):
        ll.Members([])
    with pytest.raises(ll.LayoutError, match="network 1"):
        ll.Members([mlp(), nn.Linear(3, 1)])
    mixed = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1).double())
    with pytest.raises(ll.ConfigError, match="float64"):
        ll.Members([mixed])
    with pytest.raises(ll.ConfigError, match="refreshes"):
        ll.Members([convnet()]).eval()(torch.zeros(1, 2, 1, 4, 4))


def test_members_are_made_one_by_one_and_copied():
    models = seeded(mlp)
    members = ll.Members(model for model in models)
    assert len(members) == M
    with torch.no_grad():
        members.weights.zero_()
    assert models[0][0].weight.any()
    members.load_(models[0], 1)
    assert not models[0][0].weight.any()
