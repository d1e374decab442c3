"""Moments of iterates, and the averages SWA and EMA, against numpy in float64."""

import json
import math

import pytest
import torch
from torch import nn

from lowland import (
    EMA,
    SWA,
    SWAG,
    ConfigError,
    LayoutError,
    LowlandError,
    NonFiniteError,
    ParamLayout,
)
from lowland.tensor_files import same_tree
from tests.trajectory.iterates import collected, flat_layout, offline, random_walk


class Net(nn.Module):
    def __init__(self, features=5, dtype=torch.float32):
        super().__init__()
        self.first = nn.Linear(features, 4, dtype=dtype)
        self.norm = nn.BatchNorm1d(4, dtype=dtype)
        self.last = nn.Linear(4, 2, dtype=dtype)

    def forward(self, x):
        return self.last(torch.relu(self.norm(self.first(x))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 3)
        self.head = nn.Linear(3, 6, bias=False)
        self.head.weight = self.embedding.weight


# -- what it computes --------------------------------------------------------------------------


def check_low_precision(kind):
    """A bfloat16 model: the average is of float32 quality."""
    model = nn.Linear(64, 1, bias=False, dtype=torch.bfloat16)
    moments = kind(ParamLayout(model))
    iterates = random_walk(400, 64, centre=1.0, sd=0.3, dtype=torch.bfloat16)
    for w in iterates:
        with torch.no_grad():
            model.weight.copy_(w[None])
        moments.update(model)
    assert moments.mean.dtype == torch.float32
    assert moments.mean.numpy() == pytest.approx(offline(iterates, 0)[0], abs=1e-5)


class StaysInBfloat16(SWA):
    def _absorb(self, pieces):
        for w, mean in self._parts(pieces, self._mean):
            mean.copy_(mean.bfloat16().lerp_(w.bfloat16(), 1 / self.count))


@pytest.mark.parametrize("kind", [SWA, SWAG])
def test_averages_of_bfloat16_models_do_not_stall(kind):
    check_low_precision(kind)


def test_the_check_of_stalling_fails_a_bfloat16_average():
    with pytest.raises(AssertionError):
        check_low_precision(StaysInBfloat16)


def test_parts_do_not_change_the_moments(monkeypatch):
    iterates = random_walk(9, 1000)
    whole = collected(SWAG, iterates, rank=4)
    monkeypatch.setattr("lowland.trajectory.moments._PART", 64)
    parts = collected(SWAG, iterates, rank=4)
    for name in ("mean", "variance", "deviations"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-6, atol=1e-7)


def test_the_first_iterate_is_its_own_average():
    w = torch.tensor([-0.0, 1e-45, 3e38, -3e38])
    for kind in (SWA, SWAG, EMA):
        moments = kind(flat_layout(4))
        moments.update(w)
        assert torch.equal(moments.mean, w)
        if kind is SWAG:
            assert not bool(moments.variance.any())
            assert not bool(moments.deviations.any())


def test_moments_are_views():
    swag = collected(SWAG, random_walk(3, 5), rank=2)
    for name in ("mean", "variance", "deviations"):
        assert getattr(swag, name).data_ptr() == getattr(swag, name).data_ptr()
    before = swag.mean
    swag.update(random_walk(1, 5)[0])
    assert before is swag.mean


# -- what it takes -----------------------------------------------------------------------------


def stepped(model, seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return model


def sources(model):
    """The same weights in every form that `update` takes."""
    layout = ParamLayout(model)
    return {
        "model": model,
        "state dict": model.state_dict(),
        "flat": layout.flatten(model),
        "flat with a gradient": layout.flatten(model).requires_grad_(),
        "float64": layout.flatten(model).double(),
        "data parallel": nn.DataParallel(model),
        "data parallel's state dict": nn.DataParallel(model).state_dict(),
        "averaged model": torch.optim.swa_utils.AveragedModel(model),
        "averaged model's state dict": torch.optim.swa_utils.AveragedModel(model).state_dict(),
    }


@pytest.mark.parametrize("build", [Net, Tied])
@pytest.mark.parametrize("form", list(sources(Net())))
@pytest.mark.parametrize("kind", [SWA, SWAG, EMA])
def test_an_iterate_may_come_in_many_forms(build, form, kind):
    model = build()
    layout = ParamLayout(model)
    loaded, expected = kind(layout), kind(layout)
    for seed in range(3):
        stepped(model, seed)
        expected.update(layout.flatten(model))
        loaded.update(sources(model)[form])
    assert loaded.count == 3
    torch.testing.assert_close(loaded.mean, expected.mean)


def test_the_model_is_read_not_kept():
    model = stepped(Net())
    swa = SWA(ParamLayout(model))
    swa.update(model)
    before = swa.mean.clone()
    stepped(model, 5)
    assert torch.equal(swa.mean, before)


def test_float64_models_are_averaged_in_float64():
    model = Net(dtype=torch.float64)
    swag = SWAG(ParamLayout(model), rank=2)
    swag.update(model)
    assert swag.mean.dtype == swag.variance.dtype == swag.deviations.dtype == torch.float64


@pytest.mark.parametrize("kind", [SWA, SWAG, EMA])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), "both"])
@pytest.mark.parametrize("form", ["model", "flat"])
def test_an_iterate_that_is_not_finite_changes_nothing(kind, bad, form):
    model = Net()
    layout = ParamLayout(model)
    moments = kind(layout)
    for seed in range(3):
        moments.update(stepped(model, seed))
    before = (
        json.dumps(moments.count),
        {
            k: v.clone() if isinstance(v, torch.Tensor) else v
            for k, v in moments.state_dict().items()
        },
    )
    with torch.no_grad():
        model.last.weight[1, 2] = math.inf if bad == "both" else bad
        if bad == "both":  # they cancel in a sum
            model.last.weight[0, 0] = -math.inf
    with pytest.raises(NonFiniteError, match=r"iterate 4 was not taken: .* in last.weight"):
        moments.update(model if form == "model" else layout.flatten(model))
    assert same_tree(moments.state_dict(), before[1])
    moments.update(stepped(model, 9))
    assert moments.count == 4
    assert bool(torch.isfinite(moments.mean).all())


