"""Models that recompute activations in the backward pass."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import lowland as ll
from lowland.curvature.operators import CurvatureOperator
from tests.models import Checkpointed, blobs, generator


class Plain(Checkpointed):
    """The same function and weights without recomputation."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)))


class Square(Checkpointed):
    """A block whose saved tensors have one shape at all w, so that torch would see no difference:
    recomputed at other weights it gives another gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(6))
        self.net = nn.Linear(6, 3)

    def block(self, x: Tensor) -> Tensor:
        return self.net(torch.sin(x * self.net.weight[0] + self.shift))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.block, x, use_reentrant=False)


class Sequential(Checkpointed):
    """With torch's other checkpoint function."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = nn.Sequential(self.first, self.second)
        return self.head(checkpoint_sequential(blocks, 2, x, use_reentrant=False))


class Again(torch.autograd.Function):
    """A custom autograd function, as in reversible networks."""

    @staticmethod
    def forward(ctx, x, module, *weights):
        ctx.module, ctx.weights = module, weights
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            found = torch.autograd.grad(ctx.module(x), (x, *ctx.weights), gradient)
        return (found[0], None, *found[1:])


class Own(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.first(x))
        return Again.apply(hidden, self.head, *self.head.parameters())


RECOMPUTING = [Checkpointed, Sequential, Own]
every_recomputing = pytest.mark.parametrize("kind", RECOMPUTING, ids=lambda kind: kind.__name__)


def surface_of(kind: type[nn.Module]) -> tuple[ll.LossSurface, Tensor]:
    torch.manual_seed(0)
    model = kind()
    surface = ll.LossSurface(model.double(), ll.Classification(), doubled())
    return surface, surface.layout.flatten(model)


def doubled() -> list[tuple[Tensor, Tensor]]:
    return [(x.double(), y) for x, y in blobs()]


