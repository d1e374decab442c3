"""Gaussian variational inference against closed forms."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from lowland.errors import ConfigError, NonFiniteError
from lowland.samplers import Density, Job, Variational
from lowland.samplers.variational import Normal
from tests.samplers.contract import SamplerContract, errors_of, linear


class TestVariational(SamplerContract):
    def make(self):
        return Variational()


def test_adam_alone_finds_it_too():
    """Without the curvature to begin with: from a tenth of the prior's scale at the origin."""
    density, mean, covariance, evidence = linear(2, 1.0)
    chain = Variational(whiten=False, tolerance=1e-4).run(density, Job(chains=1, samples=2))
    scale = chain.about["scale"]
    assert chain.about["elbo"][0] < evidence - 1
    assert ((chain.about["mean"] - mean) / covariance.diagonal().sqrt()).abs().max() < 0.2
    assert torch.allclose(scale @ scale.T, covariance, rtol=0.2)
    assert evidence - 0.01 < chain.log_evidence_bound < evidence + 0.001


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [1, 2, 5, 20])
def test_the_elbo_of_a_linear_model_is_its_evidence(k, temperature):
    density, mean, covariance, evidence = linear(k, temperature)
    chain = Variational().run(density, Job(chains=1, samples=2))
    assert math.isclose(chain.log_evidence_bound, evidence, abs_tol=1e-4)
    assert chain.about["log_evidence_bound_se"] < 1e-4
    assert chain.about["converged"]
    scale = chain.about["scale"]
    assert torch.allclose(chain.about["mean"], mean, atol=1e-4)
    assert torch.allclose(scale @ scale.T, covariance, atol=1e-4)
    assert torch.equal(scale, scale.tril())


@pytest.mark.parametrize("k", [2, 5])
def test_a_mean_field_in_closed_form(k):
    density, mean, covariance, evidence = linear(k, 2.0)
    chain = Variational(covariance="mean-field").run(density, Job(chains=1, samples=2))
    precision = torch.linalg.inv(covariance)
    # 64 draws a step: a hundredth of a standard deviation
    sds = precision.diagonal().rsqrt()
    assert ((chain.about["mean"] - mean) / sds).abs().max() < 0.03
    assert torch.allclose(chain.about["scale"], torch.diag(sds), rtol=0.03)
    gap = 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))
    assert gap > 0.1
    error = chain.about["log_evidence_bound_se"]
    assert abs(chain.log_evidence_bound - (evidence - gap)) < 4 * error + 0.005
    assert 0 < error < 0.05


def test_a_bound_without_the_entropy_is_seen():
    density, *_, evidence = linear(2, 1.0)
    chain = Variational().run(density, Job(chains=8, samples=1000))
    broken = float(chain.log_density.mean())
    assert abs(broken - evidence) > 0.5
    assert abs(chain.log_evidence_bound - evidence) < 1e-4


@pytest.mark.parametrize("broken", [{"temperature": 1.0}, {"prior_scale": 1.0}])
def test_the_oracle_fails_on_a_density_without_temperature_or_prior(broken):
    _, mean, covariance, evidence = linear(2, 5.0, prior_scale=0.3)
    options = {"temperature": 5.0, "prior_scale": 0.3} | broken
    density = linear(2, options["temperature"], prior_scale=options["prior_scale"])[0]
    chain = Variational().run(density, Job(chains=8, samples=1000))
    first, second = errors_of(chain, mean, covariance)
    assert max(first.abs().max(), second.abs().max()) > 4.5
    assert abs(chain.log_evidence_bound - evidence) > 0.1


def test_without_the_entropy_a_fit_collapses(monkeypatch):
    """The same ascent on log p alone: the standard deviation goes to 0."""
    density, _, covariance, _ = linear(1, 1.0)
    plain = torch.linalg.solve_triangular
    job = Job(chains=1, samples=2)
    with monkeypatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        patch.setattr(torch.linalg, "solve_triangular", lambda *a, **o: 0 * plain(*a, **o))
        broken = Variational(steps=300).run(density, job)
    assert broken.about["scale"].square().item() < 0.3 * covariance.item()
    right = Variational(steps=300).run(density, job)
    assert math.isclose(right.about["scale"].square().item(), covariance.item(), rel_tol=1e-3)


def ridge(k: int = 4) -> tuple[Density, torch.Tensor, torch.Tensor]:
    """A rotated Gaussian of standard deviations from 0.001 to 1; its log density at 0 is -1e5."""
    sds = torch.logspace(-3, 0, k, dtype=torch.float64)
    q = torch.linalg.qr(torch.randn(k, k, generator=torch.Generator().manual_seed(3)).double()).Q
    mean = q @ (sds * torch.tensor([450.0, *[1.0] * (k - 1)]).double())
    half = q / sds  # whitens
    function = lambda z: -0.5 * ((z - mean) @ half).square().sum(1)  # noqa: E731
    return Density(function, k, prior_scale=None), mean, (q * sds) @ (q * sds).T


