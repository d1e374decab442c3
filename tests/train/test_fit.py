"""Shapes of low loss: gradients by the chain rule, optima in closed form, resuming anywhere."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.errors import ConfigError, DataError, LayoutError, NonFiniteError
from tests.models import CASES, blobs, conv_bn, images, mlp
from tests.train.fitting import bent, bowl
from tests.train.resuming import Boom, Count, watched


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


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
    for at in range(1, event.count + 1, 29):
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
        ({"strategy": "both"}, "expected one of None, accumulate, vmap, got 'both'"),
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


@pytest.mark.parametrize("options", [{"weight_decay": -0.5}, {"weight_decay": math.nan}])
def test_decay_is_not_negative(options):
    data = [(torch.randn(6, 3), torch.randn(6, 1))]
    surface = ll.LossSurface(nn.Linear(3, 1), ll.Regression(noise_variance=1.0), data)
    with pytest.raises(ll.ConfigError, match="weight_decay"):
        ll.fit(ll.Bezier.between(torch.zeros(4), torch.ones(4)), surface, epochs=1, **options)