@every_recomputing
def test_gradients_are_those_without_recomputation(kind):
    ours, w = surface_of(kind)
    plain, _ = surface_of(Plain)
    w = w + 0.3 * torch.randn(
        len(w), generator=generator(2), dtype=w.dtype
    )  # not the weights of the model
    batch = doubled()[0]
    for arguments in ((w,), (w, batch)):
        for a, b in zip(
            ours.value_and_grad(*arguments), plain.value_and_grad(*arguments), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@every_recomputing
def test_two_losses_before_their_gradients(kind):
    """The model has been called with other weights, and in another mode, when the backward pass
    comes to recompute."""
    ours, w = surface_of(kind)
    plain, _ = surface_of(Plain)
    batch = doubled()[0]
    found = []
    for surface in (ours, plain):
        leaves = [(scale * w).requires_grad_() for scale in (1.0, 1.5)]
        losses = [surface.loss(leaf, batch) for leaf in leaves]
        surface(0.5 * w)
        surface.value_and_grad(2 * w, batch)
        found.append([torch.autograd.grad(*pair)[0] for pair in zip(losses, leaves, strict=True)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_saved_tensors_of_equal_shapes_do_not_hide_other_weights():
    surface, w = surface_of(Square)
    batch = doubled()[0]
    point = ll.Point(1.3 * w, {"shift": torch.full((6,), 0.7, dtype=torch.float64)})
    _, ours = surface.value_and_grad(point, batch)

    def by_hand(u: Tensor) -> Tensor:
        p = surface.layout.unflatten(u)
        hidden = torch.sin(batch[0] * p["net.weight"][0] + 0.7)
        return nn.functional.cross_entropy(hidden @ p["net.weight"].T + p["net.bias"], batch[1])

    torch.testing.assert_close(ours, torch.func.grad(by_hand)(1.3 * w), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [Checkpointed, Sequential])
def test_curvature_is_that_without_recomputation(kind):
    ours, w = surface_of(kind)
    plain, _ = surface_of(Plain)
    v = torch.randn(len(w), generator=generator(1), dtype=w.dtype)
    for kind_of_curvature in ("hessian", "ggn"):
        a, b = (
            CurvatureOperator(surface, 1.2 * w, kind=kind_of_curvature) @ v
            for surface in (ours, plain)
        )
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@every_recomputing
def test_samplers_and_fit_get_the_gradients_without_recomputation(kind):
    z = torch.randn(5, 2, generator=generator(3), dtype=torch.float64)
    found = []
    for kind_of_curvature in (kind, Plain):
        surface, w = surface_of(kind_of_curvature)
        sub = ll.Subspace.random(w, rank=2, seed=0)
        likelihood = ll.LogLikelihood(surface)
        curve = ll.fit(ll.Bezier.between(w, 1.1 * w), surface, epochs=2)
        # several points, which may use vmap, and one point
        several, one = (likelihood.value_and_grad(sub, rows) for rows in (z, z[:1]))
        found.append([*several, *one, likelihood.along(sub, z), curve.anchors])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_nuts_runs_on_a_model_that_recomputes():
    surface, w = surface_of(Checkpointed)
    sub = ll.Subspace.random(w, rank=2, seed=0)
    chain = ll.infer(sub, surface, sampler="nuts", chains=2, samples=2, warmup=9, prior_scale=0.1)
    assert len(chain.coords.flatten(0, 1).unique(dim=0)) > 1


def test_gradient_through_refreshed_statistics():
    class Norm(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh())
            self.head = nn.Linear(5, 3)
            self.recompute = recompute

        def forward(self, x: Tensor) -> Tensor:
            if self.recompute:
                return self.head(checkpoint(self.block, x, use_reentrant=False))
            return self.head(self.block(x))

    found = []
    for recompute in (True, False):
        torch.manual_seed(0)
        model = Norm(recompute).double()
        surface = ll.LossSurface(model, ll.Classification(), doubled())
        w = surface.layout.flatten(model)
        found.append([*surface.value_and_grad(w), *surface.value_and_grad(w, doubled()[0])])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_dropout_draws_the_same_noise_as_without_recomputation():
    class Noisy(nn.Module):
        def __init__(self, recompute: bool) -> None:
            super().__init__()
            self.before = nn.Dropout(0.5)
            self.block = nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.Linear(5, 3))
            self.recompute = recompute

        def forward(self, x: Tensor) -> Tensor:
            x = self.before(x)
            return (
                checkpoint(self.block, x, use_reentrant=False)
                if self.recompute
                else (self.block(x))
            )

    found = []
    for recompute in (True, False):
        torch.manual_seed(0)
        model = Noisy(recompute).double()
        surface = ll.LossSurface(model, ll.Classification(), doubled())
        w = surface.layout.flatten(model)
        torch.manual_seed(1)
        found.append(surface.value_and_grad(w, doubled()[0]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


class Reentrant(Checkpointed):
    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.head(checkpoint(self.second, hidden, use_reentrant=True))


class ReentrantFirst(Checkpointed):
    """Recomputes from the inputs, which have no graph: torch gives these weights no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(checkpoint(self.first, x, use_reentrant=True)))


class AllReentrant(Checkpointed):
    """The output has no graph at all."""

    def forward(self, x: Tensor) -> Tensor:
        blocks = nn.Sequential(self.first, self.second, self.head)
        return checkpoint(blocks, x, use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of torch, for values
@pytest.mark.parametrize("model", [Reentrant, ReentrantFirst, AllReentrant])
def test_recomputation_without_autograd_grad_is_an_error(model):
    surface, w = surface_of(model)
    assert torch.isfinite(surface(w))  # values need no gradient
    with pytest.raises(ll.ConfigError, match="use_reentrant=False"):
        surface.value_and_grad(w)
    leaf = w.clone().requires_grad_()
    with pytest.raises(ll.ConfigError, match="use_reentrant=False"):
        surface.loss(leaf, doubled()[0])
    with pytest.raises(ll.ConfigError, match="use_reentrant=False"):
        ll.infer(
            ll.Subspace.random(w, rank=2), surface, sampler="nuts", chains=1, samples=1, warmup=1
        )
    with pytest.raises(ll.ConfigError, match="use_reentrant=False"):
        ll.fit(ll.Bezier.between(w, 1.1 * w), surface, epochs=1)


def test_vmap_over_recomputation_is_an_error():
    surface, w = surface_of(Checkpointed)
    with pytest.raises(ll.ConfigError, match="recompute"):
        torch.func.grad(lambda u: surface.loss(u, doubled()[0]))(w)
    members = ll.Members(Checkpointed() for _ in range(2))
    with pytest.raises(ll.ConfigError, match="recompute"):
        ll.sgd_members(
            members, ll.Classification(), [ll.Batches(blobs()[0], batch_size=4)] * 2, epochs=1
        )


def test_saved_tensor_hooks_of_the_user_remain_active():
    """Saved tensors may also be moved to the host by a context around the loss."""
    surface, w = surface_of(Plain)
    leaf = w.clone().requires_grad_()
    with torch.autograd.graph.save_on_cpu():
        loss = surface.loss(leaf, doubled()[0])
    (ours,) = torch.autograd.grad(loss, leaf)
    _, plain_gradient = surface_of(Plain)[0].value_and_grad(w, doubled()[0])
    torch.testing.assert_close(ours, plain_gradient, rtol=1e-12, atol=1e-14)


def test_a_checkpoint_around_the_loss_itself():
    surface, w = surface_of(Plain)
    leaf = w.clone().requires_grad_()
    loss = checkpoint(lambda u: surface.loss(u, doubled()[0]), leaf, use_reentrant=False)
    surface(2 * w)
    (ours,) = torch.autograd.grad(loss, leaf)
    _, plain_gradient = surface.value_and_grad(w, doubled()[0])
    torch.testing.assert_close(ours, plain_gradient, rtol=1e-12, atol=1e-14)


def test_weights_of_the_older_hook_are_recomputed_too():
    class Normed(Checkpointed):
        def __init__(self) -> None:
            super().__init__()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                nn.utils.weight_norm(self.second[0])

    class Ordinary(Normed):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.second(self.first(x)))

    a, b = (surface_of(kind) for kind in (Normed, Ordinary))
    for one, other in zip(
        a[0].value_and_grad(1.2 * a[1]), b[0].value_and_grad(1.2 * b[1]), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
