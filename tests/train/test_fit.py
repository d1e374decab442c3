"""Shapes of low loss: gradients by the chain rule, optima in closed form, resuming anywhere."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError
from lowland.train.along import STRATA
from tests.models import CASES, Case, blobs, conv_bn, every_case, images, mlp
from tests.train.fitting import bowl, losses_in_turn, run_of
from tests.train.resuming import Boom, Count, watched


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def bent(case: Case, surface: ll.LossSurface, kind=ll.Bezier, bends=2):
    """A curve between two weight vectors, with bends off the chord."""
    w = surface.layout.flatten(case.model())
    g = torch.Generator().manual_seed(5)
    other = w + 0.3 * torch.randn(w.shape, generator=g, dtype=torch.float64).to(w)
    curve = kind.between(w, other, bends=bends)
    moved = curve.anchors.clone()
    moved[1:-1] += 0.2 * torch.randn(bends, len(w), generator=g, dtype=torch.float64).to(w)
    return curve.with_anchors(moved)


def mixed_loss(curve, anchors, coords, surface, batch, decay):
    """E_t of loss and decay through an explicitly mixed model."""
    weights = [row @ anchors for row in curve.coefficients(coords).to(anchors)]
    losses = losses_in_turn(surface, weights, batch)
    each = [loss + decay / 2 * w.square().sum() for loss, w in zip(losses, weights, strict=True)]
    return sum(each) / len(coords)


@every_case
@pytest.mark.parametrize("kind", [ll.Bezier, ll.PolyChain])
def test_gradients_are_autograds_through_an_explicitly_mixed_model(case, kind):
    surface = case.surface()
    curve, batch = bent(case, surface, kind), surface.task.parts(case.batches()[0])
    coords = torch.tensor([[0.2], [0.55], [0.9]], dtype=torch.float64)
    run = run_of(curve, surface, weight_decay=0.1, samples=3)
    torch.manual_seed(7)  # of dropout
    losses = run.at(coords, batch, out=run.means)
    leaf = curve.anchors.clone().requires_grad_()
    torch.manual_seed(7)
    expected = mixed_loss(curve, leaf, coords, surface, batch, 0.1)
    expected.backward()
    close = {"rtol": 2e-2, "atol": 2e-3} if case.name == "mixed" else {"rtol": 1e-4, "atol": 1e-5}
    free = leaf.grad[1:-1]
    assert torch.allclose(run.means, free, **close), float((run.means - free).abs().max())
    decay = 0.05 * run.shape(coords).square().sum(1).mean()
    assert float(losses.mean() + decay) == pytest.approx(float(expected.detach()), rel=1e-4)
    # a twin that forgets the coefficients is far off
    assert not torch.allclose(run.means, torch.ones_like(free) * free.mean(), **close)


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
        run = run_of(curve, surface, weight_decay=0.1, samples=4, strategy=strategy)
        coords, _ = run.draws(4)
        losses = run.at(coords, batch, out=run.means)
        found.append((losses, run.means))
    close = {"rtol": 3e-2, "atol": 3e-3} if case.name == "mixed" else {"rtol": 1e-4, "atol": 1e-5}
    assert torch.allclose(found[0][0], found[1][0], **close)
    assert torch.allclose(found[0][1], found[1][1], **close)


@pytest.mark.parametrize("name", STATEFUL)
def test_draws_together_would_lose_what_a_layer_writes(name):
    case = next(case for case in CASES if case.name == name)
    surface = case.surface()
    curve, batch = bent(case, surface), surface.task.parts(case.batches()[0])
    run = run_of(curve, surface, samples=2, strategy="vmap")
    with pytest.raises(ll.ConfigError, match="'vmap' would lose what training writes to"):
        run.at(run.draws(2)[0], batch, out=run.means)
    free = run_of(curve, surface, samples=2, strategy=None)
    assert free._faster(free.draws(2)[0], batch) == "accumulate"


@pytest.mark.parametrize("measure", ["coords", "arc"])
def test_one_draw_is_several_of_the_same(measure):
    # one draw on one free anchor takes a shorter way
    case = CASES[0]
    surface = case.surface()
    curve, batch = bent(case, surface, bends=1), surface.task.parts(case.batches()[0])
    options = {"weight_decay": 0.1, "measure": measure}
    one = run_of(curve, surface, **options)
    many = run_of(curve, surface, samples=3, **options)
    coords = torch.tensor([[0.3]], dtype=torch.float64)
    one.at(coords, batch, out=one.means, scale=0.5)
    many.at(coords.expand(3, 1), batch, out=many.means, scale=0.5)
    assert torch.allclose(one.means, many.means, atol=1e-6)


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
    run = run_of(curve, surface, measure="arc", samples=7, weight_decay=0.2)
    run.typical, run.drawn = typical, 100
    run.at(coords, surface.task.parts(data[0]), out=run.means)

    def losses_at(weights):
        each = torch.stack([surface.loss(w, data[0], train=True) for w in weights])
        return each + 0.1 * weights.square().sum(1)

    leaf = curve.anchors.clone().requires_grad_()
    arc_loss(leaf, curve, coords, losses_at, typical).backward()
    assert torch.allclose(run.means, leaf.grad[1:-1], rtol=1e-5, atol=1e-6)
    # reweighting alone, without the gradient through |w'(t)| and the length, is wrong
    fixed = curve.speed(coords) / curve.length()
    twin = curve.anchors.clone().requires_grad_()
    (fixed * losses_at(curve.coefficients(coords) @ twin)).mean().backward()
    assert not torch.allclose(run.means, twin.grad[1:-1], rtol=1e-2, atol=1e-3)


def test_the_typical_loss_changes_no_expectation():
    model = nn.Linear(3, 1, bias=False).double()
    data = [(torch.eye(3).double(), torch.zeros(3, 1).double())]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    g = torch.Generator().manual_seed(2)
    curve = ll.Bezier.between(*torch.randn(2, 3, generator=g).double())
    curve = curve.with_anchors(curve.anchors + torch.tensor([[0.0], [2.0], [0.0]]).double())
    nodes, weights = np.polynomial.legendre.leggauss(64)
    coords = torch.from_numpy((nodes + 1) / 2)[:, None]
    run = run_of(curve, surface, measure="arc")
    shares, gram = run._weights(coords)
    pulls = []
    for share in shares:
        (by,) = torch.autograd.grad(share, gram, retain_graph=True)
        pulls.append((by + by.mT) @ curve.anchors)
    pulls = torch.stack(pulls)  # (n, A, P)
    mean = torch.einsum("n,nap->ap", torch.from_numpy(weights / 2), pulls)
    assert float(mean.abs().max()) < 1e-5 * float(pulls.abs().max())


# -- optima ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "bends"), [(ll.Bezier, 1), (ll.Bezier, 3), (ll.PolyChain, 3)])
def test_the_best_curve_in_a_bowl_is_the_one_in_closed_form(kind, bends):
    surface = bowl()
    ends = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    start = kind.between(*ends, bends=bends)
    fitted = ll.fit(
        start, surface, epochs=200, samples=24, strategy="vmap",
        optimizer=lambda ps: torch.optim.SGD(ps, lr=1.0, momentum=0.9),
        schedule=lambda made: ll.DecaySchedule(made, total=200),
    )  # fmt: skip
    # E |sum c_a A_a|² is least where E[c c^T] A vanishes in its free rows
    t = (torch.arange(20000).double()[:, None] + 0.5) / 20000
    c = start.coefficients(t)
    moments = c.T @ c / len(c)
    free, fixed = slice(1, -1), [0, -1]
    best = -torch.linalg.solve(moments[free, free], moments[free][:, fixed] @ ends.double())
    # several bends trade off against one another: hold the loss tight, the anchors less so
    value = lambda anchors: float(torch.trace(anchors.T @ moments @ anchors))  # noqa: E731
    ideal = value(torch.cat([ends[:1].double(), best, ends[1:].double()]))
    assert value(fitted.anchors.double()) == pytest.approx(ideal, rel=1e-3)
    assert value(start.anchors.double()) > 1.1 * ideal
    assert torch.allclose(fitted.anchors[1:-1].double(), best, atol=0.05)
    assert torch.equal(fitted.anchors[[0, -1]], ends)  # bit by bit
    assert torch.equal(start.anchors, kind.between(*ends, bends=bends).anchors)
    assert len(fitted.log.columns["loss"]) == 200
    assert start.log is None


def test_weight_decay_acts_on_the_weights_and_not_on_the_anchors():
    # a constant loss: what is left is E |w(t)|², whose best bend is -3/4 of the ends' sum
    model = nn.Linear(2, 1, bias=False)
    surface = ll.LossSurface(
        model, ll.Regression(noise_variance=1.0), [(torch.zeros(2, 2), torch.zeros(2, 1))]
    )
    curve = ll.Bezier.between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    fitted = ll.fit(
        curve, surface, epochs=200, weight_decay=1.0, samples=8, strategy="vmap",
        optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9),
        schedule=lambda made: ll.DecaySchedule(made, total=200),
    )  # fmt: skip
    assert torch.allclose(fitted.anchors[1], torch.tensor([-0.75, -0.75]), atol=0.03)


def test_uniform_in_length_is_another_optimum_which_is_found():
    scipy = pytest.importorskip("scipy.optimize")
    surface = bowl()
    # the ends differ in height, so that it matters where the time is spent
    ends = torch.tensor([[3.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    curve = ll.Bezier.between(*ends)
    t = (torch.arange(2000).double()[:, None] + 0.5) / 2000
    c, slopes = curve.coefficients(t).numpy(), curve.slopes(t)[:, 0].numpy()

    def objective(bend, arc):
        anchors = np.stack([ends[0].numpy(), np.append(bend, [0, 0]), ends[1].numpy()])
        loss = ((c @ anchors) ** 2).sum(1) / 2
        speed = np.linalg.norm(slopes @ anchors, axis=1) if arc else np.ones(len(c))
        return (loss * speed).mean() / speed.mean()

    best = {arc: scipy.minimize(objective, [-1.0, -1.0], (arc,)).x for arc in (False, True)}
    assert np.abs(best[True] - best[False]).max() > 0.2
    for arc, measure in ((False, "coords"), (True, "arc")):
        fitted = ll.fit(
            curve, surface, epochs=100, samples=8, measure=measure, strategy="vmap",
            optimizer=lambda ps: torch.optim.SGD(ps, lr=0.3, momentum=0.9),
            schedule=lambda made: ll.DecaySchedule(made, total=100),
        )  # fmt: skip
        assert objective(fitted.anchors[1, :2].numpy(), arc) == pytest.approx(
            objective(best[arc], arc), rel=5e-3
        )


def test_a_curve_goes_around_the_barrier_of_two_networks():
    g = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(6, 6, generator=g)
    y = torch.arange(240) % 6
    x = centres[y] + 0.6 * torch.randn(240, 6, generator=g)
    ends = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 6))
        ll.sgd(model, ll.Classification(), ll.Batches((x, y), batch_size=24, seed=seed), epochs=20)
        surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
        ends.append(surface.layout.flatten(model))
    line, curve = ll.Line(*ends), ll.Bezier.between(*ends)
    data = ll.Batches((x, y), batch_size=24)
    fitted = ll.fit(curve, surface, epochs=40, loader=data, samples=2, strategy="accumulate")
    t = torch.linspace(0, 1, 21)
    straight = surface.evaluate(line.points(t)).loss
    bent = surface.evaluate(fitted.points(t)).loss
    floor = float(torch.maximum(straight[0], straight[-1]))
    assert float(straight.max()) > floor + 0.1
    assert float(bent.max()) - floor < 0.2 * (float(straight.max()) - floor)


# -- draws and resuming ----------------------------------------------------------------------------


def test_draws_are_stratified_and_numbered():
    surface = bowl()
    run = run_of(ll.Bezier.between(torch.zeros(4), torch.ones(4)), surface, samples=3)
    found = []
    for _ in range(2 * STRATA // 3 + 1):
        coords, coefficients = run.draws(3)
        assert torch.equal(coefficients, run.shape.coefficients(coords))
        found.append(coords)
        run.drawn += 3
    t = torch.cat(found)[:, 0]
    for block in t[: 2 * STRATA].split(STRATA):
        assert sorted((block * STRATA).int().tolist()) == list(range(STRATA))
    run.drawn = 3 * 20
    assert torch.equal(run.draws(3)[0][:, 0], t[60:63])  # across a border of blocks
    other = run_of(run.shape, surface, seed=1)
    assert not torch.equal(other.draws(3)[0][:, 0], t[:3])


class Fit:
    """A fit in a folder: build it again to continue it, as a new process would."""

    def __init__(self, folder, **options):
        self.folder, self.options = folder, options

    def __call__(self, event=lambda: None):
        case = CASES[1]
        batches = ll.Batches(tuple(map(torch.cat, zip(*images(), strict=True))), batch_size=4)

        def optimizer(parameters):
            made = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
            made.register_step_post_hook(lambda *_: event())
            return made

        fitted = ll.fit(
            bent(case, case.surface()), case.surface(), epochs=3, loader=batches,
            optimizer=optimizer, schedule=lambda made: ll.DecaySchedule(made, total=18),
            weight_decay=0.01, validate=lambda curve: {"norm": float(curve.anchors.norm())},
            checkpoint=self.folder / "fit.safetensors", checkpoint_steps=2, **self.options,
        )  # fmt: skip
        columns = {k: v for k, v in fitted.log.columns.items() if k != "seconds"}
        return fitted.anchors, columns


@pytest.mark.parametrize(
    "options", [{}, {"samples": 3, "measure": "arc"}, {"samples": 2, "accumulate": 2}]
)
def test_bit_equal_wherever_it_was_stopped(tmp_path, options):
    event = Count()
    options = options | ({"strategy": "accumulate"} if options else {})
    with watched(event):
        anchors, columns = Fit(tmp_path / "whole", **options)(event)
    assert event.count > 40
    for at in range(1, event.count + 1, 17):
        folder = tmp_path / str(at)

        def stop():
            raise Boom

        count = Count(at, stop)
        with watched(count), pytest.raises(Boom):
            Fit(folder, **options)(count)
        again, log = Fit(folder, **options)()
        assert torch.equal(again, anchors), f"stopped at event {at} of {event.count}"
        assert all(torch.equal(log[name], columns[name]) for name in columns)


def test_a_checkpoint_of_another_fit_is_refused(tmp_path):
    Fit(tmp_path)()
    with pytest.raises(ConfigError, match="samples: 1 there, 2 now"):
        Fit(tmp_path, samples=2, strategy="accumulate")()


def test_the_faster_way_is_found_and_kept():
    surface = bowl()
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    run = run_of(curve, surface, samples=4, strategy=None)
    run._backward(surface.data.loader[0])
    assert run.strategy in ("accumulate", "vmap")
    assert run._state()["strategy"] == run.strategy
    case = next(case for case in CASES if case.unbatched)
    run = run_of(bent(case, case.surface()), case.surface(), samples=2, strategy=None)
    run._backward(case.batches()[0])
    assert run.strategy in ("accumulate", "vmap")


# -- what users bring ------------------------------------------------------------------------------


def test_the_model_and_the_surface_are_left_as_they_were():
    model = conv_bn()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    surface = ll.LossSurface(model, ll.Classification(), images())
    w = surface.layout.flatten(model)
    value = float(surface(w))
    ll.fit(ll.Bezier.between(w, w + 1), surface, epochs=2)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert float(surface(w)) == value


def test_frozen_parameters_and_where_stay():
    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), blobs(), where="2")
    w = surface.layout.flatten(model)
    fitted = ll.fit(ll.Bezier.between(w, w + 1), surface, epochs=3)
    assert fitted.size == surface.layout.size < ll.ParamLayout(model).size
    assert not torch.equal(fitted.anchors[1], ll.Bezier.between(w, w + 1).anchors[1])


def test_bfloat16_channels_last_and_compiled():
    torch.manual_seed(0)
    model = conv_bn()
    options = {"autocast": torch.bfloat16, "channels_last": True}
    surface = ll.LossSurface(model, ll.Classification(), images(), **options)
    w = surface.layout.flatten(model)
    curve = ll.Bezier.between(w, w + 0.1)
    half = ll.fit(curve, surface, epochs=3)
    plain = ll.fit(curve, ll.LossSurface(model, ll.Classification(), images()), epochs=3)
    assert half.anchors.dtype == torch.float32
    moved = float((plain.anchors - curve.anchors).norm())
    assert 0 < float((half.anchors - plain.anchors).norm()) < 0.2 * moved


def test_doubles_and_floats_mix():
    model = nn.Linear(4, 1, bias=False).double()
    data = [(torch.eye(4).double(), torch.zeros(4, 1).double())]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    curve = ll.Bezier.between(torch.full((4,), 0.1), torch.ones(4))
    fitted = ll.fit(curve, surface, epochs=2)
    assert fitted.anchors.dtype == torch.float32
    assert torch.equal(fitted.anchors[0], curve.anchors[0])
    assert not torch.equal(fitted.anchors[1], curve.anchors[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "at least 1"),
        ({"samples": 0}, "at least 1"),
        ({"measure": "length"}, "expected one of coords, arc, got 'length'"),
        ({"strategy": "both"}, "expected 'accumulate' or 'vmap', got 'both'"),
    ],
)
def test_bad_options(options, message):
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    with pytest.raises(ConfigError, match=message):
        ll.fit(curve, bowl(), **{"epochs": 1} | options)


def test_what_cannot_be_fitted():
    surface = bowl()
    with pytest.raises(ConfigError, match="no free anchor"):
        ll.fit(ll.Line(torch.zeros(4), torch.ones(4)), surface, epochs=1)
    with pytest.raises(LayoutError, match="another model"):
        ll.fit(ll.Bezier.between(torch.zeros(5), torch.ones(5)), surface, epochs=1)
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        ll.fit(
            ll.Bezier.between(torch.zeros(4), torch.ones(4)), surface, epochs=100,
            optimizer=lambda ps: torch.optim.SGD(ps, lr=1e9),
        )  # fmt: skip
    half = ll.LossSurface(
        nn.Linear(4, 1, bias=False), ll.Regression(noise_variance=1.0),
        surface.data.loader, autocast=torch.float16,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="bfloat16"):
        ll.fit(ll.Bezier.between(torch.zeros(4), torch.ones(4)), half, epochs=1)
    with pytest.raises(DataError, match="the training loader is empty"):
        ll.fit(ll.Bezier.between(torch.zeros(4), torch.ones(4)), surface, epochs=1, loader=[])


def test_the_default_schedule_needs_a_length():
    surface = bowl()
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    rows = surface.data.loader[0]

    class Endless:
        def __iter__(self):
            yield rows

    with pytest.raises(ConfigError, match="the default schedule needs its length"):
        ll.fit(curve, surface, epochs=1, loader=Endless())
    sgd = lambda ps: torch.optim.SGD(ps, lr=0.1)  # noqa: E731
    assert len(ll.fit(curve, surface, epochs=1, loader=Endless(), optimizer=sgd).log.columns["lr"])


def test_buffers_that_training_goes_on_from_are_resumed(tmp_path):
    x, y = (torch.cat(parts) for parts in zip(*blobs(), strict=True))
    torch.manual_seed(0)
    model = mlp()
    nn.utils.parametrizations.spectral_norm(model[0])  # a power iteration a step, in a buffer
    surface = ll.LossSurface(model, ll.Classification(), [(x, y)])
    w = surface.layout.flatten(model)
    curve = ll.Bezier.between(w, w + 0.3)

    def fitted(checkpoint=None, stop=None):
        def validate(curve):
            nonlocal stop
            stop = None if stop is None else stop - 1
            if stop == 0:
                raise Boom
            return {}

        data = ll.Batches((x, y), batch_size=7)
        options = {"checkpoint": checkpoint, "checkpoint_steps": 1, "validate": validate}
        return ll.fit(curve, surface, epochs=4, loader=data, **options).anchors

    whole = fitted()
    with pytest.raises(Boom):
        fitted(tmp_path / "fit.safetensors", stop=2)
    assert torch.equal(fitted(tmp_path / "fit.safetensors"), whole)


def test_a_checkpoint_knows_where_the_fit_began(tmp_path):
    surface = bowl()
    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    options = {"epochs": 2, "checkpoint": tmp_path / "fit.safetensors"}
    ll.fit(curve, surface, **options)
    with pytest.raises(ConfigError, match="anchors"):
        ll.fit(
            curve.with_anchors(curve.anchors + torch.eye(3, 4)[[1, 0, 1]] * 0.1), surface, **options
        )


def test_an_optimizer_that_replaces_the_data_of_parameters_trains_too():
    class Replacing(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data = p.data - 0.1 * p.grad

    curve = ll.Bezier.between(torch.zeros(4), torch.ones(4))
    replaced, written = (
        ll.fit(curve, bowl(), epochs=3, optimizer=lambda ps, kind=kind: kind(ps, lr=0.1))
        for kind in (Replacing, torch.optim.SGD)
    )
    torch.testing.assert_close(replaced.anchors, written.anchors)
    assert not torch.equal(written.anchors, curve.anchors)


def test_labels_are_looked_at_where_draws_go_together():
    data = [(torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 1]))]
    surface = ll.LossSurface(nn.Linear(3, 1), ll.Classification("binary"), data)
    w = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ll.DataError, match="labels 0 or 1, got 2"):
        ll.fit(ll.Bezier.between(*w), surface, epochs=1, samples=2, strategy="vmap")


@pytest.mark.parametrize("options", [{"weight_decay": -0.5}, {"weight_decay": math.nan}])
def test_decay_is_not_negative(options):
    data = [(torch.randn(6, 3), torch.randn(6, 1))]
    surface = ll.LossSurface(nn.Linear(3, 1), ll.Regression(noise_variance=1.0), data)
    with pytest.raises(ll.ConfigError, match="weight_decay"):
        ll.fit(ll.Bezier.between(torch.zeros(4), torch.ones(4)), surface, epochs=1, **options)
