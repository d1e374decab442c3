"""Batches and models as users bring them: what is held and seen again must be the same again."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.data import concatenate, is_sliceable
from lowland.evaluate.fingerprint import evaluation_fingerprint
from lowland.records import Predictive


class Scales(nn.Module):
    """Writes into its inputs, as preprocessing in a forward pass does."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        self.last = nn.Linear(3, 1)

    def forward(self, x):
        return self.last(self.norm(x.sub_(0.5).div_(0.2)))


def written(norm=False):
    torch.manual_seed(0)
    rows = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
    loader = torch.utils.data.DataLoader(rows, batch_size=4)
    surface = ll.LossSurface(Scales(norm), ll.Regression(noise_variance=1.0), loader)
    return surface, surface.layout.flatten(surface.template.module)


@pytest.mark.parametrize(
    "ask",
    [
        lambda surface, w: surface(w),
        lambda surface, w: surface.evaluate(w.expand(4, -1)),
        lambda surface, w: ll.predict(surface, w.expand(4, -1), strategy="vmap"),
        lambda surface, w: ll.path(ll.Line(w, w + 1), surface, points=3),
        lambda surface, w: ll.LogLikelihood(surface),
    ],
)
def test_a_model_that_writes_into_its_inputs_is_refused(ask):
    surface, w = written()
    with pytest.raises(ll.DataError, match="writes into its inputs"):
        ask(surface, w)


def test_so_it_is_for_batchnorm_and_the_users_rows_stay():
    x = torch.randn(8, 3)
    before = x.clone()
    task = ll.Regression(noise_variance=1.0)
    surface = ll.LossSurface(Scales(norm=True), task, [(x, torch.randn(8, 1))])
    w = surface.layout.flatten(surface.template.module)
    with pytest.raises(ll.DataError, match="writes into its inputs"):
        surface.refresh(w)
    assert torch.equal(x, before)


def test_writing_what_changes_nothing_is_fine():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
    data = [(torch.randn(8, 3), torch.randn(8, 1))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), data)
    w = surface.layout.flatten(net)
    loss = surface.evaluate(w.expand(3, -1)).loss
    assert torch.equal(loss, loss[:1].expand(3))


# -- files made under other conditions -------------------------------------------------------------


def net(activation=nn.Identity):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), activation(), nn.Linear(4, 1))


ROWS = [(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8, 1))]


@pytest.mark.parametrize(
    "other",
    [
        (net(), ll.Regression(noise_variance=100.0)),
        (net(), ll.Regression(noise_variance=1.0, target_std=2.0)),
        (net(nn.ReLU), ll.Regression(noise_variance=1.0)),
    ],
)
def test_values_of_another_likelihood_or_architecture_are_not_gone_on_from(other, tmp_path):
    model, task = other
    first = ll.LossSurface(net(), ll.Regression(noise_variance=1.0), ROWS)
    w = first.layout.flatten(net())
    line = ll.Line(w, w + 1)
    ll.path(line, first, points=3, store=tmp_path / "path")
    ll.path(line, first, points=3, store=tmp_path / "path")
    with pytest.raises(ll.ConfigError, match="other settings"):
        ll.path(line, ll.LossSurface(model, task, ROWS), points=3, store=tmp_path / "path")


def test_conditions_are_the_same_in_every_process():
    task = ll.Classification(unpack=lambda batch: ((batch,), {}, None))
    surface = ll.LossSurface(nn.Linear(2, 2), task, [(torch.zeros(2, 2), torch.zeros(2).long())])
    w = torch.zeros(6)
    options = ll.EvalOptions()
    found = evaluation_fingerprint(ll.Line(w, w + 1), surface, options)
    assert " at 0x" not in str(found)
    assert "ignore_index=-100" in found["task"]


# -- what is beside the tensors --------------------------------------------------------------------


def test_batches_that_differ_in_more_than_their_rows_stay_apart():
    x, y = torch.ones(2, 1), torch.zeros(2)
    assert concatenate([(x, 1.0, y), (x, 1.0, y)]) is not None
    assert concatenate([(x, 1.0, y), (x, 2.0, y)]) is None
    assert concatenate([{"a": x, "b": x}, {"b": x, "a": x}]) is None
    assert concatenate([(x, [4, 2], y), (x, [4, 2], y)]) is None
    assert is_sliceable((x, y))
    assert not is_sliceable((x, [4, 2], y))


class Times(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 1)

    def forward(self, x, by):
        return self.last(x) * by


def test_a_number_beside_the_rows_is_each_batchs_own():
    g = torch.Generator().manual_seed(0)
    rows = lambda: (torch.randn(4, 2, generator=g), torch.randn(4, 1, generator=g))  # noqa: E731
    data = [(x, by, y) for by, (x, y) in ((1.0, rows()), (2.0, rows()))]
    task = ll.Regression(noise_variance=1.0, unpack=lambda b: ((b[0], b[1]), {}, b[2]))
    surface = ll.LossSurface(Times(), task, data)
    w = surface.layout.flatten(surface.template.module)
    found = ll.LogLikelihood(surface)(w[None])
    torch.testing.assert_close(found[0], surface.log_likelihood(w))


