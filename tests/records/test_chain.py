"""Summaries of draws, against numpy and formulas written out."""

import numpy as np
import pytest
import torch

from lowland import ConfigError, Line
from lowland.records import Chain


def chain(chains=3, draws=200, k=2, log_weights=None, shift=0.0):
    g = torch.Generator().manual_seed(0)
    coords = torch.randn(chains, draws, k, generator=g).double()
    coords[0] += shift
    return Chain(coords, -coords.square().sum(-1) / 2, sampler="ess", log_weights=log_weights)


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_numpys(weighted):
    g = torch.Generator().manual_seed(1)
    logs = 50 + 3 * torch.randn(3, 200, generator=g).double() if weighted else None
    record = chain(log_weights=logs)
    w = None if logs is None else np.exp(logs.numpy() - logs.numpy().max()).ravel()
    draws = record.coords.numpy().reshape(-1, 2)
    np.testing.assert_allclose(record.mean, np.average(draws, axis=0, weights=w))
    expected = np.cov(draws.T, aweights=w, ddof=0)
    np.testing.assert_allclose(record.covariance, expected)
    assert float(record.weights.sum()) == pytest.approx(1)
    frame = record.to_pandas()
    np.testing.assert_allclose(frame["sd"], np.sqrt(np.diag(expected)))


def test_weights_of_draws_are_their_effective_sample_size():
    """Kish: a share of one makes one draw, equal shares make all."""
    even = chain(log_weights=torch.zeros(3, 200))
    assert even.ess.tolist() == pytest.approx([600, 600])
    logs = torch.full((3, 200), -torch.inf)
    logs[0, :4] = 0
    few = chain(log_weights=logs)
    assert few.ess.tolist() == few.ess_tail.tolist() == pytest.approx([4, 4])
    assert few.rhat.isnan().all()


def test_chains_that_disagree_are_seen():
    agree, apart = chain(), chain(shift=5.0)
    assert agree.rhat.max() < 1.02
    assert apart.rhat.min() > 1.5
    assert agree.ess.min() > 300
    assert apart.ess.max() < 30
    assert chain(chains=1).rhat.isnan().all()


def test_a_chain_of_a_file_has_forgotten_its_subspace(tmp_path):
    line = Line(torch.zeros(3), torch.ones(3))
    record = chain(k=1).within(line)
    posterior = record.posterior()
    w = posterior.point(5).weights.double()
    assert float((record.draws.expand(-1, 3) - w).norm(dim=1).min()) < 1e-6  # it is one of them
    back = Chain.load(record.save(tmp_path / "chain.npz"))
    with pytest.raises(ConfigError, match="give the subspace that it was sampled in"):
        back.posterior()
    assert torch.equal(back.posterior(line).point(5).weights, posterior.point(5).weights)
