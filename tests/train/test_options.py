"""One value for how training goes, collected from keyword arguments where they are given."""

import inspect
from dataclasses import fields

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.keywords import collected_keywords
from lowland.train.growth_options import GrowthKeywords, GrowthOptions
from lowland.train.options import TrainKeywords, TrainOptions

X = torch.randn(23, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randint(3, (23,), generator=torch.Generator().manual_seed(1))
CLIPPED = {
    "optimizer": lambda ps: torch.optim.Adam(ps, lr=0.01),
    "schedule": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    "accumulate": 2,
    "clip": 0.5,
    "drop_last": True,
    "seed": 3,
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3))


def data(**options):
    return ll.Batches((X, Y), batch_size=5, **options)


def surface():
    return ll.LossSurface(network(), ll.Classification(), data())


def w(seed=0):
    start = ll.ParamLayout(network()).flatten(network())
    return start + 0.1 * torch.randn(67, generator=torch.Generator().manual_seed(seed))


def sgd(**options):
    net = network()
    ll.sgd(net, ll.Classification(), data(), epochs=2, **options)
    return ll.ParamLayout(net).flatten(net)


def fit(**options):
    return ll.fit(ll.Bezier.between(w(1), w(2)), surface(), epochs=2, **options).anchors


def spro(**options):
    return ll.spro(surface(), w(), vertices=2, epochs=1, rise=float("inf"), **options).anchors


def connect_modes(**options):
    return ll.connect_modes(
        surface(), [w(1), w(2)], connectors=1, epochs=1, rise=float("inf"), **options
    ).anchors


def sgd_members(**options):
    members = ll.Members([network(), network()])
    ll.sgd_members(members, ll.Classification(), [data(), data(seed=1)], epochs=2, **options)
    return members.weights.detach()


TRAIN = [sgd, fit, spro, connect_modes, sgd_members]


@pytest.mark.parametrize("train", TRAIN)
def test_a_value_and_keyword_arguments_are_the_same(train):
    named = train(**CLIPPED)
    assert torch.equal(train(options=TrainOptions(**CLIPPED)), named)
    part = TrainOptions(**CLIPPED | {"clip": 9.0, "seed": 0})
    assert torch.equal(train(options=part, clip=0.5, seed=3, accumulate=None), named)
    assert not torch.equal(train(options=part), named)


def test_networks_side_by_side_accumulate_as_one_does():
    options = CLIPPED | {"drop_last": False}  # 5 batches: a last step of one, of 3 examples
    members = ll.Members([nn.Linear(4, 3), nn.Linear(4, 3)])
    one = nn.Linear(4, 3)
    ll.ParamLayout(one).load_(one, members.weights[1].detach())
    ll.sgd_members(members, ll.Classification(), [data(), data(seed=1)], epochs=3, **options)
    ll.sgd(one, ll.Classification(), data(seed=1), epochs=3, **options)
    assert torch.allclose(members.weights[1], ll.ParamLayout(one).flatten(one), atol=1e-6)


@pytest.mark.parametrize("train", TRAIN)
def test_what_does_not_go_with_a_function_is_refused(train):
    wrong = {"autocast": True, "channels_last": True} if train is not sgd else {}
    if train is sgd_members:
        wrong["compile"] = True
    for name, value in wrong.items():
        with pytest.raises(ll.ConfigError, match=f"{name}: got True; .*(LossSurface|ll.sgd)"):
            train(**{name: value})
    with pytest.raises(ll.ConfigError, match="options: expected TrainOptions, got dict"):
        train(options={"clip": 1.0})


@pytest.mark.parametrize("train", TRAIN)
def test_a_wrong_name_is_reported(train):
    with pytest.raises(ll.ConfigError, match="there is no argument lr=; write optimizer="):
        train(lr=0.1)
    with pytest.raises(ll.ConfigError, match="there is no argument max_norm=; write clip="):
        train(max_norm=0.1)


def test_the_keyword_arguments_are_the_fields():
    names = [field.name for field in fields(TrainOptions)]
    assert list(TrainKeywords.__annotations__) == ["options", *names]
    own = [f.name for f in fields(GrowthOptions) if f.name not in ("epochs", "strength")]
    assert set(GrowthKeywords.__annotations__) == {"options", *names, *own}
    for function in (ll.sgd, ll.fit, ll.sgd_members, ll.spro, ll.connect_modes):
        held = inspect.signature(function).parameters
        assert not held.keys() & set(names), function
        assert set(names) <= set(collected_keywords(function))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"accumulate": 0}, "accumulate: expected a whole number of at least 1, got 0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps: expected a whole number of at least 1"),
        ({"clip": 0.0}, "clip: expected a number above 0"),
        ({"seed": -1}, "seed"),
    ],
)
def test_numbers_are_checked_at_the_door(wrong, message):
    with pytest.raises(ll.ConfigError, match=message):
        TrainOptions(**wrong)


def test_a_compiled_model_is_trained_in_place(monkeypatch, tmp_path):
    expected = sgd()
    calls = []
    compile = torch.compile

    def eager(model):  # without a C++ compiler's minute
        calls.append(model)
        return compile(model, backend="eager")

    monkeypatch.setattr(torch, "compile", eager)
    assert torch.allclose(sgd(compile=True, checkpoint=tmp_path / "c"), expected, atol=1e-6)
    assert len(calls) == 1
    # compiled or not, it is one run
    assert torch.allclose(sgd(checkpoint=tmp_path / "c"), expected, atol=1e-6)
