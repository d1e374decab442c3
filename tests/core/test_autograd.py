"""Models that differentiate inside their forward pass, as physics-informed networks do."""

import math

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from lowland.curvature.operators import CurvatureOperator
from tests.models import Residual, generator

# -- derivatives inside the forward pass -----------------------------------------------------------


def wave(n: int = 12) -> list[tuple[Tensor, Tensor]]:
    """Points in (0, 3) in two batches, and targets for u'' + u."""
    x = 3 * torch.rand(n, 1, generator=generator(), dtype=torch.float64)
    return [(x[:8], torch.sin(x[:8])), (x[8:], torch.sin(x[8:]))]


def residual(w: Tensor, x: Tensor) -> Tensor:
    """u'' + u of the network of `Residual`, by hand: u = v tanh(a x + b) + c."""
    a, b, v, c = w[:6], w[6:12], w[12:18], w[18]
    t = torch.tanh(x * a + b)  # (n, 6)
    second = -2 * t * (1 - t**2) * a**2
    return ((second + t) @ v + c)[:, None]


def loss_by_hand(w: Tensor, data: list[tuple[Tensor, Tensor]]) -> Tensor:
    x, y = (torch.cat(parts) for parts in zip(*data, strict=True))
    return 0.5 * (residual(w, x) - y).square().mean() + 0.5 * math.log(2 * math.pi)


