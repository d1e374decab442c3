"""Steps on shapes: gradients by the chain rule against autograd, samples of coordinates."""

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import CASES, every_case
from tests.train.fitting import bent, bowl, mixed_loss, trainer_of


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@every_case
@pytest.mark.parametrize("kind", [ll.Bezier, ll.PolyChain])
def test_gradients_are_autograds_through_an_explicitly_mixed_model(case, kind):
    surface = case.surface()
    curve, batch = bent(case, surface, kind), surface.task.parts(case.batches()[0])
    coords = torch.tensor([[0.2], [0.55], [0.9]], dtype=torch.float64)
    run = trainer_of(curve, surface, weight_decay=0.1, samples=3)
    torch.manual_seed(7)  # of dropout
    losses = run.losses_and_gradients(coords, batch, out=run.gradients)
    leaf = curve.anchors.clone().requires_grad_()
    torch.manual_seed(7)
    expected = mixed_loss(curve, leaf, coords, surface, batch, 0.1)
    expected.backward()
    close = {"rtol": 2e-2, "atol": 2e-3} if case.name == "mixed" else {"rtol": 1e-4, "atol": 1e-5}
    free = leaf.grad[1:-1]
    assert torch.allclose(run.gradients, free, **close), float((run.gradients - free).abs().max())
    decay = 0.05 * run.shape(coords).square().sum(1).mean()
    assert float(losses.mean() + decay) == pytest.approx(float(expected.detach()), rel=1e-4)
    # a twin that forgets the coefficients is far off
    assert not torch.allclose(run.gradients, torch.ones_like(free) * free.mean(), **close)


STATEFUL = ("spectral", "spectral_by_hook", "own_statistics")  # training writes to their buffers


#: those that vmap does in a loop, and those whose noise differs from draw to draw, are left out
MAPPED = [
    case
    for case in CASES
    if not case.unbatched
    and "gradients" in case.maps
    and case.name not in ("conv_dropout", "transformer", "compiled", *STATEFUL)
]


@pytest.mark.parametrize("case", MAPPED, ids=lambda case: case.name)
def test_draws_together_are_draws_one_by_one(case):
    surface = case.surface()
    curve, batch = bent(case, surface), surface.task.parts(case.batches()[0])
    found = []
    for strategy in ("accumulate", "vmap"):
        run = trainer_of(curve, surface, weight_decay=0.1, samples=4, strategy=strategy)
        coords, _ = run.coordinates.at(0, 4)
        losses = run.losses_and_gradients(coords, batch, out=run.gradients)
        found.append((losses, run.gradients))
    close = {"rtol": 3e-2, "atol": 3e-3} if case.name == "mixed" else {"rtol": 1e-4, "atol": 1e-5}
    assert torch.allclose(found[0][0], found[1][0], **close)
    assert torch.allclose(found[0][1], found[1][1], **close)


@pytest.mark.parametrize("name", STATEFUL)
def test_draws_together_would_lose_what_a_layer_writes(name):
    case = next(case for case in CASES if case.name == name)
    surface = case.surface()
    curve, batch = bent(case, surface), surface.task.parts(case.batches()[0])
    run = trainer_of(curve, surface, samples=2, strategy="vmap")
    with pytest.raises(ll.ConfigError, match="'vmap' would lose what training writes to"):
        run.losses_and_gradients(run.coordinates.at(0, 2)[0], batch, out=run.gradients)
    free = trainer_of(curve, surface, samples=2, strategy=None)
    assert free._faster_strategy(free.coordinates.at(0, 2)[0], batch) == "accumulate"


@pytest.mark.parametrize("measure", ["coords", "arc"])
def test_one_draw_is_several_of_the_same(measure):
    # one draw on one free anchor takes a shorter way
    case = CASES[0]
    surface = case.surface()
    curve, batch = bent(case, surface, bends=1), surface.task.parts(case.batches()[0])
    options = {"weight_decay": 0.1, "measure": measure}
    one = trainer_of(curve, surface, **options)
    many = trainer_of(curve, surface, samples=3, **options)
    coords = torch.tensor([[0.3]], dtype=torch.float64)
    one.losses_and_gradients(coords, batch, out=one.gradients, scale=0.5)
    many.losses_and_gradients(coords.expand(3, 1), batch, out=many.gradients, scale=0.5)
    assert torch.allclose(one.gradients, many.gradients, atol=1e-6)


