import pytest
import torch

import lowland as ll
from tests.posteriors.contract import PosteriorContract


class TestPushforward(PosteriorContract):
    def make(self, size, dtype):
        g = torch.Generator().manual_seed(0)
        rows = torch.randn(2, size, generator=g, dtype=dtype)
        line = ll.Line(rows[0], rows[1])
        return ll.Pushforward(line, torch.rand(500, 1, generator=g, dtype=torch.float64))


def test_draws_are_as_likely_as_their_weights_and_lie_evenly():
    sub = ll.Subspace(torch.zeros(1), torch.ones(1, 1))
    coords = torch.arange(4.0)[:, None]
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0])
    result = ll.Pushforward(sub, coords, weights=weights).sample(400, seed=5).flatten()
    counts = torch.bincount(result.int(), minlength=4)
    assert counts[1] == 0  # no weight, no draw
    assert (counts - 100 * weights).abs().max() <= 2  # random draws would be off by ten

    # thirty draws of a thousand lie in all parts of it
    many = ll.Pushforward(sub, torch.arange(1000.0)[:, None]).sample(30).flatten()
    assert torch.bincount((many / 100).int(), minlength=10).min() >= 2


@pytest.mark.parametrize(
    ("coords", "weights", "message"),
    [
        (torch.zeros(3, 2), None, "coords"),
        (torch.zeros(0, 1), None, "coords"),
        (torch.zeros(2, 1), torch.tensor([1.0, -1.0]), "weights"),
        (torch.zeros(2, 1), torch.zeros(2), "weights"),
        (torch.zeros(2, 1), torch.ones(3), "weights"),
    ],
)
def test_what_is_no_distribution(coords, weights, message):
    with pytest.raises(ll.ConfigError, match=message):
        ll.Pushforward(ll.Subspace(torch.zeros(1), torch.ones(1, 1)), coords, weights=weights)
