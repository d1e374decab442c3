"""EMA against its recursion, and the shares that it gives to each iterate."""

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland import EMA, ConfigError
from lowland.tensor_files import same_tree
from tests.trajectory.test_moments import collected, flat_layout, random_walk


def test_ema_is_its_recursion():
    iterates = random_walk(40, 5, dtype=torch.float64)
    ema = collected(EMA, iterates, decay=0.9)
    expected = iterates[0]
    for w in iterates[1:]:
        expected = 0.9 * expected + 0.1 * w
    torch.testing.assert_close(ema.mean, expected)


def test_ema_that_warms_up_forgets_the_first_iterate():
    n = 30
    shares = collected(EMA, torch.eye(n, dtype=torch.float64), decay=0.999, warmup=True).mean
    expected = np.zeros(n)  # unit vectors: the average is each iterate's share of it
    for t in range(n):
        decay = min(0.999, (1 + t) / (10 + t)) if t else 0.0
        expected *= decay
        expected[t] = 1 - decay
    torch.testing.assert_close(shares, torch.from_numpy(expected))
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares[0]) < 1e-6
    plain = collected(EMA, torch.eye(n, dtype=torch.float64), decay=0.999).mean
    assert float(plain[0]) == pytest.approx(0.999**29)  # what it is for: nearly all
    # where its own decay is the smaller one from the start, there is nothing to warm up
    iterates = random_walk(9, 5)
    assert torch.equal(
        collected(EMA, iterates, decay=0.1, warmup=True).mean,
        collected(EMA, iterates, decay=0.1).mean,
    )


def test_states_from_before_there_was_a_warmup_are_read():
    old = collected(EMA, random_walk(3, 5), decay=0.9).state_dict()
    state = {key: value for key, value in old.items() if key != "warmup"}
    again = EMA(flat_layout(5), decay=0.9)
    again.load_state_dict(state)
    assert same_tree(again.state_dict(), old)
    with pytest.raises(ConfigError, match="the state has warmup=False, this one True"):
        EMA(flat_layout(5), decay=0.9, warmup=True).load_state_dict(old)


def test_ema_without_memory_is_the_last_iterate():
    iterates = random_walk(4, 5)
    assert torch.equal(collected(EMA, iterates, decay=0.0).mean, iterates[-1])


class Centre(nn.Module):
    """Subtracts a running mean of its inputs."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("bound", torch.tensor([-torch.inf]))

    def forward(self, x):
        if self.training:
            self.mean.lerp_(x.mean(0), 0.1)
        return self.weight * (x - self.mean).clamp_min(self.bound)


def test_an_ema_from_the_first_step_on_has_the_statistics_of_the_last(tmp_path):
    """The first ones are those of a new network: averaged, the mean would be 37 and not 100."""
    torch.manual_seed(0)
    net, x = Centre(), torch.randn(64, 1) + 100
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), [(x, x - 100)])
    ema = EMA(surface.layout, decay=0.99)
    for _ in range(100):
        net(x)
        ema.update(net)
    for one in (ema, EMA.load(ema.save(tmp_path / "ema.safetensors"))):
        assert torch.equal(one.buffers["mean"], net.mean)
        assert torch.equal(one.buffers["bound"], net.bound)
        assert ll.predict(surface, one).metrics()["rmse"] < 0.2
    net.bound.fill_(0.0)  # from infinity to a number, which has no mean
    ema.update(net)
    assert torch.equal(ema.buffers["bound"], torch.zeros(1))
