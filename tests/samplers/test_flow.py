"""Flows against quadrature, and against the Gaussian that they begin with."""

from __future__ import annotations

import math

import pytest
import torch

from lowland.errors import ConfigError, LowlandError
from lowland.samplers import Density, Flow, Job, Variational, elbo
from lowland.samplers.flow import Splines, WithGivenGradient
from tests.samplers.contract import SamplerContract, linear, stopped_after

QUICK = {"layers": 1, "hidden": 8, "draws": 32}


class TestFlow(SamplerContract):
    dimensions = (1, 2)

    @pytest.fixture(autouse=True)
    def few_steps(self, monkeypatch):
        monkeypatch.setattr(elbo, "_BLOCK", 10)

    def make(self):
        return Flow(**QUICK)


def banana(z):
    """A ridge along z_1 = z_0² / 2, with a prior of scale 1 around it."""
    return -0.5 * ((z[:, 1] - 0.5 * z[:, 0] ** 2) / 0.2) ** 2


def by_quadrature(density: Density, reach: float = 6.0, n: int = 1201) -> float:
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    values = density(torch.cartesian_prod(axis, axis))
    return float(values.logsumexp(0) + 2 * math.log(2 * reach / (n - 1)))


def test_a_banana(monkeypatch):
    monkeypatch.setattr(elbo, "_BLOCK", 25)
    density = Density(banana, 2)
    evidence = by_quadrature(Density(banana, 2))
    job = Job(chains=4, samples=500)
    with pytest.warns(UserWarning, match="not near the posterior"):
        gaussian = Variational().run(density, job)
    flow = Flow(layers=1, hidden=16).run(Density(banana, 2), job)
    error = flow.about["log_evidence_bound_se"]
    assert gaussian.log_evidence_bound < evidence - 0.2
    assert evidence - 0.05 < flow.log_evidence_bound < evidence + 4 * error
    # the prior's first coordinate is what bends: its variance is too small under a Gaussian
    grid = torch.cartesian_prod(*[torch.linspace(-6, 6, 601, dtype=torch.float64)] * 2)
    weights = density(grid).softmax(0)
    exact = float(weights @ grid[:, 0] ** 2)
    assert abs(float(flow.covariance[0, 0]) / exact - 1) < 0.15
    assert float(gaussian.covariance[0, 0]) / exact < 0.8