def test_large_finite_weights_are_averaged():
    swa = SWA(flat_layout(4))
    swa.update(torch.full((4,), 3e38))  # whose sum overflows
    assert swa.mean.tolist() == pytest.approx([3e38] * 4)


def test_float64_weights_that_float32_cannot_hold_are_refused():
    swa = SWA(flat_layout(2))
    with pytest.raises(NonFiniteError):
        swa.update(torch.tensor([1e300, 0.0], dtype=torch.float64))
    assert swa.count == 0


def test_weights_of_another_model_are_named():
    swag = SWAG(ParamLayout(Net()), rank=2)
    with pytest.raises(LayoutError, match=r"first.weight expected \(4, 5\), got \(4, 6\)"):
        swag.update(Net(features=6))
    with pytest.raises(LayoutError, match=r"lacks first.weight, .*has embedding.weight"):
        swag.update(Tied())
    with pytest.raises(LayoutError, match=r"expected \(42,\), got \(3,\)"):
        swag.update(torch.zeros(3))
    with pytest.raises(LayoutError, match=r"expected \(42,\), got \(2, 42\)"):
        swag.update(torch.zeros(2, 42))
    with pytest.raises(LayoutError, match="got list"):
        swag.update([1.0])
    assert swag.count == 0
    assert not bool(swag._mean.any())


# -- too little ----------------------------------------------------------------------------------