class Mixes(nn.Module):
    """A layer of a graph network."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, 2)

    def forward(self, x, edges):
        return self.last(x.index_add(0, edges[1], x[edges[0]]))


def test_graphs_are_not_cut():
    g = torch.Generator().manual_seed(0)
    x, edges = torch.randn(6, 3, generator=g), torch.randint(6, (2, 9), generator=g)
    labels = torch.randint(2, (6,), generator=g)
    task = ll.Classification(unpack=lambda b: ((b[0], b[1]), {}, b[2]))
    surface = ll.LossSurface(Mixes(), task, [(x, edges, labels)])
    w = torch.randn(100, surface.layout.size, generator=g)
    pred = ll.predict(surface, w)
    expected = ll.predict(surface, w, strategy="points")
    torch.testing.assert_close(pred.probs, expected.probs)
    each = torch.stack([surface.log_likelihood(one) for one in w])
    torch.testing.assert_close(ll.LogLikelihood(surface)(w), each, rtol=1e-5, atol=1e-5)


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_a_label_to_ignore_beyond_the_classes(strategy):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(6, 3, generator=g), torch.tensor([0, 255, 3, 1, 255, 2])
    data = [(x, y)]
    surface = ll.LossSurface(nn.Linear(3, 4), ll.Classification(ignore_index=255), data)
    w = torch.randn(8, 16, generator=g)
    found = ll.predict(surface, w, strategy=strategy).metrics()
    rest = ll.LossSurface(nn.Linear(3, 4), ll.Classification(), [(x[y != 255], y[y != 255])])
    expected = ll.predict(rest, w).metrics()
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_binary_label_cannot_be_the_one_to_ignore():
    data = [(torch.randn(4, 2), torch.tensor([0, 1, 1, 0]))]
    surface = ll.LossSurface(nn.Linear(2, 1), ll.Classification(ignore_index=0), data)
    with pytest.raises(ll.DataError, match="ignore_index=0 is one of the labels"):
        surface(torch.zeros(3))


def multilabel(integers):
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(30, 4, generator=g) < 0.4).float()
    task = ll.Classification("multilabel") if integers else ll.Classification()
    data = [(torch.randn(30, 3, generator=g), y.long() if integers else y)]
    surface = ll.LossSurface(nn.Linear(3, 4), task, data)
    return surface, torch.randn(5, 16, generator=g), data


def test_a_prediction_knows_that_its_labels_do_not_exclude_one_another():
    surface, w, data = multilabel(integers=False)
    pred = ll.predict(surface, w, [data[0][0]])  # rows without labels
    assert pred.form == "multilabel"
    same = ll.temper(pred, 1.0, task=surface.task)
    torch.testing.assert_close(same.probs, pred.probs, rtol=1e-5, atol=1e-6)
    certain = torch.maximum(pred.probs, 1 - pred.probs)
    found = ll.uncertainties(pred, task=surface.task)["max probability"]
    torch.testing.assert_close(found, 1 - certain.double().mean(1))
    surface, w, _ = multilabel(integers=True)
    pred = ll.predict(surface, w[:1])
    assert ll.fit_temperature(pred) > 0
    assert ll.temper(pred, 1.0).metrics()["nll"] == pytest.approx(pred.metrics()["nll"], rel=1e-4)
    ll.selective(pred)
    assert ll.pool([pred, pred]).form == "multilabel"


def test_tempering_keeps_what_single_precision_would_lose():
    probs = torch.tensor([[1e-6, 1 - 1e-6], [0.5, 0.5]])
    pred = Predictive("classification", 1, probs=probs, targets=torch.tensor([0, 0]))
    nll = ll.temper(pred, 0.1).metrics()["nll"]
    expected = -torch.log_softmax(probs.double().log() / 0.1, 1)[:, 0].mean()
    assert nll == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["target_mean", "target_std"])
def test_units_of_another_number_of_targets(name):
    task = ll.Regression(noise_variance=1.0, **{name: torch.ones(3)})
    surface = ll.LossSurface(nn.Linear(2, 1), task, [(torch.randn(4, 2), torch.randn(4, 1))])
    with pytest.raises(ll.DataError, match=f"{name} holds 3 numbers, .* 1 targets"):
        ll.predict(surface, torch.zeros(3))


def test_no_scale_that_is_finite_is_told():
    data = [(torch.ones(2, 1), torch.ones(2, 1))]
    surface = ll.LossSurface(nn.Linear(1, 1, bias=False), ll.Regression(noise_variance=1.0), data)
    post = ll.Gaussian(torch.full((1,), 3e38), torch.ones(1))
    with pytest.raises(ll.NonFiniteError, match="no scale gives a finite NLL"):
        ll.tune_scale(surface, post, data)
