"""A last batch that is smaller than the others, of one example where BatchNorm is."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lowland as ll

X = torch.randn(17, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(17) % 3


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3))


def loaders():
    """Two batches of 8 and one of 1, in each kind of loader."""
    data = TensorDataset(X, Y)
    return {
        "batches": ll.Batches((X, Y), batch_size=8, shuffle=False),
        "loader": DataLoader(data, batch_size=8),
        "list": [(X[:8], Y[:8]), (X[8:16], Y[8:16]), (X[16:], Y[16:])],
        "dicts": [{"input": X[i : i + 8], "labels": Y[i : i + 8]} for i in (0, 8, 16)],
        "unsized": Unsized(),
    }


class Unsized:
    def __iter__(self):
        yield from zip(X.split(8), Y.split(8), strict=True)


KINDS = list(loaders())
OPTIONS = {"optimizer": lambda params: torch.optim.SGD(params, lr=0.1)}


def surface_of(loader):
    return ll.LossSurface(net(), ll.Classification(), loader)


@pytest.mark.parametrize("kind", KINDS)
def test_sgd_without_the_last_batch_is_sgd_on_the_others(kind):
    found = []
    for data, options in (
        (loaders()[kind], {"drop_last": True}),
        ([(X[:8], Y[:8]), (X[8:16], Y[8:16])], {}),
    ):
        model = net()
        ll.sgd(model, ll.Classification(), data, epochs=2, **OPTIONS, **options)
        found.append(ll.ParamLayout(model).flatten(model))
    assert torch.equal(*found)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_without_the_last_batch_is_fit_on_the_others(kind):
    w = ll.ParamLayout(net()).flatten(net())
    line = ll.Bezier.between(w, 1.1 * w)
    whole, part = loaders()[kind], [(X[:8], Y[:8]), (X[8:16], Y[8:16])]
    curve = ll.fit(line, surface_of(part), loader=whole, epochs=2, drop_last=True, **OPTIONS)
    other = ll.fit(line, surface_of(part), loader=part, epochs=2, **OPTIONS)
    assert torch.equal(curve.anchors, other.anchors)


def test_the_default_schedule_ends_with_the_batches_that_are_left():
    w = ll.ParamLayout(net()).flatten(net())
    line = ll.Bezier.between(w, 1.1 * w)
    part = [(X[:8], Y[:8]), (X[8:16], Y[8:16])]
    for kind in ("batches", "loader", "list"):
        curve = ll.fit(line, surface_of(loaders()[kind]), epochs=2, drop_last=True)
        other = ll.fit(line, surface_of(part), epochs=2)
        assert torch.equal(curve.anchors, other.anchors)


def test_simplexes_and_members_without_the_last_batch():
    surface = surface_of(loaders()["list"])
    w = surface.layout.flatten(net())
    grown = ll.spro(surface, w, vertices=2, epochs=1, log_volume=1e-6, rise=9.0, drop_last=True)
    assert len(grown.anchors) == 2
    joined = ll.connect_modes(
        surface, [w, 1.1 * w + 0.01], connectors=1, epochs=1, log_volume=1e-6, rise=9.0,
        drop_last=True,
    )  # fmt: skip
    assert len(joined.anchors) == 3
    members = ll.Members([net(), net()])
    logs = ll.sgd_members(
        members, ll.Classification(), [loaders()["batches"]] * 2, epochs=1, drop_last=True
    )
    assert len(logs) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_one_example_under_batchnorm_is_reported(kind):
    data = loaders()[kind]
    with pytest.raises(ll.DataError, match=r"one example.*drop_last=True"):
        ll.sgd(net(), ll.Classification(), data, epochs=1)
    w = ll.ParamLayout(net()).flatten(net())
    line = ll.Bezier.between(w, 1.1 * w)
    with pytest.raises(ll.DataError, match=r"one example.*drop_last=True"):
        ll.fit(line, surface_of([(X, Y)]), loader=data, epochs=1, **OPTIONS)


def test_one_example_side_by_side_and_alone_is_reported():
    members = ll.Members([net(), net()])
    with pytest.raises(ll.DataError, match=r"one example.*drop_last=True"):
        ll.sgd_members(members, ll.Classification(), [loaders()["batches"]] * 2, epochs=1)
    surface = surface_of([(X, Y)])
    with pytest.raises(ll.DataError, match="one example"):
        surface.value_and_grad(surface.layout.flatten(net()), (X[:1], Y[:1]))


def test_a_single_batch_is_not_the_last_of_several():
    model = net()
    data = [(X[:5], Y[:5])]
    before = ll.ParamLayout(model).flatten(model)
    ll.sgd(model, ll.Classification(), data, epochs=1, drop_last=True, **OPTIONS)
    assert not torch.equal(ll.ParamLayout(model).flatten(model), before)


def test_a_resumed_run_leaves_the_last_batch_out_too(tmp_path):
    whole = net()
    data = loaders()["list"]
    options = {"drop_last": True, **OPTIONS}
    ll.sgd(whole, ll.Classification(), data, epochs=2, **options)
    stopped = net()

    def stop(model):
        raise KeyboardInterrupt

    file = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        ll.sgd(
            stopped, ll.Classification(), data, epochs=2, checkpoint=file, checkpoint_steps=1,
            validate=stop, **options,
        )  # fmt: skip
    ll.sgd(stopped, ll.Classification(), data, epochs=2, checkpoint=file, **options)
    layout = ll.ParamLayout(whole)
    assert torch.equal(layout.flatten(stopped), layout.flatten(whole))
