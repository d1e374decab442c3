import pytest
import scipy.stats
import torch

import lowland as ll
from tests.posteriors.contract import PosteriorContract


def vertices(n, size, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, size, generator=g, dtype=dtype)


class TestOnASimplex(PosteriorContract):
    def make(self, size, dtype):
        return ll.Uniform(ll.Simplex(vertices(min(size + 1, 4), size, dtype)))


class TestOnAComplex(PosteriorContract):
    def make(self, size, dtype):
        w = vertices(4, size, dtype)
        return ll.Uniform(ll.SimplicialComplex([ll.Simplex(w[:2]), ll.Simplex(w[2:])]))


class TestOnACurve(PosteriorContract):
    def make(self, size, dtype):
        return ll.Uniform(ll.Bezier.between(*vertices(2, size, dtype)))


class TestOnAPoint(PosteriorContract):
    random = False

    def make(self, size, dtype):
        return ll.Uniform(ll.Simplex(vertices(1, size, dtype)))


def test_moments_are_those_of_the_uniform_distribution_on_a_simplex():
    simplex = ll.Simplex(vertices(4, 3, torch.float64))
    draws = ll.Uniform(simplex).sample(5_000)
    mean = simplex.anchors.mean(0)
    # the covariance of Dirichlet(1) in k + 1 coordinates: (1{i=j} - 1/(k+1)) / ((k+1)(k+2))
    spread = (torch.eye(4).double() - 0.25) / (4 * 5)
    covariance = simplex.anchors.T @ spread @ simplex.anchors
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0.05, atol=0.01)


def test_on_a_curve_t_or_the_length_is_uniform():
    w0, w1 = torch.zeros(2).double(), torch.tensor([4.0, 0.0]).double()
    chain = ll.PolyChain.between(w0, w1)
    chain = chain.with_anchors(torch.stack([w0, torch.tensor([1.0, 0.0]).double(), w1]))
    for measure, share in (("coords", 0.5), ("arc", 0.25)):  # of draws on the shorter piece
        draws = ll.Uniform(chain, measure=measure).sample(640)[:, 0]
        assert float((draws < 1).double().mean()) == pytest.approx(share, abs=0.01)
    along = ll.Uniform(chain, measure="arc").sample(640)[:, 0] / 4
    assert scipy.stats.kstest(along.numpy(), "uniform").pvalue > 0.01


def test_a_model_average_over_a_mixture_of_simplexes():
    model = torch.nn.Linear(3, 2)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    y = (x[:, 0] > 0).long()
    surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
    first, second = (ll.Uniform(ll.Simplex(vertices(3, 8) + i)) for i in range(2))
    espro = ll.Mixture([first, second])
    result = ll.predict(surface, espro, [(x, y)], samples=10)
    weights = espro.sample(10)
    on = [(w - vertices(1, 8)[0]).norm() for w in weights]
    assert len({round(float(d), 6) for d in on}) == 10
    each = [
        torch.softmax(x @ w[:6].reshape(2, 3).T + w[6:], 1) for w in weights
    ]  # weight, then bias
    torch.testing.assert_close(result.probs, torch.stack(each).mean(0), rtol=1e-5, atol=1e-6)


def test_what_has_no_uniform_distribution_is_refused():
    w = vertices(3, 8)
    for shape in (ll.Plane.through(*w), ll.Subspace(w[0], w[1:]), w):
        with pytest.raises(ll.ConfigError, match="no distribution; take a simplex"):
            ll.Uniform(shape)
    with pytest.raises(ll.ConfigError, match="'arc' for a curve, got 'arc'"):
        ll.Uniform(ll.Simplex(w), measure="arc")
    with pytest.raises(ll.LowlandError, match="no density"):
        ll.Uniform(ll.Simplex(w)).log_prob(w[0])
