"""The error of the average of the first s samples, against outputs held for all of them."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.scoring import error_curve
from tests.models import TiedLM, blobs, mlp, tokens

PLANS = [("points", 1), ("batches", 3), ("vmap", 3), ("vmap", 8)]


def scattered(surface, n=8, spread=1.5):
    g = torch.Generator().manual_seed(1)
    return spread * torch.randn(n, surface.layout.size, generator=g)


def outputs(surface, weights, batches):
    """(S, N, ...) float64, one model at a time by its own loop."""
    net, samples = surface.template.module.double().eval(), []
    for w in weights.double():
        parameters = dict(surface.layout.unflatten(w).items())
        parts = [torch.func.functional_call(net, parameters, (x.double(),)) for x, _ in batches]
        samples.append(torch.cat(parts).detach())
    return torch.stack(samples)


def prefixes(probs):  # (S, N, C, ...) -> the averages of the first s, one after the other
    return [probs[: s + 1].mean(0) for s in range(len(probs))]


@pytest.mark.parametrize(("strategy", "chunk"), PLANS)
def test_classes(strategy, chunk):
    batches = blobs()
    surface = ll.LossSurface(mlp(), ll.Classification(), batches)
    weights = scattered(surface)
    pred = ll.predict(surface, weights, strategy=strategy, chunk=chunk)
    y = torch.cat([y for _, y in batches])
    z = outputs(surface, weights, batches)
    expected = [float((p.argmax(1) != y).double().mean()) for p in prefixes(z.softmax(2))]
    assert pred.error_by_samples.tolist() == pytest.approx(expected)
    assert pred.error_by_samples[-1] == pytest.approx(1 - pred.metrics()["accuracy"])
    twin = [float((p.argmax(1) != y).double().mean()) for p in prefixes(z)]  # averaged logits
    assert twin != pytest.approx(expected)
    alone = [float((p.argmax(1) != y).double().mean()) for p in z]  # each sample's own
    assert alone != pytest.approx(expected)


@pytest.mark.parametrize(("strategy", "chunk"), PLANS)
def test_independent_labels(strategy, chunk):
    g = torch.Generator().manual_seed(0)
    batches = [(x, torch.randint(2, (len(x), 3), generator=g).float()) for x, _ in blobs()]
    surface = ll.LossSurface(mlp(), ll.Classification(), batches)
    weights = scattered(surface)
    pred = ll.predict(surface, weights, strategy=strategy, chunk=chunk)
    y = torch.cat([y for _, y in batches]) > 0.5
    averages = prefixes(outputs(surface, weights, batches).sigmoid())
    expected = [float(((p > 0.5) != y).double().mean()) for p in averages]
    assert pred.error_by_samples.tolist() == pytest.approx(expected)
    assert pred.error_by_samples[-1] == pytest.approx(1 - pred.metrics()["accuracy"])


def test_two_classes_and_ignored_labels():
    g = torch.Generator().manual_seed(0)
    two = [(x, torch.randint(2, (len(x), 1), generator=g)) for x, _ in blobs()]
    surface = ll.LossSurface(mlp(classes=1), ll.Classification(), two)
    weights = scattered(surface)
    y = torch.cat([y for _, y in two])[:, 0]
    averages = prefixes(outputs(surface, weights, two)[..., 0].sigmoid())
    expected = [float(((p > 0.5) != y).double().mean()) for p in averages]
    assert ll.predict(surface, weights).error_by_samples.tolist() == pytest.approx(expected)

    masked = [(x, torch.where(torch.arange(len(x)) % 3 == 0, -100, y)) for x, y in blobs()]
    surface = ll.LossSurface(mlp(), ll.Classification(), masked)
    weights = scattered(surface)
    y = torch.cat([y for _, y in masked])
    averages = prefixes(outputs(surface, weights, masked).softmax(2))
    expected = [float((p.argmax(1) != y)[y >= 0].double().mean()) for p in averages]
    assert ll.predict(surface, weights).error_by_samples.tolist() == pytest.approx(expected)


def test_predictions_without_labels_have_none():
    surface = ll.LossSurface(mlp(), ll.Classification(), blobs())
    weights = scattered(surface, 3)
    assert ll.predict(surface, weights, [x for x, _ in blobs()]).error_by_samples is None
    assert ll.predict(surface, weights, keep="nll").error_by_samples is None
    assert ll.predict(surface, weights, keep="none").error_by_samples is not None
    data = [(x, x[:, :1]) for x, _ in blobs()]
    regression = ll.LossSurface(mlp(classes=1), ll.Regression(noise_variance=1.0), data)
    assert ll.predict(regression, scattered(regression, 3)).error_by_samples is None


def test_dropout_passes_are_samples_too():
    net = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    pred = ll.mc_dropout(surface, surface.layout.flatten(net), samples=5)
    assert pred.error_by_samples.shape == (5,)
    assert pred.error_by_samples[-1] == pytest.approx(1 - pred.metrics()["accuracy"])


def test_scaled_predictions_have_none():
    surface = ll.LossSurface(mlp(), ll.Classification(), blobs())
    pred = ll.predict(surface, scattered(surface, 3))
    assert ll.temper(pred, 2.0).error_by_samples is None


def test_tables_do_not_compute_it(monkeypatch):
    """`evaluate` makes averages of one sample each, and has no use for their argmax."""
    surface = ll.LossSurface(mlp(), ll.Classification(), blobs())

    def refuse(*args):
        raise AssertionError("counted")

    monkeypatch.setattr(error_curve, "is_largest", refuse)
    surface.evaluate(scattered(surface, 3))
    with pytest.raises(AssertionError, match="counted"):
        ll.predict(surface, scattered(surface, 3))


def test_language_models_have_none():
    surface = ll.LossSurface(TiedLM(), ll.LanguageModeling(), tokens())
    assert ll.predict(surface, scattered(surface, 2, 0.3)).error_by_samples is None


def test_the_first_of_equally_probable_classes_is_predicted():
    """As argmax does, for any number of samples at once."""
    surface = ll.LossSurface(mlp(), ll.Classification(), blobs())
    w = torch.zeros(5, surface.layout.size)  # all classes are as probable
    y = torch.cat([y for _, y in blobs()])
    expected = pytest.approx([float((y != 0).double().mean())] * 5)
    for strategy, chunk in PLANS:
        pred = ll.predict(surface, w, strategy=strategy, chunk=chunk)
        assert pred.error_by_samples.tolist() == expected


def test_dense_labels_some_of_them_ignored():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(4, 2, 5, 5, generator=g)
    y = torch.randint(3, (4, 5, 5), generator=g)
    y[0, 2] = -100
    surface = ll.LossSurface(nn.Conv2d(2, 3, 1), ll.Classification(), [(x, y)])
    weights = scattered(surface)
    averages = prefixes(outputs(surface, weights, [(x, y)]).softmax(2))
    expected = [float((p.argmax(1) != y)[y >= 0].double().mean()) for p in averages]
    for strategy, chunk in PLANS:
        pred = ll.predict(surface, weights, strategy=strategy, chunk=chunk)
        assert pred.error_by_samples.tolist() == pytest.approx(expected)


def test_sums_do_not_depend_on_the_chunk():
    surface = ll.LossSurface(mlp(), ll.Classification(), blobs())
    weights = scattered(surface, 9)
    one, other = (ll.predict(surface, weights, strategy="batches", chunk=chunk) for chunk in (1, 4))
    assert torch.equal(one.probs, other.probs)
    assert torch.equal(one.error_by_samples, other.error_by_samples)
