"""Each column against the evaluation that it stands for."""

import copy

import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import TiedLM, blobs, conv_bn, images, mlp, targets, tokens


def problem(name):
    torch.manual_seed(0)
    if name == "BatchNorm":
        return conv_bn(), ll.Classification(), images()
    if name == "classification":
        return mlp(), ll.Classification(), blobs()
    if name == "language":
        return TiedLM(), ll.LanguageModeling(), tokens()
    task = ll.Regression(
        noise_variance=0.5, target_mean=torch.tensor([3.0]), target_std=torch.tensor([2.0])
    )
    return mlp(4, classes=1), task, targets()


def weights_of(model, n=5):
    w = ll.ParamLayout(model).flatten(model)
    noise = torch.randn(n, len(w), generator=torch.Generator().manual_seed(1))
    return w + 0.3 * noise


@pytest.mark.parametrize("name", ["BatchNorm", "classification", "language", "regression"])
@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_equals_single_evaluations_of_iterates_averages_and_ensembles(name, chunk):
    model, task, data = problem(name)
    surface = ll.LossSurface(model, task, data)
    weights = weights_of(model)
    table = ll.iterate_metrics(surface, weights, strategy="points", chunk=chunk)
    measure = {"regression": "rmse", "language": "nll"}.get(name, "error")
    assert table.measures == list(dict.fromkeys([measure, "nll"]))
    assert table.iterate.tolist() == [1, 2, 3, 4, 5]
    for metric in table.measures:
        alone = surface.evaluate(weights).columns[metric]
        averages = torch.stack([weights[: i + 1].mean(0) for i in range(5)])
        average = surface.evaluate(averages).columns[metric]
        ensembles = [ll.predict(surface, weights[: i + 1]) for i in range(5)]
        metrics = [pred.metrics() for pred in ensembles]
        ensemble = [m.get(metric, 1 - m.get("accuracy", 0.0)) for m in metrics]
        for ending, expected in (("", alone), ("_average", average), ("_ensemble", ensemble)):
            actual = table.columns[metric + ending]
            expected = torch.as_tensor(expected, dtype=torch.float64)
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_the_average_of_the_first_iterate_is_that_iterate():
    model, task, data = problem("classification")
    table = ll.iterate_metrics(ll.LossSurface(model, task, data), weights_of(model, 1))
    (row,) = table.rows()
    assert row["nll"] == pytest.approx(row["nll_average"]) == pytest.approx(row["nll_ensemble"])
    assert row["error"] == row["error_average"] == pytest.approx(row["error_ensemble"])


def test_a_trajectory_gives_its_steps(tmp_path):
    model, task, data = problem("BatchNorm")
    surface = ll.LossSurface(model, task, data)
    store = ll.Trajectory.create(tmp_path / "run", ll.ParamLayout(model))
    layout = ll.ParamLayout(model)
    for step, w in zip((3, 6, 9), weights_of(model, 3), strict=True):
        net = copy.deepcopy(model)
        layout.load_(net, w)
        store.append(net, step=step)
    table = ll.iterate_metrics(surface, store)
    assert table.step.tolist() == [3, 6, 9]
    swa = surface.evaluate(store.average())
    assert float(table.nll_average[-1]) == pytest.approx(float(swa.nll[0]), rel=1e-5)
    once = ll.iterate_metrics(surface, iter(weights_of(model, 3)))
    torch.testing.assert_close(once.nll_average, table.nll_average, rtol=1e-5, atol=1e-6)
    assert "step" not in once.columns


def test_two_forward_passes_a_member():
    calls = []

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            calls.append(len(x))
            return self.net(x)

    model, data = Counted(), blobs()
    surface = ll.LossSurface(model, ll.Classification(), data)
    calls.clear()
    ll.iterate_metrics(surface, weights_of(model, 4), strategy="points", chunk=2, threads=1)
    planning = len(data[0][0])  # one batch
    assert sum(calls) == 2 * 4 * sum(len(x) for x, _ in data) + planning


def test_iterates_of_different_networks_are_refused():
    model, task, data = problem("classification")
    surface = ll.LossSurface(model, task, data)
    w = weights_of(model, 1)[0]
    with pytest.raises(ll.LayoutError, match=r"expected \(73,\), got \(72,\)"):
        ll.iterate_metrics(surface, [w, w[:-1]])


def test_no_iterate_is_refused():
    model, task, data = problem("classification")
    with pytest.raises(ll.DataError, match="no weight vector to evaluate"):
        ll.iterate_metrics(ll.LossSurface(model, task, data), [])


def test_examples_without_targets_are_refused():
    model, task, data = problem("classification")
    surface = ll.LossSurface(model, task, data)
    with pytest.raises(ll.DataError, match="no targets"):
        ll.iterate_metrics(surface, weights_of(model, 2), [x for x, _ in data])


def test_on_a_quadratic_the_average_is_ahead_of_iterates_in_closed_form():
    """Regression with y = 0 on whitened inputs: the mean squared error of w is |w|^2."""
    x = torch.eye(4) * 2
    surface = ll.LossSurface(
        nn.Linear(4, 1, bias=False), ll.Regression(noise_variance=1.0), [(x, torch.zeros(4, 1))]
    )
    w = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    table = ll.iterate_metrics(surface, w)
    means = w.double().cumsum(0) / torch.arange(1, 51)[:, None]
    torch.testing.assert_close(table.rmse, w.double().norm(dim=1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(table.rmse_average, means.norm(dim=1), rtol=1e-5, atol=1e-6)
    # a linear model: the ensemble's mean is that of the average
    torch.testing.assert_close(table.rmse_ensemble, table.rmse_average, rtol=1e-4, atol=1e-6)
    assert float(table.rmse_average[-1]) < 0.3 * float(table.rmse.mean())
