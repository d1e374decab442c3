"""Simplexes of low loss: whole gradients, optima in closed form, resuming."""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import CASES, every_case
from tests.train.fitting import bowl, losses_in_turn, trainer_of
from tests.train.resuming import Boom, Count, watched


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def around(w, n, seed=5, spread=0.3):
    """n weight vectors around w, itself the first."""
    g = torch.Generator().manual_seed(seed)
    noise = torch.randn(n - 1, len(w), generator=g, dtype=torch.float64).to(w)
    return torch.cat([w[None], w + spread * noise])


def volume_of(anchors, cells):
    """The summed volume through autograd alone."""
    each = []
    for cell in cells:
        edges = anchors[list(cell[1:])].double() - anchors[cell[0]].double()
        each.append(0.5 * torch.logdet(edges @ edges.T) - math.lgamma(len(cell)))
    return torch.stack(each)


@every_case
def test_gradients_are_autograds_through_an_explicitly_mixed_model(case):
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    simplex = ll.Simplex(around(w, 3), free=[False, True, True])
    batch = surface.task.parts(case.batches()[0])
    coords = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.1, 0.4]], dtype=torch.float64)
    run = trainer_of(simplex, surface, weight_decay=0.1, samples=2, log_volume=0.3)
    torch.manual_seed(7)  # of dropout
    run.losses_and_gradients(coords, batch, out=run.gradients)
    leaf = simplex.anchors.clone().requires_grad_()
    torch.manual_seed(7)
    weights = [row @ leaf for row in coords.to(leaf)]
    losses = losses_in_turn(surface, weights, batch)
    decayed = [loss + 0.05 * w.square().sum() for loss, w in zip(losses, weights, strict=True)]
    (sum(decayed) / 2 - 0.3 * volume_of(leaf, simplex.cells).sum()).backward()
    close = {"rtol": 2e-2, "atol": 2e-3} if case.name == "mixed" else {"rtol": 1e-4, "atol": 1e-5}
    assert torch.allclose(run.gradients, leaf.grad[1:], **close)