def test_a_narrow_ridge():
    density, mean, covariance = ridge()
    assert density(torch.zeros(1, 4).double()).item() < -1e5
    chain = Variational().run(density, Job(chains=8, samples=1000))
    first, second = errors_of(chain, mean, covariance)
    assert first.abs().max() < 4
    assert second.abs().max() < 4.5
    evidence = 2 * math.log(2 * math.pi) + 0.5 * torch.logdet(covariance).item()
    assert math.isclose(chain.log_evidence_bound, evidence, abs_tol=1e-3)


def test_the_gradient_of_a_gaussian_is_that_of_autograd():
    """Sticking the landing is total minus score, whose mean is 0: on antithetic draws with unit
    moments both are equal. Here, of a linear log p and by autograd with a stopped log q."""
    k, n = 3, 5
    generator = torch.Generator().manual_seed(0)
    normal = lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64)  # noqa: E731
    q = Normal(normal(k), normal(k, k).tril(), full=True)
    with torch.no_grad():
        for p in q.parameters:
            p.copy_(0.3 * normal(*p.shape))
    e, weights = normal(n, k), normal(k)
    q.backward(e, lambda z: ((z @ weights).sin(), (z @ weights).cos()[:, None] * weights))
    gradients = [p.grad.clone() for p in q.parameters]
    factor = torch.diag(q.log_sd.exp()) + q.below.tril(-1)
    u = q.mu + e @ factor.T
    stopped = torch.distributions.MultivariateNormal(
        q.mu.detach(), scale_tril=factor.detach()
    ).log_prob(u)
    value = (((q.centre + u @ q.root.T) @ weights).sin() - stopped).mean()
    expected = torch.autograd.grad(value, q.parameters)
    for mine, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_minibatches_agree_with_all_data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    y = x @ torch.tensor([1.0, -0.5]).double() + torch.randn(400, generator=generator).double()

    def part(z, rows):
        errors = y[rows] - z @ x[rows].T
        scale = len(y) / len(y[rows])
        return -0.5 * scale * errors.square().sum(1), scale * errors @ x[rows]

    density = Density(
        lambda z: part(z, slice(None))[0],
        2,
        minibatch=lambda z, step: part(
            z, torch.randperm(400, generator=torch.Generator().manual_seed(step))[:100]
        ),
    )
    precision = x.T @ x + torch.eye(2).double()
    mean = torch.linalg.solve(precision, x.T @ y)
    about = Variational(minibatch=True).run(density, Job(chains=1, samples=2)).about
    sds = torch.linalg.inv(precision).diagonal().sqrt()
    assert ((about["mean"] - mean) / sds).abs().max() < 0.3  # data are noise here, too
    scale = about["scale"]
    assert torch.allclose((scale @ scale.T).diagonal().sqrt(), sds, rtol=0.2)
    with pytest.raises(ConfigError, match="no minibatches"):
        Variational(minibatch=True).run(linear(1, 1.0)[0], Job())


def test_where_the_density_is_zero_q_is_cut_off():
    """A half normal: its evidence is known, and its bound is finite and below."""
    function = lambda z: torch.where(z[:, 0] < 0, math.nan, -0.5 * z[:, 0] ** 2)  # noqa: E731
    density = Density(function, 1, prior_scale=None)
    chain = Variational().run(density, Job(chains=2, samples=500, start=torch.tensor([0.5])))
    assert bool((chain.draws >= 0).all())
    assert torch.isfinite(chain.log_density).all()
    evidence = 0.5 * math.log(math.pi / 2)
    error = chain.about["log_evidence_bound_se"]
    assert evidence - 0.3 < chain.log_evidence_bound < evidence + 4 * error
    assert 0.1 < chain.about["share"] < 0.99


def test_only_the_start_is_finite():
    value = lambda z: torch.where((z == 0).all(1), 0.0, -math.inf)  # noqa: E731
    lonely = Density(value, 1, gradient=lambda z: (value(z), 0 * z))
    with pytest.raises(NonFiniteError, match="none of"):
        Variational().run(lonely, Job(chains=1, samples=2))


@pytest.mark.parametrize(
    "options",
    [{"covariance": "low-rank"}, {"steps": 0}, {"draws": 0}, {"lr": -1.0}, {"evidence_draws": 1}],
)
def test_options_that_make_no_sense(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Variational(**options)
