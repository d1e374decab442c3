"""Metrics of a scan: those of `evaluate`, of functions, together with others, not finite."""

import pytest
import torch
from torch import nn

import lowland as ll
from tests.landscape.surfaces import net_surface, one_by_one, overflowing, plane_of, quadratic
from tests.models import blobs, generator


@pytest.mark.parametrize("strategy", [None, "points", "batches", "vmap"])
def test_metrics_are_those_of_evaluate(strategy):
    surface = net_surface()
    plane = plane_of(surface, scale=2.0)
    names = ("error", "loss", "nll", "ece", "brier")
    options = {"resolution": (4, 3), "strategy": strategy, "chunk": 5 if strategy else None}
    result = ll.scan(plane, surface, metrics=names, **options)
    assert tuple(result.metrics) == names
    table = surface.evaluate(plane.points(coords_of(result)), strategy="points")
    for name in names:
        torch.testing.assert_close(
            result.metrics[name].reshape(-1), getattr(table, name), rtol=1e-5, atol=1e-6
        )
    quick = ll.scan(plane, surface, **options)  # loss and error alone have a faster sink
    torch.testing.assert_close(quick.error.reshape(-1), table.error, rtol=0, atol=1e-6)
    torch.testing.assert_close(quick.loss.reshape(-1), table.loss, rtol=1e-5, atol=1e-6)


def coords_of(result):
    n, m = len(result.x), len(result.y)
    return torch.stack([result.x.repeat(m), result.y.repeat_interleave(n)], 1)


def forms():
    g = generator(3)
    x = torch.randn(15, 6, generator=g)
    binary = torch.randint(2, (15,), generator=g)
    labels = torch.randint(2, (15, 3), generator=g).float()
    dense = torch.randint(4, (15, 2), generator=g)
    dense[0, 0] = dense[7] = -100
    missing = torch.randint(3, (15,), generator=g)
    missing[:4] = -100
    return {
        "binary": (nn.Linear(6, 1), x, binary),
        "multilabel": (nn.Linear(6, 3), x, labels),
        "dense": (nn.Sequential(nn.Linear(6, 8), nn.Unflatten(1, (4, 2))), x, dense),
        "ignored": (nn.Linear(6, 3), x, missing),
    }


@pytest.mark.parametrize("form", ["binary", "multilabel", "dense", "ignored"])
@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_the_error_of_every_form_of_classification(form, strategy):
    torch.manual_seed(0)
    net, x, y = forms()[form]
    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    surface = ll.LossSurface(net, ll.Classification(), batches)
    plane = plane_of(surface)
    result = ll.scan(plane, surface, resolution=(4, 3), strategy=strategy, chunk=5)
    table = surface.evaluate(plane.points(coords_of(result)))
    torch.testing.assert_close(result.error.reshape(-1), table.error, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.loss.reshape(-1), table.loss, rtol=1e-5, atol=1e-6)
    expected = one_by_one(plane, surface, result)  # by the task itself
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-6)
    assert result.error.std() > 0


def test_other_examples_and_fewer():
    surface = net_surface()
    plane = plane_of(surface)
    x, y = torch.cat([b[0] for b in blobs()]), torch.cat([b[1] for b in blobs()])
    test = [(x[::2], y[::2])]
    result = ll.scan(plane, surface, resolution=2, loader=test)
    torch.testing.assert_close(result.loss, one_by_one(plane, surface, result, loader=test))
    few = ll.scan(plane, surface, resolution=2, count=5)
    assert few.examples == 5
    torch.testing.assert_close(few.loss, one_by_one(plane, surface, few, loader=[(x[:5], y[:5])]))


def test_gradient_norms_and_functions():
    surface, _ = quadratic()
    plane = plane_of(surface)

    def length(surface, point):
        return {"length": point.weights.norm(), "twice": 2 * float(surface(point))}

    result = ll.scan(plane, surface, resolution=(3, 2), metrics=("gradient_norm", length))
    assert list(result.metrics) == ["gradient_norm", "length", "twice"]
    for (j, i), norm in zip(
        torch.cartesian_prod(*map(torch.arange, (2, 3))).tolist(),
        result.gradient_norm.reshape(-1),
        strict=True,
    ):
        w = plane(torch.stack([result.x[i], result.y[j]]))
        assert norm == pytest.approx(surface.value_and_grad(w)[1].norm().item(), rel=1e-5)
        assert result.length[j, i] == pytest.approx(w.norm().item(), rel=1e-5)
        assert result.twice[j, i] == pytest.approx(2 * float(surface(w)), rel=1e-6)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_together_is_the_average_of_probabilities(task):
    if task == "classification":
        surface = net_surface()
    else:
        g = generator(1)
        y = torch.randn(20, 2, generator=g)
        net = nn.Linear(4, 2)
        surface = ll.LossSurface(
            net,
            ll.Regression(noise_variance=0.5, target_mean=[1.0, 2.0], target_std=[3.0, 0.5]),
            [(torch.randn(20, 4, generator=g), y)],
        )
    plane = plane_of(surface)
    fixed = list(plane.anchors[:2] * 1.5)
    result = ll.scan(plane, surface, resolution=(3, 2), together=fixed, strategy="vmap", chunk=4)
    for i, z in enumerate(coords_of(result)):
        metrics = ll.predict(surface, [*fixed, plane(z)]).metrics()
        together = result.nll_together.reshape(-1)[i]
        assert together == pytest.approx(metrics["nll"], rel=1e-5)
        if task == "classification":
            error = result.error_together.reshape(-1)[i]
            assert error == pytest.approx(1 - metrics["accuracy"], abs=1e-6)
    assert ("error_together" in result.metrics) == (task == "classification")
    assert not torch.allclose(result.nll_together, result.loss)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
@pytest.mark.parametrize("metrics", [None, ("loss", "error", "ece")])
def test_nan_stays_nan(strategy, metrics):
    surface, plane = overflowing()
    result = ll.scan(
        plane,
        surface,
        resolution=(5, 2),
        bounds=((0, 200), (-1, 1)),
        strategy=strategy,
        metrics=metrics,
    )
    expected = one_by_one(plane, surface, result)
    assert torch.isfinite(expected).any()
    assert not torch.isfinite(expected).all()
    assert torch.equal(torch.isfinite(result.loss), torch.isfinite(expected))
    assert torch.equal(torch.isnan(result.loss), torch.isnan(expected))
    assert torch.equal(torch.isnan(result.error), ~torch.isfinite(expected))


def test_a_surface_without_a_finite_value_is_an_error():
    surface, plane = overflowing()
    with pytest.raises(ll.NonFiniteError, match=r"none of the 4 points has a finite loss"):
        ll.scan(plane, surface, resolution=2, bounds=((150, 200), (-1, 1)))
