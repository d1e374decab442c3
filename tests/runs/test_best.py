"""The method to use: the lowest NLL on validation examples, or a cheaper one that is as good."""

import json
import types

import pytest
import torch

from lowland.records import Table
from lowland.runs.best import BestMethod, advice
from lowland.runs.tuning import TunedValues
from tests.runs.test_segments import run_of


def choose(costs, nlls):
    """The choice between methods of these costs (networks, epochs) and NLLs (items,)."""
    run = run_of(methods=["sgd", "swa", "swag"])
    best = BestMethod(run)
    inputs = {}
    for method, (networks, epochs), nll in zip(run.methods, costs, nlls, strict=True):
        row = {"samples": torch.tensor([networks]), "epochs": torch.tensor([epochs])}
        inputs[run.row(method).name] = Table(row)
        inputs[run.tuning(method).name] = TunedValues({}, nll)
    return best._choose(inputs)


COSTS = [(1.0, 4.0), (1.0, 5.0), (30.0, 5.0)]


def test_the_lowest_nll_wins():
    g = torch.Generator().manual_seed(0)
    sgd = torch.rand(50, generator=g)
    label, choice = choose(COSTS, [sgd, sgd - 0.1, sgd - 0.3])
    assert (label, choice["compared_with"]) == ("SWAG", "SGD")
    assert choice["difference"] == pytest.approx(-0.3)
    assert (choice["networks"], choice["training"]) == (30, 1.25)


def test_a_cheaper_method_within_an_error_is_preferred():
    g = torch.Generator().manual_seed(0)
    sgd, noise = torch.rand(50, generator=g), torch.randn(50, generator=g)
    swag = sgd - 0.3
    label, _ = choose(COSTS, [sgd, swag + 0.1 * (noise - noise.mean()) + 0.01, swag])
    assert label == "SWA"
    label, choice = choose(COSTS, [sgd, sgd + 0.1, sgd + 0.1 * (noise - noise.mean()) - 0.01])
    assert label == "SGD"
    assert "no method is clearly better" in advice(choice)


def test_a_method_that_is_not_finite_is_not_taken():
    sgd = torch.linspace(0, 1, 20)
    label, _ = choose(COSTS, [sgd, torch.full((20,), torch.nan), sgd + 1])
    assert label == "SGD"


def test_a_first_method_that_trains_nothing_is_no_obstacle():
    nll = torch.linspace(0, 1, 20)
    _, choice = choose([(1.0, 0.0), (1.0, 4.0), (30.0, 5.0)], [nll, nll - 0.5, nll])
    assert (choice["method"], choice["training"]) == ("SWA", 1.0)
    json.dumps(choice, allow_nan=False)


def test_items_of_one_example_are_not_independent(monkeypatch):
    g = torch.Generator().manual_seed(0)
    by_example = torch.randn(10, generator=g).repeat_interleave(5)
    sgd = torch.rand(50, generator=g)
    nlls = [sgd, sgd - 0.3 + 0.1 * by_example, sgd]
    _, alone = choose(COSTS, nlls)
    groups = torch.arange(10).repeat_interleave(5)
    known = types.SimpleNamespace(groups=groups)
    monkeypatch.setattr("lowland.runs.best.Validation", lambda *args: known)
    _, grouped = choose(COSTS, nlls)
    assert grouped["difference_se"] > 2 * alone["difference_se"]


def test_the_run_writes_the_weights(finished):
    folder = finished.folder / "best"
    choice = json.loads((folder / "best.json").read_text())
    assert choice["method"] in finished.out
    assert "Use " in finished.out
    method = next(m for m in finished.run.methods if m.label(finished.run) == choice["method"])
    post, _ = finished.results.posterior(method)
    files = {path.name for path in folder.iterdir()}
    expected = "model.safetensors" if post.support == 1 else "posterior.safetensors"
    assert files == {"best.json", expected}
    nlls = {m.name: finished.load(finished.run.tuning(m)).nll.mean() for m in finished.run.methods}
    assert choice["nll"] == pytest.approx(float(nlls[method.name]))
