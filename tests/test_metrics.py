"""A metric is declared once, for tables, plots and commands."""

import io

import pytest
import torch
from rich.console import Console
from torch import nn

import lowland as ll
from lowland import metrics
from lowland.cli.tables import show_comparison, show_metrics
from lowland.records import PathResult, ShiftCurves, Table


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(metrics, "_METRICS", dict(metrics._METRICS))


def top_two(probs, labels):
    return (probs.topk(2, dim=1).indices == labels[:, None]).any(1)


def classifier():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    x, y = torch.randn(30, 4), torch.randint(3, (30,))
    batches = [(x[:20], y[:20]), (x[20:], y[20:])]
    surface = ll.LossSurface(net, ll.Classification(), batches)
    return surface, surface.layout.flatten(net), net, x, y


def printed(function, *args, **options):
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    function(*args, console, **options)
    return console.file.getvalue()


@pytest.mark.parametrize("keep", ["probs", "none", "target"])
def test_a_registered_metric_is_everywhere(registry, keep):
    ll.register_metric(
        ll.Metric(
            "top2", "top-2", "in the two likeliest", "fraction", best="max", form="{:.1f}",
            tasks=("classification",), function=top_two,
        )
    )  # fmt: skip
    surface, w, net, x, y = classifier()
    expected = float(top_two(net(x), y).double().mean())
    assert 0 < expected < 1
    # predictions, stored or streamed, and tables
    assert ll.predict(surface, ll.Ensemble([w]), surface.data, keep=keep).metrics()[
        "top2"
    ] == pytest.approx(expected, abs=1e-12)
    table = surface.evaluate(torch.stack([w, w.flip(0)]))
    assert float(table.top2[0]) == pytest.approx(expected, abs=1e-12)
    assert surface.evaluate(w.sign() * 3e38).top2.isnan().all()
    # the command line: heading, format, the best in bold
    text = printed(
        show_comparison, Table({"method": ["SGD", "SWA"], "top2": torch.tensor([0.25, 0.75])})
    )
    assert "top-2" in text
    assert "0.2" in text
    assert "\x1b[1m  0.8\x1b[0m" in text
    assert "\x1b[1m  0.2" not in text
    change = Table({"method": ["SWA"], "top2": torch.tensor([0.5])})
    assert "+0.5" in printed(lambda t, c: show_metrics(t, "difference", "", c), change)
    shifted = Table({"method": ["SWA"], "top2_corrupted": torch.tensor([0.5])})
    assert "top-2" in printed(lambda t, c: show_metrics(t, "corrupted", "", c), shifted)
    # pictures
    record = ShiftCurves(torch.tensor([0, 1]), {"blur": {"top2": torch.tensor([0.9, 0.5])}})
    assert record.plot(metric="top2").get_ylabel() == "in the two likeliest (fraction)"
    ax = Table({"method": ["SGD", "SWA"], "top2": torch.tensor([0.25, 0.75])}).plot(column="top2")
    assert ax.lines[1].get_label() == "best top2"
    assert ax.lines[1].get_xdata().tolist() == [0.75]


def test_a_metric_of_a_regression_is_in_the_targets_units(registry):
    ll.register_metric(
        ll.Metric("mae", "MAE", "mean absolute error", tasks=("regression",),
                  function=lambda mean, variance, target: (mean - target).abs())
    )  # fmt: skip
    net = nn.Linear(1, 1)
    x = torch.linspace(-1, 1, 11)[:, None]
    y = 3 * x + 7
    task = ll.Regression(noise_variance=1.0, target_mean=7.0, target_std=3.0)
    surface = ll.LossSurface(net, task, [(x, (y - 7) / 3)])
    pred = ll.predict(surface, ll.PointMass(surface.layout.flatten(net)), surface.data)
    mae = float((net(x).detach() * 3 + 7 - y).abs().double().mean())
    assert pred.metrics()["mae"] == pytest.approx(mae, rel=1e-6)
    assert "mae" not in classifier()[0].evaluate(classifier()[1]).columns


def test_values_of_a_metric_function_are_checked(registry):
    ll.register_metric(ll.Metric("wrong", "wrong", function=lambda probs, labels: probs.sum()))
    surface, w, *_ = classifier()
    with pytest.raises(ll.ConfigError, match=r"metric 'wrong'.*a value for each of 20 examples"):
        surface.evaluate(w)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ll.Metric("a", "a", best="lowest"), "best: expected 'min', 'max' or None"),
        (lambda: ll.Metric("a", "a", tasks=("images",)), "tasks: expected some of classification"),
        (lambda: ll.Metric("a", "a", tables=("all",)), "tables: expected some of run, test"),
        (lambda: ll.register_metric(ll.Metric("nll", "NLL")), "'nll' is one of the library's own"),
    ],
)
def test_invalid_declarations_are_an_error(make, message):
    with pytest.raises(ll.ConfigError, match=message):
        make()


def test_every_metric_of_a_prediction_is_declared():
    """`metrics()` returns the metrics of the registry, and those in normalised units."""
    surface, w, *_ = classifier()
    values = ll.predict(surface, ll.Ensemble([w]), surface.data).metrics()
    assert set(values) == set(metrics.metric_names("classification"))
    x = torch.randn(8, 1)
    net = nn.Linear(1, 2)
    surface = ll.LossSurface(net, ll.Regression(), [(x, x)])
    values = ll.predict(surface, ll.PointMass(surface.layout.flatten(net)), surface.data).metrics()
    units = {name for name in values if not name.endswith("_normalised")}
    assert units == set(metrics.metric_names("regression"))


def test_a_cell_may_be_run_again(registry):
    for value in (1.0, 2.0):
        ll.register_metric(
            ll.Metric("same", "same", function=lambda p, y, value=value: torch.full_like(y, value))
        )
    surface, w, *_ = classifier()
    assert float(surface.evaluate(w).same) == 2.0


def test_columns_are_known_by_their_metric():
    assert metrics.metric_of("nll_gaussian").title == "Gaussian NLL"
    assert metrics.metric_of("ece_tempered").best == "min"
    assert metrics.metric_of("coverage_95").best is None
    assert metrics.metric_of("test_nll") is None
    record = PathResult(*[torch.linspace(0, 1, 3)] * 6)
    assert record.plot().get_ylabel() == "loss (nats)"
    assert record.plot(metric="error").get_ylabel() == "error (fraction)"