class AtTrainingOnly(Residual):
    """Keeps the graph of its derivatives in training mode only, as many models do."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            u = self.net(x)
            (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=self.training)
            return ddu + u


class OfItsInputs(Residual):
    """Assumes that its inputs require gradients."""

    def forward(self, x: Tensor) -> Tensor:
        u = self.net(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        return ddu + u


KINDS = [Residual, AtTrainingOnly, OfItsInputs]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def pinn(kind: type[Residual] = Residual) -> tuple[ll.LossSurface, Tensor]:
    torch.manual_seed(0)
    model = kind().double()
    data = wave()
    if kind is OfItsInputs:
        data = [(x.clone().requires_grad_(), y) for x, y in data]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    return surface, surface.layout.flatten(model)


@every_kind
def test_a_model_that_differentiates_is_evaluated(kind):
    surface, w = pinn(kind)
    value = surface(w)
    torch.testing.assert_close(value, loss_by_hand(w, wave()), rtol=1e-12, atol=0)
    assert not value.requires_grad


@every_kind
def test_outputs_hold_no_graph(kind):
    surface, w = pinn(kind)
    x, _ = wave()[0]
    with torch.no_grad():
        output = surface.forward(surface.layout.materialise(w), {}, (x,), {})
    assert not output.requires_grad
    torch.testing.assert_close(output, residual(w, x), rtol=1e-12, atol=1e-12)


@every_kind
def test_gradient_and_hessian_go_through_the_inner_derivatives(kind):
    surface, w = pinn(kind)
    data = wave()
    by_hand = torch.func.grad(lambda w: loss_by_hand(w, data))(w)
    _, gradient = surface.value_and_grad(w)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-9, atol=1e-12)
    leaf = w.clone().requires_grad_()
    total = sum(len(x) * surface.loss(leaf, (x, y)) for x, y in data)
    (gradient,) = torch.autograd.grad(total / 12, leaf)
    torch.testing.assert_close(gradient, by_hand, rtol=1e-9, atol=1e-12)
    hessian = torch.func.hessian(lambda w: loss_by_hand(w, data))(w)
    v = torch.randn(len(w), generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(
        CurvatureOperator(surface, w) @ v, hessian @ v, rtol=1e-8, atol=1e-10
    )


@every_kind
def test_every_room_evaluates_a_model_that_differentiates(kind):
    surface, w = pinn(kind)
    points = torch.stack([w, 1.1 * w, 0.9 * w])
    expected = torch.stack([loss_by_hand(u, wave()) for u in points])
    table = surface.evaluate(points)
    torch.testing.assert_close(table.loss, expected, rtol=1e-9, atol=0)
    pred = ll.predict(surface, ll.Ensemble(points), wave(), keep="probs")
    x = torch.cat([x for x, _ in wave()])
    mean = torch.stack([residual(u, x) for u in points]).mean(0)
    torch.testing.assert_close(pred.mean.double(), mean, rtol=1e-5, atol=1e-6)
    along = ll.path(ll.Line(w, 1.1 * w), surface, points=3)
    torch.testing.assert_close(along.loss[-1].double(), expected[1], rtol=1e-6, atol=0)
    plane = ll.scan(ll.Plane.through(*points[:2], w.flip(0)), surface, resolution=3)
    assert bool(torch.isfinite(plane.loss).all())
    sub = ll.Subspace.hessian(surface, w, rank=2)
    for sampler in ("ess", "nuts"):
        chain = ll.infer(
            sub, surface, sampler=sampler, chains=2, samples=2, warmup=9, prior_scale=0.01
        )
        assert bool(torch.isfinite(chain.coords).all())
    curve = ll.fit(ll.Bezier.between(w, 1.1 * w), surface, epochs=2)
    assert not torch.equal(curve.anchors[1], ll.Bezier.between(w, 1.1 * w).anchors[1])


def test_vmap_over_a_model_that_differentiates_is_an_error():
    surface, w = pinn()
    points = torch.stack([w, 1.1 * w])
    with pytest.raises(ll.ConfigError, match="strategy"):
        ll.predict(surface, ll.Ensemble(points), wave(), strategy="vmap")
    likelihood = ll.LogLikelihood(surface, strategy="vmap")
    with pytest.raises(ll.ConfigError, match="strategy"):
        likelihood(points)


def test_many_calls_of_a_likelihood_work_without_vmap():
    """After some hundred calls operations are traced, which needs vmap elsewhere."""
    surface, w = pinn()
    likelihood = ll.LogLikelihood(surface, trace=True)
    expected = torch.stack([-12 * loss_by_hand(u, wave()) for u in (w, 1.1 * w)])
    for _ in range(3):
        values = likelihood(torch.stack([w, 1.1 * w]))
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=0)


def test_inputs_are_unchanged():
    data = wave()
    torch.manual_seed(0)

    class Marks(Residual):
        def forward(self, x: Tensor) -> Tensor:
            x.requires_grad_()
            u = self.net(x)
            (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
            return du + u

    surface = ll.LossSurface(Marks().double(), ll.Regression(noise_variance=1.0), data)
    surface(surface.layout.flatten(Marks().double()))
    assert not any(x.requires_grad for x, _ in data)


def test_statistics_of_a_model_that_differentiates_need_no_gradient():
    class Normed(Residual):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(1, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))

    torch.manual_seed(0)
    model = Normed().double()
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), wave())
    w = surface.layout.flatten(model)
    x = torch.cat([x for x, _ in wave()])
    for method in ("exact", "batch"):
        values = surface.refresh(w, method=method)
        assert not any(buffer.requires_grad for buffer in values.values())
        entering = model.net[0](x)
        torch.testing.assert_close(values["net.1.running_mean"], entering.mean(0).detach())
        torch.testing.assert_close(values["net.1.running_var"], entering.var(0).detach())
    assert bool(torch.isfinite(surface(w)))


def test_inference_mode_is_an_error():
    surface, w = pinn()
    with torch.inference_mode(), pytest.raises(ll.ConfigError, match=r"torch\.no_grad"):
        surface(w)


def test_an_error_of_the_model_keeps_its_message():
    class Wrong(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(1, 1)

        def forward(self, x):
            raise RuntimeError("the model's own")

    surface = ll.LossSurface(Wrong(), ll.Regression(noise_variance=1.0), [(torch.ones(2, 1),) * 2])
    with pytest.raises(RuntimeError, match="the model's own"):
        surface(torch.zeros(2))


def test_validation_of_a_model_that_differentiates():
    surface, _ = pinn()
    model = Residual().double()
    x, y = wave()[0]
    log = ll.sgd(
        model,
        surface.task,
        wave(),
        epochs=2,
        validate=lambda m: {"rmse": float((m(x) - y).square().mean().sqrt())},
    )
    assert len(log.columns["rmse"]) == 2


# -- recomputation in the backward pass ------------------------------------------------------------


def test_custom_statistics_of_a_model_that_differentiates():
    class Centred(Residual):
        def __init__(self):
            super().__init__()
            self.register_buffer("mu", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                self.mu.lerp_(x.detach().mean(0), 1.0)
            return super().forward(x - self.mu)

    torch.manual_seed(0)
    data, task = wave(), ll.Regression(noise_variance=1.0)
    surface = ll.LossSurface(Centred().double(), task, data, reestimate="mu")
    w = surface.layout.flatten(Centred().double())
    values = surface.refresh(w)["mu"]
    assert not values.requires_grad
    torch.testing.assert_close(values, data[-1][0].mean(0))
    assert bool(torch.isfinite(surface(w)))
