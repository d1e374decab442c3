"""Spectra of losses whose Hessian is known, and of small networks against dense matrices."""

import importlib

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.records import SpectrumResult
from tests.curvature.test_operators import dense, double_case

LEADING = [40.0, 20.0, 10.0]


def quadratic(values):
    """A surface whose Hessian has these eigenvalues: linear regression on rotated examples."""
    values = torch.as_tensor(values).double()
    n = len(values)
    g = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(n, n, generator=g).double()).Q
    x = (n * values).sqrt()[:, None] * q  # x^T x / n = q^T diag(values) q
    net = nn.Linear(n, 1, bias=False, dtype=torch.float64)
    data = [(x, torch.zeros(n, 1).double())]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), data)
    return surface, torch.zeros(n).double()


def test_a_quadratic_has_its_eigenvalues_trace_and_density():
    values = torch.cat([torch.tensor(LEADING), torch.linspace(0, 2, 197)]).double()
    surface, w = quadratic(values)
    result = ll.spectrum(surface, w, top=3, probes=8, steps=40, eigenvectors=True)
    torch.testing.assert_close(result.eigenvalues, values[:3], rtol=1e-6, atol=0)
    assert float(result.residuals.max()) < 1e-3 * 40
    low, high = result.trace_interval
    assert low <= float(values.sum()) <= high
    assert (high - low) / 2 < 0.1 * 197
    # the distribution function of the bulk, which is uniform on [0, 2]
    for point in (0.5, 1.0, 1.5):
        share = (result.weights * (result.nodes <= point)).sum(1).mean()
        assert float(share) == pytest.approx(point / 2, abs=0.06)
    assert result.gradient_norm == 0
    matrix = dense(surface, w, "hessian")
    products = result.eigenvectors @ matrix
    torch.testing.assert_close(
        products, result.eigenvalues[:, None] * result.eigenvectors, rtol=0, atol=0.05
    )
    assert result.products > 8 * 40
    assert result.batchnorm == "none"


@pytest.mark.parametrize(
    ("kind", "build"),
    [("empirical_fisher", "mlp"), ("fisher", "mlp"), ("ggn", "mlp"), ("hessian", "conv_bn")],
)
def test_a_network_has_the_spectrum_of_its_dense_matrix(kind, build):
    surface, w = double_case(build)
    options = {"kind": kind, "method": "double_backward"}
    result = ll.spectrum(surface, w, **options, top=4, probes=6, steps=30, tolerance=1e-6)
    matrix = ll.curvature.CurvatureOperator(surface, w, **options) @ torch.eye(len(w)).double()
    values = torch.linalg.eigvalsh((matrix + matrix.T) / 2).flip(0)
    torch.testing.assert_close(result.eigenvalues, values[:4], rtol=1e-6, atol=1e-9)
    low, high = result.trace_interval
    margin = 0.5 * (high - low)
    assert low - margin <= float(values.sum()) <= high + margin
    assert result.batchnorm == ("refresh" if build == "conv_bn" else "none")
    assert result.gradient_norm > 1e-3  # no minimum
    assert result.nodes.max() <= float(values[0]) + 1e-6
    if kind == "hessian":
        assert float(result.nodes.min()) == pytest.approx(float(values[-1]), rel=0.3)


def test_all_eigenvalues_leave_nothing_to_estimate():
    surface, w = quadratic([5.0, 3.0, 1.0])
    result = ll.spectrum(surface, w)
    assert result.trace_interval == pytest.approx((9, 9))
    assert (result.probes, result.remaining) == (0, 0)
    alone = ll.spectrum(surface, w, top=2, probes=2)
    assert alone.trace_interval == pytest.approx((9, 9))
    trace = ll.spectrum(surface, w, top=0, probes=50, steps=1)
    assert trace.trace == pytest.approx(9, rel=0.2)
    assert trace.products == 50


class Stopped(Exception):
    pass


def test_a_stopped_spectrum_goes_on_to_the_same_result(tmp_path):
    surface, w = double_case("mlp")
    options = {"top": 3, "probes": 4, "steps": 8, "method": "double_backward"}
    whole = ll.spectrum(surface, w, **options)
    path = tmp_path / "spectrum.safetensors"

    def stop(done, total):
        if total is not None and done > total - 12:
            raise Stopped

    with pytest.raises(Stopped):
        ll.spectrum(surface, w, **options, checkpoint=path, progress=stop)
    calls = []
    result = ll.spectrum(
        surface, w, **options, checkpoint=path, progress=lambda *now: calls.append(now)
    )
    for name in ("eigenvalues", "nodes", "weights", "residuals"):
        assert torch.equal(getattr(result, name), getattr(whole, name))
    assert result.products == whole.products
    assert len(calls) == 2 * 8 + 1  # two probes, and the end
    more = ll.spectrum(surface, w, **options | {"probes": 5}, checkpoint=path)
    assert torch.equal(more.nodes[:4], whole.nodes)
    with pytest.raises(ll.ConfigError, match="seed: 0 there, 1 now"):
        ll.spectrum(surface, w, **options, seed=1, checkpoint=path)
    with pytest.raises(ll.ConfigError, match="point: "):
        ll.spectrum(surface, w + 1, **options, checkpoint=path)


def test_too_little_memory_is_refused_before_the_work(monkeypatch):
    surface, w = quadratic(torch.linspace(0, 1, 100))
    module = importlib.import_module("lowland.curvature.spectrum")
    monkeypatch.setattr(module, "free_memory", lambda device: 40_000)
    with pytest.raises(
        ll.ConfigError, match=r"70 vectors of 100 weights take 0.0 GB.*lower steps="
    ):
        ll.spectrum(surface, w, top=10, probes=1, steps=60)
    assert ll.spectrum(surface, w, top=2, probes=1, steps=10).products > 10


def test_bad_input_is_refused():
    surface, w = quadratic([5.0, 3.0, 1.0])
    for options, message in [
        ({"kind": "jacobian"}, "kind: expected one of hessian, ggn, fisher, empirical_fisher"),
        ({"top": -1}, "top: expected a whole number of at least 0, got -1"),
        ({"steps": 0}, "steps: expected a whole number of at least 1"),
        ({"tolerance": 0}, "tolerance: expected a number above 0"),
    ]:
        with pytest.raises(ll.ConfigError, match=message):
            ll.spectrum(surface, w, **options)
    with pytest.raises(ll.NonFiniteError, match="loss at these weights is"):
        ll.spectrum(surface, w + 1e200)


def test_the_record_goes_to_disk(tmp_path):
    surface, w = quadratic([5.0, 3.0, 1.0, 0.5])
    result = ll.spectrum(surface, w, top=1, probes=2, steps=2)
    back = SpectrumResult.load(result.save(tmp_path / "spectrum.json"))
    assert back.message == result.message
