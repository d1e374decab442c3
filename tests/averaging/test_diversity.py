"""Diversity against NumPy and torch.distributions, for each kind of task."""

import math

import pytest
import torch
from torch import distributions, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import lowland as ll
from lowland.errors import ConfigError, LayoutError
from tests import models


def members(net: nn.Module, n: int = 3) -> torch.Tensor:
    p = ll.ParamLayout(net).size
    return torch.randn(n, p, generator=torch.Generator().manual_seed(1))


def case():
    net = nn.Linear(6, 3)
    loader = models.blobs()
    surface = ll.LossSurface(net, ll.Classification(), loader)
    rows = members(net)
    x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
    logits = torch.stack(
        [torch.func.functional_call(net, surface.layout.materialise(row), (x,)) for row in rows]
    ).detach()
    return surface, rows, logits.double(), y


def test_predictions_of_a_classifier() -> None:
    surface, rows, logits, y = case()
    result = ll.diversity(rows, surface)
    several = [distributions.Categorical(logits=one) for one in logits]
    kl = [[float(distributions.kl_divergence(p, q).mean()) for q in several] for p in several]
    torch.testing.assert_close(result.kl, torch.tensor(kl).double(), atol=1e-5, rtol=1e-4)
    classes = logits.argmax(2)
    differ = [[float((a != b).double().mean()) for b in classes] for a in classes]
    assert result.disagreement.tolist() == differ
    nll = torch.stack([cross_entropy(one, y) for one in logits])
    torch.testing.assert_close(result.member_nll, nll, atol=1e-5, rtol=1e-5)
    ensemble = -logits.softmax(2).mean(0)[torch.arange(len(y)), y].log().mean()
    assert result.ensemble_nll == pytest.approx(float(ensemble), rel=1e-5)
    assert result.gap == pytest.approx(float(nll.mean() - ensemble), rel=1e-4)
    pred = ll.predict(surface, rows).metrics()
    assert result.ensemble_nll == pytest.approx(pred["nll"], rel=1e-6)
    assert result.items == len(y)


def test_weights_about_their_mean_and_a_start() -> None:
    surface, rows, *_ = case()
    start = torch.ones(rows.shape[1])
    result = ll.diversity(rows, surface, start=start)
    for matrix, origin in ((result.cosine_mean, rows.mean(0)), (result.cosine_start, start)):
        moves = (rows - origin).double()
        unit = moves / moves.norm(dim=1, keepdim=True)
        torch.testing.assert_close(matrix, unit @ unit.T, atol=1e-6, rtol=0)
    distances = torch.cdist(rows.double(), rows.double())
    torch.testing.assert_close(result.distance, distances, atol=1e-5, rtol=1e-5)
    assert result.mean("distance") == pytest.approx(float(distances.sum() / 6), rel=1e-5)
    assert ll.diversity(rows, surface).cosine_start is None


def test_a_regression_is_compared_in_its_own_units() -> None:
    net = nn.Linear(4, 4)
    loader = [(x, torch.cat([y, y.flip(0)], 1)) for x, y in models.targets()]
    task = ll.Regression(target_std=(2.0, 3.0))
    surface = ll.LossSurface(net, task, loader)
    rows = members(net)
    result = ll.diversity(rows, surface)
    x = torch.cat([batch[0] for batch in loader])
    several = []
    for row in rows:
        output = torch.func.functional_call(net, surface.layout.materialise(row), (x,)).detach()
        mean, variance = task.moments(output)
        several.append(distributions.Normal(mean.double(), variance.double().sqrt()))
    kl = [[distributions.kl_divergence(p, q).sum(1).mean() for q in several] for p in several]
    torch.testing.assert_close(result.kl, torch.tensor(kl).double(), atol=1e-5, rtol=1e-4)
    assert result.disagreement is None
    assert result.items == len(x)
    pred = ll.predict(surface, rows).metrics()
    assert result.ensemble_nll == pytest.approx(pred["nll"], rel=1e-6)
    table = surface.evaluate(rows)
    torch.testing.assert_close(result.member_nll, table.nll, atol=1e-6, rtol=1e-6)


def test_independent_labels() -> None:
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, :3] > 0).float()
    net = nn.Linear(4, 3)
    surface = ll.LossSurface(net, ll.Classification(), [(x[:7], y[:7]), (x[7:], y[7:])])
    rows = members(net, 2)
    result = ll.diversity(rows, surface)
    logits = [
        torch.func.functional_call(net, surface.layout.materialise(row), (x,)).detach()
        for row in rows
    ]
    p, q = (distributions.Bernoulli(logits=one.double()) for one in logits)
    expected = float(distributions.kl_divergence(p, q).sum(1).mean())
    assert float(result.kl[0, 1]) == pytest.approx(expected, rel=1e-4)
    differ = float(((logits[0] > 0) != (logits[1] > 0)).double().mean())
    assert float(result.disagreement[0, 1]) == differ
    nll = binary_cross_entropy_with_logits(logits[0], y, reduction="none").sum(1).mean()
    assert float(result.member_nll[0]) == pytest.approx(float(nll), rel=1e-5)
    assert result.items == 12


def test_tokens_that_do_not_count_are_left_out() -> None:
    torch.manual_seed(0)
    net, loader = models.TiedLM(), models.tokens()
    surface = ll.LossSurface(net, ll.LanguageModeling(), loader)
    w = surface.layout.flatten(net)
    rows = torch.stack([w, models.nearby(w), models.nearby(w, seed=2)])
    result = ll.diversity(rows, surface)
    pred = ll.predict(surface, rows, keep="target")
    assert result.items == len(pred.target_log_prob)
    assert result.ensemble_nll == pytest.approx(pred.metrics()["nll"], rel=1e-6)
    assert bool((result.kl.diagonal() == 0).all())
    assert result.mean("kl") > 0


def test_examples_without_targets_have_no_nll() -> None:
    surface, rows, *_ = case()
    x = [batch[0] for batch in models.blobs()]
    result, labelled = ll.diversity(rows, surface, x), ll.diversity(rows, surface)
    assert result.member_nll is None
    assert math.isnan(result.ensemble_nll)
    assert math.isnan(result.gap)
    torch.testing.assert_close(result.kl, labelled.kl)
    assert result.items == labelled.items
    assert "nll" not in result.table.columns
    assert "below the mean of its members" in str(labelled)


def test_chunks_do_not_change_the_result() -> None:
    surface, rows, *_ = case()
    one = ll.diversity(rows, surface)
    for options in ({"strategy": "points"}, {"strategy": "vmap", "chunk": 2}):
        other = ll.diversity(rows, surface, **options)
        torch.testing.assert_close(other.kl, one.kl, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(other.member_nll, one.member_nll)


def test_invalid_arguments_are_named() -> None:
    surface, rows, *_ = case()
    with pytest.raises(ConfigError, match="at least 2 to compare, got 1"):
        ll.diversity(rows[:1], surface)
    with pytest.raises(LayoutError, match="member 1: "):
        ll.diversity([rows[0], torch.zeros(3)], surface)
    with pytest.raises(ConfigError, match="vector 1 is the origin"):
        ll.diversity(rows, surface, start=rows[1])