def arc_loss(anchors, curve, t, losses_at, typical):
    """Mean over t of |w'(t)| / length times the loss, with nothing but autograd."""

    def speed(t):
        slopes = curve.slopes(t)[:, 0].to(anchors)
        return (slopes @ anchors).norm(dim=1)

    fine = (torch.arange(6000, dtype=torch.float64)[:, None] + 0.5) / 6000
    share = speed(t) / speed(fine).mean()
    return (share * (losses_at(curve.coefficients(t).to(anchors) @ anchors) - typical)).mean()


@pytest.mark.parametrize("kind", [ll.Bezier, ll.PolyChain])
@pytest.mark.parametrize("typical", [0.0, 3.0])
def test_the_loss_uniform_in_length_has_its_whole_gradient(kind, typical):
    model = nn.Linear(4, 1, bias=False).double()
    data = [(torch.randn(9, 4).double(), torch.randn(9, 1).double())]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    g = torch.Generator().manual_seed(2)
    curve = kind.between(*torch.randn(2, 4, generator=g).double(), bends=2)
    curve = curve.with_anchors(
        curve.anchors + torch.tensor([0, 1, 1, 0])[:, None] * torch.randn(4, 4, generator=g)
    )
    coords = torch.linspace(0.05, 0.97, 7).double()[:, None]
    run = trainer_of(curve, surface, measure="arc", samples=7, weight_decay=0.2)
    run.mean_loss, run.num_samples = typical, 100
    run.losses_and_gradients(coords, surface.task.parts(data[0]), out=run.gradients)

    def losses_at(weights):
        each = torch.stack([surface.loss(w, data[0], train=True) for w in weights])
        return each + 0.1 * weights.square().sum(1)

    leaf = curve.anchors.clone().requires_grad_()
    arc_loss(leaf, curve, coords, losses_at, typical).backward()
    assert torch.allclose(run.gradients, leaf.grad[1:-1], rtol=1e-5, atol=1e-6)
    # reweighting alone, without the gradient through |w'(t)| and the length, is wrong
    fixed = curve.speed(coords) / curve.length()
    twin = curve.anchors.clone().requires_grad_()
    (fixed * losses_at(curve.coefficients(coords) @ twin)).mean().backward()
    assert not torch.allclose(run.gradients, twin.grad[1:-1], rtol=1e-2, atol=1e-3)


def test_the_typical_loss_changes_no_expectation():
    model = nn.Linear(3, 1, bias=False).double()
    data = [(torch.eye(3).double(), torch.zeros(3, 1).double())]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    g = torch.Generator().manual_seed(2)
    curve = ll.Bezier.between(*torch.randn(2, 3, generator=g).double())
    curve = curve.with_anchors(curve.anchors + torch.tensor([[0.0], [2.0], [0.0]]).double())
    nodes, weights = np.polynomial.legendre.leggauss(64)
    coords = torch.from_numpy((nodes + 1) / 2)[:, None]
    run = trainer_of(curve, surface, measure="arc")
    shares, gram = run._weights_and_gram(coords)
    pulls = []
    for share in shares:
        (by,) = torch.autograd.grad(share, gram, retain_graph=True)
        pulls.append((by + by.mT) @ curve.anchors)
    pulls = torch.stack(pulls)  # (n, A, P)
    mean = torch.einsum("n,nap->ap", torch.from_numpy(weights / 2), pulls)
    assert float(mean.abs().max()) < 1e-5 * float(pulls.abs().max())


def test_the_faster_way_is_found_and_kept():
    surface = bowl()
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    run = trainer_of(curve, surface, samples=4, strategy=None)
    run._backward(surface.data.loader[0])
    assert run.strategy in ("accumulate", "vmap")
    assert run._state_dict()["strategy"] == run.strategy
    case = next(case for case in CASES if case.unbatched)
    run = trainer_of(bent(case, case.surface()), case.surface(), samples=2, strategy=None)
    run._backward(case.batches()[0])
    assert run.strategy in ("accumulate", "vmap")


def test_labels_are_looked_at_where_draws_go_together():
    data = [(torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 1]))]
    surface = ll.LossSurface(nn.Linear(3, 1), ll.Classification("binary"), data)
    w = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ll.DataError, match="labels 0 or 1, got 2"):
        ll.fit(ll.Bezier.between(*w), surface, epochs=1, samples=2, strategy="vmap")