def test_the_density_of_a_flow_is_one():
    """Layers that have been learnt: the integral of q is 1, and log q is that at its draws."""
    q = Splines(
        torch.tensor([0.5, -0.5]).double(),
        torch.tensor([[1.0, 0.0], [0.5, 0.7]]).double(),
        layers=2,
        hidden=8,
        bins=4,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in q.parameters:
            p.add_(0.2 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    # by change of variables backwards: a draw's density by autograd's Jacobian
    e = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    z, log_q = q.draw(e)
    for row, point, value in zip(e, z, log_q, strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda x: q._transform(x[None])[0][0], row)
        normal = -0.5 * float(row @ row) - math.log(2 * math.pi)
        assert math.isclose(float(value), normal - float(torch.logdet(jacobian.T @ jacobian)) / 2)
        assert torch.isfinite(point).all()
    assert torch.allclose(q._log_prob(z), log_q, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_it_begins_as_the_gaussian(k):
    mean = torch.arange(k).double()
    scale = torch.eye(k).double() * 0.3 + torch.ones(k, k).double().tril(-1) * 0.1
    q = Splines(mean, scale, layers=3, hidden=8, bins=8, seed=0)
    e = torch.randn(20, k, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    z, log_q = q.draw(e)
    gaussian = torch.distributions.MultivariateNormal(mean, scale_tril=scale)
    assert torch.allclose(z, mean + e @ scale.T)
    assert torch.allclose(log_q, gaussian.log_prob(z))


def test_both_gradients_have_one_mean_and_the_landing_none_at_the_truth():
    density, mean, covariance, _ = linear(2, 1.0)
    scale = torch.linalg.cholesky(covariance)
    e = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradient(shift: float, landing: bool) -> torch.Tensor:
        q = Splines(
            mean + shift * scale[:, 0], scale, layers=1, hidden=4, bins=3, seed=0, landing=landing
        )
        q.backward(e, density.value_and_grad)
        return torch.cat([p.grad.flatten() for p in q.parameters])

    assert gradient(0.0, True).abs().max() < 1e-9 < 1e-3 < gradient(0.0, False).abs().max()
    one, other = gradient(1.0, True), gradient(1.0, False)
    assert (one - other).abs().max() < 0.1
    assert one.abs().max() > 0.5


def test_gradients_go_through_the_link():
    z = torch.randn(4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = linear(2, 2.0)[0]
    leaf = z.clone().requires_grad_()
    weights = torch.arange(4).double()
    (WithGivenGradient.apply(leaf, density.value_and_grad) @ weights).backward()
    assert torch.allclose(leaf.grad, weights[:, None] * density.value_and_grad(z)[1])


def test_without_its_jacobian_the_bound_is_wrong(monkeypatch):
    """A flow that forgets log |det dz/de| claims more than the evidence."""
    monkeypatch.setattr(elbo, "_BLOCK", 10)
    plain = Splines._transform

    def forgets(self, e):
        z, _ = plain(self, e)
        return z, -0.5 * e.square().sum(1) - 0.5 * self.k * math.log(2 * math.pi)

    density, *_, evidence = linear(2, 1.0)
    right = Flow(**QUICK).run(density, Job(chains=1, samples=2))
    assert abs(right.log_evidence_bound - evidence) < 0.02
    monkeypatch.setattr(Splines, "_transform", forgets)
    broken = Flow(**QUICK).run(linear(2, 1.0)[0], Job(chains=1, samples=2))
    assert abs(broken.log_evidence_bound - evidence) > 1


def test_it_goes_on_from_the_gaussian_the_flow_and_the_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(elbo, "_BLOCK", 5)
    monkeypatch.setattr("lowland.samplers.job.EVERY", 0.0)
    sampler = Flow(**QUICK, evidence_draws=200)
    whole = sampler.run(linear(2, 1.0)[0], Job(chains=2, samples=50))
    for share in (0.1, 0.3, 0.6, 0.99):
        job = Job(chains=2, samples=50, checkpoint=tmp_path / f"flow-{share}.safetensors")
        density = linear(2, 1.0)[0]
        with pytest.raises(KeyboardInterrupt):
            sampler.run(stopped_after(density, share * whole.evaluations), job)
        chain = sampler.run(linear(2, 1.0)[0], job)
        assert torch.equal(chain.coords, whole.coords)
        assert torch.equal(chain.about["elbo"], whole.about["elbo"])
        assert chain.log_evidence_bound == whole.log_evidence_bound
        assert chain.evaluations == whole.evaluations


@pytest.mark.parametrize("landing", [True, False])
def test_where_the_density_is_zero(landing, monkeypatch):
    """Half of a Gaussian: what is left of q is below the evidence, and near it."""
    monkeypatch.setattr(elbo, "_BLOCK", 20)
    function = lambda z: torch.where(z[:, 0] < 0, math.nan, -0.5 * z[:, 0] ** 2)  # noqa: E731
    job = Job(chains=2, samples=50, start=torch.tensor([0.5]))
    flow = Flow(**QUICK, landing=landing).run(Density(function, 1, prior_scale=None), job)
    assert bool((flow.draws >= 0).all())
    evidence, error = 0.5 * math.log(math.pi / 2), flow.about["log_evidence_bound_se"]
    assert evidence - 0.3 < flow.log_evidence_bound < evidence + 4 * error


def test_without_zuko_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "zuko", None)
    with pytest.raises(LowlandError, match=r'pip install "lowland\[samplers\]"'):
        Flow().run(linear(1, 1.0)[0], Job(chains=1, samples=2))


@pytest.mark.parametrize("options", [{"layers": 0}, {"hidden": 0}, {"bins": 1}, {"steps": 0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Flow(**options)