def test_several_draws_are_averaged_and_not_summed():
    surface = bowl()
    simplex = ll.Simplex(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    simplex = simplex.grow(seed=1)
    batch = surface.task.parts(next(iter(surface.data.loader)))
    coords = torch.tensor([[0.2, 0.7, 0.1]], dtype=torch.float64)
    found = []
    for n in (1, 5):  # the published code takes a sum, five times as much against the volume
        run = trainer_of(simplex, surface, samples=n, log_volume=0.3)
        run.losses_and_gradients(coords.expand(n, 3), batch, out=run.gradients)
        found.append(run.gradients.clone())
    assert torch.allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("far", [0.0, 1000.0])
def test_the_volumes_gradient_far_from_the_origin(far):
    surface = bowl()
    g = torch.Generator().manual_seed(1)
    simplex = ll.Simplex(far + 0.1 * torch.randn(3, 4, generator=g), free=[False, True, True])
    run = trainer_of(simplex, surface, log_volume=1.0)
    batch = surface.task.parts(next(iter(surface.data.loader)))
    coords = torch.tensor([[0.2, 0.5, 0.3]], dtype=torch.float64)
    with_volume = torch.empty_like(run.gradients)
    run.losses_and_gradients(coords, batch, out=with_volume)
    plain = trainer_of(simplex, surface)
    plain.losses_and_gradients(coords, batch, out=plain.gradients)
    leaf = simplex.anchors.double().requires_grad_()
    (-volume_of(leaf, simplex.cells).sum()).backward()
    found = trainer_of(simplex, surface, log_volume=1.0)
    _, gram = found._weights_and_gram(coords)
    out = torch.zeros_like(found.gradients)
    found._add_gram_gradient(
        found._gram_gradient(torch.zeros(1), None, gram)[found.model.free_indices], out
    )
    assert torch.allclose(out.double(), leaf.grad[1:], rtol=1e-5, atol=1e-5)
    # and that is what a step adds, but for rounding of the loss's own gradient
    scale = float(plain.gradients.abs().max())
    assert torch.allclose(with_volume - plain.gradients, out, rtol=1e-4, atol=1e-4 + 1e-6 * scale)


def test_draws_together_keep_the_precision_of_the_model():
    model = nn.Linear(4, 1, bias=False).double()
    g = torch.Generator().manual_seed(0)
    data = [(torch.randn(9, 4, generator=g).double(), torch.randn(9, 1, generator=g).double())]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    simplex = ll.Simplex(torch.randn(3, 4, generator=g).double(), free=[False, True, True])
    coords = simplex.sample_coords(5, generator=g)
    found = []
    for strategy in ("accumulate", "vmap"):
        run = trainer_of(simplex, surface, strategy=strategy, samples=5, log_volume=0.1)
        run.losses_and_gradients(coords, surface.task.parts(data[0]), out=run.gradients)
        found.append(run.gradients)
    assert torch.allclose(found[0], found[1], rtol=1e-12, atol=1e-13)


def expected_loss(anchors, cells):
    """E |w|²/2 over a complex of simplexes of one size, in closed form.

    E c_a c_b = (1 + [a = b]) / (n (n + 1)) under Dirichlet(1) in n coordinates.
    """
    n = len(cells[0])
    values = []
    for cell in cells:
        v = anchors[list(cell)].double()
        values.append((v.sum(0).square().sum() + v.square().sum()) / (2 * n * (n + 1)))
    share = torch.softmax(volume_of(anchors, cells), 0)
    return (share * torch.stack(values)).sum()


def test_the_whole_gradient_of_a_complex_whose_shares_move():
    surface = bowl()
    g = torch.Generator().manual_seed(3)
    w = torch.randn(4, 4, generator=g)
    w[1] = 2 * w[1] + 3
    begun = ll.SimplicialComplex.connecting(w[:2], w[2:])
    moved = begun.with_anchors(begun.anchors + 0.5 * torch.randn(4, 4, generator=g))
    run = trainer_of(begun, surface, strategy="vmap", samples=40_000)
    run.model.matrix.copy_(moved.anchors)  # where the fit has come to
    batch = surface.task.parts(next(iter(surface.data.loader)))
    free = [i for i, one in enumerate(begun.free) if one]
    # drawn as the complex was at first
    coords = begun.sample_coords(40_000, generator=g)
    run.num_samples = 10
    run.mean_loss = 5.0
    run.losses_and_gradients(coords, batch, out=run.gradients)
    leaf = moved.anchors.clone().requires_grad_()
    expected_loss(leaf, begun.cells).backward()
    assert torch.allclose(run.gradients, leaf.grad[free], rtol=0.03, atol=0.03)
    # as if each simplex were as large as it was: off
    fixed = moved.anchors.clone().requires_grad_()
    shares = begun.shares()
    n = len(begun.cells[0])
    for share, cell in zip(shares, begun.cells, strict=True):
        v = fixed[list(cell)].double()
        part = (v.sum(0).square().sum() + v.square().sum()) / (2 * n * (n + 1))
        (share * part).backward()
    assert not torch.allclose(run.gradients, fixed.grad[free], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("vertices", [2, 3, 4])
def test_the_best_simplex_in_a_bowl_is_the_one_in_closed_form(vertices):
    # with one vertex at the bottom and the others free the edges' Gram matrix is
    # lambda A (A + 1) (I + 1 1^T)^-1
    surface, k = bowl(), vertices - 1
    g = torch.Generator().manual_seed(0)
    start = torch.cat([torch.zeros(1, 4), torch.randn(k, 4, generator=g)])
    simplex = ll.Simplex(start, free=[False] + [True] * k)
    fitted = ll.fit(
        simplex, surface, epochs=200, samples=96, strategy="vmap", log_volume=0.2,
        optimizer=lambda ps: torch.optim.SGD(ps, lr=0.3, momentum=0.9),
        schedule=lambda made: ll.DecaySchedule(made, total=200),
    )  # fmt: skip
    edges = fitted.anchors[1:].double()
    best = 0.2 * vertices * (vertices + 1) * torch.linalg.inv(torch.eye(k) + 1.0).double()
    assert torch.allclose(edges @ edges.T, best, rtol=0.05, atol=0.05)
    assert fitted.log.columns["log_volume"][-1] == pytest.approx(float(fitted.log_volume()))
    assert torch.equal(fitted.anchors[0], simplex.anchors[0])


def options(tmp_path, **more):
    return {
        "epochs": 3, "samples": 2, "log_volume": 0.1, "seed": 3, "strategy": "accumulate",
        "checkpoint": tmp_path / "fit.ckpt", "checkpoint_steps": 1,
    } | more  # fmt: skip


@pytest.mark.parametrize("kind", ["simplex", "complex"])
def test_bit_equal_wherever_it_was_stopped(tmp_path, kind):
    case = CASES[0]
    surface = case.surface()
    w = around(surface.layout.flatten(case.model()), 3)
    if kind == "simplex":
        shape = ll.Simplex(w).grow()
    else:
        shape = ll.SimplicialComplex.connecting(w).grow().grow()
    event = Count()
    with watched(event):
        whole = ll.fit(shape, surface, **options(tmp_path / "whole"))
    assert event.count > 3

    def stop():
        raise Boom

    for at in range(1, event.count + 1, 5):
        folder = tmp_path / str(at)
        with pytest.raises(Boom), watched(Count(at, stop)):
            ll.fit(shape, surface, **options(folder))
        again = ll.fit(shape, surface, **options(folder))
        assert torch.equal(again.anchors, whole.anchors)
        assert torch.equal(again.log.columns["log_volume"], whole.log.columns["log_volume"])
    with pytest.raises(ll.LowlandError, match="log_volume"):
        ll.fit(shape, surface, **options(tmp_path / "whole", log_volume=0.2))


def test_what_has_no_volume_has_none_to_grow():
    surface = bowl()
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ll.ConfigError, match=r"Bezier.* has no volume; give a simplex"):
        ll.fit(ll.Bezier.between(*w[:2]), surface, epochs=1, log_volume=0.1)
    with pytest.raises(ll.ConfigError, match="log_volume: expected a number of at least 0, got -1"):
        ll.fit(ll.Simplex(w).grow(), surface, epochs=1, log_volume=-1)
    with pytest.raises(ll.ConfigError, match=r"no free anchor.*grow\(\)"):
        ll.fit(ll.Simplex(w), surface, epochs=1)
    alone = ll.Simplex(w[:1], free=[True])
    with pytest.raises(ll.ConfigError, match="has no volume; give a simplex of two vertices"):
        ll.fit(alone, surface, epochs=1, log_volume=0.1)
    fitted = ll.fit(alone, surface, epochs=40)  # a point is trained as by SGD
    assert float(fitted.anchors.norm()) < 0.5 * float(w[0].norm())


def test_a_simplex_that_collapses_is_reported():
    surface = bowl()
    w = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    run = trainer_of(ll.Simplex(w, free=[False, True, True]), surface, log_volume=0.1)
    run.model.matrix[2] = run.model.matrix[1]
    with pytest.raises(ll.NonFiniteError, match="the volume is gone at step 1"):
        run.losses_and_gradients(
            run.coordinates.at(0, 1)[0],
            surface.task.parts(next(iter(surface.data.loader))),
            out=run.gradients,
        )