def test_too_few_iterates_is_an_error():
    swag = SWAG(flat_layout(3))
    with pytest.raises(LowlandError, match="0 of the 1 iterates"):
        swag.mean  # noqa: B018
    with pytest.raises(LowlandError, match="0 of the 2 iterates"):
        swag.posterior()
    swag.update(torch.ones(3))
    with pytest.raises(LowlandError, match="1 of the 2 iterates"):
        swag.posterior()
    with pytest.raises(LowlandError, match="0 of the 1 iterates"):
        SWA(flat_layout(3)).posterior()


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SWAG, {"rank": 1}),
        (SWAG, {"rank": -1}),
        (SWAG, {"deviations_dtype": "bfloat"}),
        (SWAG, {"deviations_dtype": torch.int8}),
        (EMA, {"decay": 1.0}),
        (EMA, {"decay": -0.1}),
    ],
)
def test_settings_that_make_no_sense(kind, settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        kind(flat_layout(3), **settings)


def test_posteriors():
    iterates = random_walk(6, 4)
    swa, ema = collected(SWA, iterates), collected(EMA, iterates, decay=0.5)
    assert torch.equal(swa.posterior().draw(0), swa.mean)
    assert torch.equal(ema.posterior().draw(3, seed=1), ema.mean)
    swag = collected(SWAG, iterates, rank=3)
    assert swag.posterior(scale=0.5).scale == 0.5
    assert swag.posterior().deviations.data_ptr() == swag.deviations.data_ptr()
    assert collected(SWAG, iterates, rank=0).posterior().deviations is None


# -- state and files -----------------------------------------------------------------------------

KINDS = [
    (SWA, {}),
    (EMA, {"decay": 0.9}),
    (EMA, {"decay": 0.9, "warmup": True}),
    (SWAG, {"rank": 4}),
    (SWAG, {"rank": 0}),
    (SWAG, {"rank": 4, "deviations_dtype": torch.bfloat16}),
]


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("at", [0, 1, 3, 4, 6])
@pytest.mark.parametrize("by", ["file", "state"])
def test_continuing_is_bit_equal_to_not_stopping(tmp_path, kind, settings, at, by):
    layout = ParamLayout(Net())
    iterates = random_walk(11, layout.size)
    straight, first = kind(layout, **settings), kind(layout, **settings)
    for w in iterates:
        straight.update(w)
    for w in iterates[:at]:
        first.update(w)
    if by == "file":
        second = kind.load(first.save(tmp_path / "moments.safetensors"))
        assert second.layout.fingerprint == layout.fingerprint
    else:
        second = kind(layout, **settings)
        for w in iterates[:2]:  # what it held before is gone
            second.update(w + 5)
        second.load_state_dict(first.state_dict())
    assert second.count == at
    assert same_tree(second.state_dict(), first.state_dict())
    for w in iterates[at:]:
        second.update(w)
    assert same_tree(second.state_dict(), straight.state_dict())


def test_a_loaded_file_may_be_written_over(tmp_path):
    path = tmp_path / "swag.safetensors"
    collected(SWAG, random_walk(3, 5), rank=2).save(path)
    loaded = SWAG.load(path)
    expected = loaded.mean.clone()
    collected(SWAG, random_walk(3, 5, seed=1), rank=2).save(path)  # the old one may still be mapped
    assert torch.equal(loaded.mean, expected)


@pytest.mark.parametrize("count", [3, 5])
def test_mapped_deviations_stay_in_their_file(tmp_path, count):
    path = collected(SWAG, random_walk(count, 5), rank=3).save(tmp_path / "swag.safetensors")
    copied, mapped = SWAG.load(path), SWAG.load(path, mapped=True)
    assert same_tree(mapped.state_dict(), copied.state_dict())
    a, b = (swag.posterior().point(0, seed=1).weights for swag in (copied, mapped))
    assert torch.equal(a, b)


def test_a_state_travels_between_a_model_and_its_wrapped_form():
    model = Net()
    swag = SWAG(ParamLayout(model), rank=2)
    swag.update(model)
    other = SWAG(ParamLayout(nn.DataParallel(model)), rank=2)
    other.load_state_dict(swag.state_dict())
    assert torch.equal(other.mean, swag.mean)


def test_a_state_of_another_model_or_setting_is_refused():
    state = collected(SWAG, random_walk(3, 5), rank=2).state_dict()
    with pytest.raises(LayoutError, match="SWAG state's weights come from another model"):
        SWAG(flat_layout(6), rank=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="the state has rank=2, this one 3"):
        SWAG(flat_layout(5), rank=3).load_state_dict(state)
    with pytest.raises(ConfigError, match="deviations_dtype"):
        SWAG(flat_layout(5), rank=2, deviations_dtype=torch.bfloat16).load_state_dict(state)


def test_an_average_is_printed_with_its_size():
    swag = SWAG(ParamLayout(nn.Linear(3, 2)), rank=2)
    swag.update(torch.zeros(8))
    assert repr(swag) == "SWAG(1 iterates of 8 weights, rank=2, deviations_dtype=float32)"
    assert repr(SWA(swag.layout)) == "SWA(0 iterates of 8 weights)"
