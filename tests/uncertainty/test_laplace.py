"""The Laplace baseline against laplace-torch's own call, and against linear algebra."""

import math
import sys
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.utils.data import DataLoader, TensorDataset

import lowland as ll
from lowland.uncertainty.laplace import PRECISIONS, _Network
from tests.models import Case, every_case, with_other_buffers


@pytest.fixture(autouse=True, scope="module")
def laplace():
    """Imported by the worker that has these tests: it takes seconds."""
    return pytest.importorskip("laplace", reason="the extra `baselines` is not installed")


def features(seed=0, n=60, width=4):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


class Net(nn.Module):
    """With BatchNorm, whose statistics belong to the weights."""

    def __init__(self, outputs=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh())
        self.head = nn.Linear(6, outputs)

    def forward(self, x):
        return self.head(self.body(x))


def classifier():
    torch.manual_seed(0)
    net = Net()
    x = features()
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long()
    surface = ll.LossSurface(net, ll.Classification(), [(x[:32], y[:32]), (x[32:], y[32:])])
    return net, surface, x, y


def by_laplace_torch(net, surface, w, x, y, structure, **call):
    from laplace import Laplace

    own = Net(net.head.out_features)
    own.load_state_dict(net.state_dict())
    surface.layout.load_(own, w)
    own.load_state_dict(surface.refresh(w), strict=False)
    own.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        la = Laplace(
            own, "classification", subset_of_weights="last_layer", hessian_structure=structure
        )
        la.fit(DataLoader(TensorDataset(x, y), batch_size=32))
        la.optimize_prior_precision(method="marglik")
    return la(x, pred_type="glm", **call), la


@pytest.mark.parametrize("structure", ["full", "kron", "diag"])
def test_predictions_equal_those_of_laplace_torch(structure):
    net, surface, x, y = classifier()
    w = surface.layout.flatten(net) * 1.5
    probs, _ = by_laplace_torch(net, surface, w, x, y, structure, link_approx="probit")
    pred = ll.LastLayerLaplace(surface, w, structure=structure).predict()
    torch.testing.assert_close(pred.probs, probs.detach(), atol=2e-5, rtol=0)
    log_likelihood = probs.gather(1, y[:, None]).log().mean()
    assert pred.metrics()["nll"] == pytest.approx(-float(log_likelihood), abs=1e-4)
    assert pred.metrics()["accuracy"] == pytest.approx(
        float((probs.argmax(1) == y).double().mean())
    )
    plain = ll.predict(surface, w)
    assert float(pred.entropy.mean()) > float(plain.entropy.mean())  # less certain


def test_probit_against_the_gauss_newton_matrix():
    net, surface, x, _ = classifier()
    w = surface.layout.flatten(net)
    la = ll.LastLayerLaplace(surface, w, structure="full")
    precision = la.laplace.prior_precision.double()
    # float64, by hand: every logit is linear in the last layer, Jacobian (C, C (h + 1))
    state = {**surface.layout.unflatten(w), **surface.refresh(w)}
    state = {n: t.double() if t.is_floating_point() else t for n, t in state.items()}
    own = Net().double().eval()
    hidden = functional_call(
        own.body,
        {n.removeprefix("body."): t for n, t in state.items() if "body" in n},
        (x.double(),),
    )
    logits = hidden @ state["head.weight"].T + state["head.bias"]
    eye = torch.eye(3, dtype=torch.float64)
    jacobian = torch.cat(
        [torch.einsum("nh,cd->ncdh", hidden, eye).flatten(2), eye.expand(len(x), 3, 3)], 2
    )
    p = logits.softmax(1)
    curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    hessian = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian)
    covariance = torch.linalg.inv(hessian + precision * torch.eye(len(hessian)))
    variance = torch.einsum("ncp,pq,ncq->nc", jacobian, covariance, jacobian)
    expected = (logits / (1 + math.pi / 8 * variance).sqrt()).softmax(1)
    torch.testing.assert_close(la.predict().probs.double(), expected, atol=1e-4, rtol=0)


def test_the_prior_is_chosen_on_validation_examples():
    net, surface, _, _ = classifier()
    w = surface.layout.flatten(net)
    x = features(1)
    data = [(x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long())]
    tuned = ll.LastLayerLaplace(surface, w, validation=data)
    nll = tuned.predict(data).metrics()["nll"]
    best = float(tuned.laplace.prior_precision)
    losses = {}
    for precision in PRECISIONS:
        tuned.laplace.prior_precision = precision
        losses[precision] = tuned.predict(data).metrics()["nll"]
    assert nll == pytest.approx(min(losses.values()), rel=1e-6)
    assert losses[min(losses, key=lambda p: abs(p - best))] == min(losses.values())
    assert max(losses.values()) > nll + 0.01  # it matters
    with pytest.raises(ll.DataError, match="examples with targets"):
        ll.LastLayerLaplace(surface, w, validation=[x])


def test_draws_of_the_outputs_have_a_seed():
    net, surface, _, _ = classifier()
    la = ll.LastLayerLaplace(surface, surface.layout.flatten(net))
    one, same, other = (la.predict(link="mc", seed=s).probs for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    many = la.predict(link="mc", samples=3000).probs
    torch.testing.assert_close(many, la.predict().probs, atol=0.05, rtol=0)


def test_linear_regression_has_a_closed_form():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 3, generator=g)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 * torch.randn(40, 1, generator=g)
    net = nn.Sequential(nn.Identity(), nn.Linear(3, 1, bias=False))
    task = ll.Regression(noise_variance=0.09, target_mean=5.0, target_std=2.0)
    surface = ll.LossSurface(net, task, [(x, y)])
    w = torch.linalg.lstsq(x, y).solution[:, 0]
    la = ll.LastLayerLaplace(surface, w, structure="full")
    pred = la.predict()
    precision = float(la.laplace.prior_precision)
    covariance = torch.linalg.inv(x.double().T @ x.double() / 0.09 + precision * torch.eye(3))
    variance = torch.einsum("np,pq,nq->n", x.double(), covariance, x.double()) + 0.09
    torch.testing.assert_close(pred.variance[:, 0], 4 * variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(pred.mean[:, 0], 5 + 2 * (x @ w).double(), rtol=1e-5, atol=0)
    z = (y[:, 0] - x @ w).double()
    expected = 0.5 * ((2 * math.pi * variance).log() + z**2 / variance).mean() + math.log(2)
    assert pred.metrics()["nll"] == pytest.approx(float(expected), rel=1e-4)


def test_the_surface_and_the_random_state_are_unchanged():
    net, surface, _, _ = classifier()
    before = {n: t.clone() for n, t in surface.template.module.state_dict().items()}
    w = surface.layout.flatten(net)
    copy, state = w.clone(), torch.random.get_rng_state()
    ll.LastLayerLaplace(surface, w).predict()
    assert torch.equal(w, copy)
    assert torch.equal(state, torch.random.get_rng_state())
    for name, tensor in surface.template.module.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert not any(p.requires_grad for p in surface.template.module.parameters())


def test_tasks_and_networks_that_are_refused():
    x = features()
    data = [(x, torch.zeros(60, 1))]
    net = nn.Linear(4, 2)
    surface = ll.LossSurface(net, ll.Regression(), data)
    with pytest.raises(ll.ConfigError, match="Regression with a number for noise_variance"):
        ll.LastLayerLaplace(surface, surface.layout.flatten(net))
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    surface = ll.LossSurface(net, ll.Classification(), [(x, torch.zeros(60).long())])
    w = surface.layout.flatten(net)
    with pytest.raises(ll.LowlandError, match="whose last layer is"):
        ll.LastLayerLaplace(surface, w)
    with pytest.raises(ll.ConfigError, match="structure: expected one of full, kron, diag"):
        ll.LastLayerLaplace(surface, w, structure="block")
    _, surface, _, _ = classifier()
    la = ll.LastLayerLaplace(surface, torch.zeros(surface.layout.size))
    with pytest.raises(ll.ConfigError, match="link"):
        la.predict(link="bridge")


def test_without_laplace_torch_the_extra_is_named(monkeypatch):
    _, surface, _, _ = classifier()
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(ll.LowlandError, match=r'pip install "lowland\[baselines\]"'):
        ll.LastLayerLaplace(surface, torch.zeros(surface.layout.size))


@pytest.mark.parametrize("batchnorm", ["refresh", "frozen"])
@every_case
def test_the_network_has_the_buffers_of_its_point(case: Case, batchnorm: str):
    model, surface = case.model(), case.surface()
    with_other_buffers(model)
    point = surface.point(model)
    args, kwargs, _ = surface.task.parts(case.batches()[0])
    if len(args) != 1 or kwargs or case.name in ("residual", "compiled"):
        return  # Laplace needs one input
    parameters = surface.layout.materialise(point.weights)
    options = ll.EvalOptions(batchnorm=batchnorm)
    expected = surface.forward(parameters, surface.buffers_for(point, options), args, kwargs)
    output = _Network(surface, point, options)(args[0])
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
