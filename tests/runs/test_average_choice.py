"""The choice of an average, where the best one is known in closed form."""

from types import SimpleNamespace

import pytest
import torch

from lowland.core import Point
from lowland.records import Selection
from lowland.runs import average_choice
from lowland.runs.average_choice import CONSTANT, SCHEDULE, SGD, ChosenAverage, DecayChoice
from lowland.runs.config import check_config
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.runs import test_segments

SIZE, ITERATES, DECAYS = 400, 40, (0.8, 0.9, 0.95)
SHRINKAGE = 0.9  # of the distance from the optimum, from one iterate to the next


def net():
    return torch.nn.Linear(SIZE, 1, bias=False)


def splits():
    """Examples whose mean loss is half the squared distance from the optimum, 0, and a constant."""
    examples = SIZE**0.5 * torch.eye(SIZE), torch.zeros(SIZE, 1)
    return {"train": examples, "validation": examples, "test": examples}


def run_of(lr, **average):
    values = {
        "model": {"name": f"{__name__}:net"},
        "data": {"name": f"{__name__}:splits"},
        "task": {"name": "lowland:Regression", "args": {"noise_variance": 1.0}},
        "methods": ["sgd", "ema"],
        "train": {"epochs": 200, "batch_size": 40, "lr": 0.01},
        "average": {"lr": lr, "ema_decays": list(DECAYS), **average},
        "threads": 1,
    }
    config = check_config(values, where="here")
    return Run(config, Setup(config))


def iterates_from(distance):
    """Iterates with independent noise of variance 1 in all, whose mean approaches the optimum."""
    g = torch.Generator().manual_seed(0)
    start = torch.full((SIZE,), distance / SIZE**0.5)
    noise = torch.randn(ITERATES, SIZE, generator=g) / SIZE**0.5
    return [Point(SHRINKAGE**i * start + noise[i]) for i in range(ITERATES)]


def weights_of(decay):
    weights = decay ** torch.arange(ITERATES - 1, -1, -1, dtype=torch.float64)
    return weights / weights.sum()


def expected_loss(decay, distance):
    """Of an EMA: half of its squared bias and of its variance."""
    weights = weights_of(decay)
    bias = weights @ SHRINKAGE ** torch.arange(ITERATES, dtype=torch.float64) * distance
    return float(bias.square() + weights.square().sum()) / 2


def inputs_of(choice, all_steps, iterates, last=None):
    inputs = {choice.trajectory.name: SimpleNamespace(ema=SimpleNamespace(point=all_steps))}
    inputs[choice.trajectory.name].iterates = iterates
    if choice.annealed:
        inputs[choice.annealed.name] = SimpleNamespace(point=last)
    return inputs


@pytest.mark.parametrize(("distance", "best"), [(0.5, 0.95), (2.5, 0.9), (8.0, 0.8)])
def test_the_decay_with_the_lowest_expected_loss_is_chosen(distance, best):
    losses = {decay: expected_loss(decay, distance) for decay in DECAYS}
    assert best == min(losses, key=losses.get)
    choice = run_of(0.01).average_choice(0, "ema")
    iterates = iterates_from(distance)
    chosen = choice.build(inputs_of(choice, iterates[-1], iterates), None, None)
    assert chosen.selection.best == f"{CONSTANT}: EMA {best:g}"
    assert chosen.branch == CONSTANT
    torch.testing.assert_close(torch.tensor(chosen.iterate_weights).double(), weights_of(best))
    nll = dict(zip(chosen.selection.names, chosen.selection.nll.tolist(), strict=True))
    gain = nll[f"{CONSTANT}: last"] - nll[chosen.selection.best]
    last = (distance * SHRINKAGE ** (ITERATES - 1)) ** 2 + 1
    assert gain == pytest.approx(last / 2 - losses[best], rel=0.15)


def test_the_default_stays_where_no_decay_is_clearly_better():
    optimum, iterates = Point(torch.zeros(SIZE)), iterates_from(2.5)
    choice = run_of(0.01).average_choice(0, "ema")
    chosen = choice.build(inputs_of(choice, optimum, iterates), None, None)
    assert chosen.selection.best == chosen.selection.default == "EMA of all steps, decay 0.99"
    assert (chosen.branch, chosen.iterate_weights) == (None, None)
    tuned = run_of("auto").average_choice(0, "ema")
    last = inputs_of(tuned, iterates[-1], iterates, last=optimum)
    assert tuned.build(last, None, None).selection.best == SGD


def test_decays_compete_where_they_cost_less_than_a_hundredth_of_training():
    run = run_of("auto")
    assert run.average_choice(0, "ema").decays == list(DECAYS)
    short = test_segments.run_of(methods=["ema"])
    assert short.average_choice(0, "ema").decays == []
    assert run_of(0.01, ema_decays=[]).average_choice(0, "ema") is None
    assert test_segments.run_of(0.05, methods=["ema"]).average_choice(0, "ema") is None


def test_what_was_chosen_is_stored(tmp_path):
    one = torch.zeros(1, dtype=torch.float64)
    selection = Selection(["a"], one, one, one, one, "a", "a")
    choice = run_of("auto").average_choice(0, "ema")
    for expected in (ChosenAverage(selection), ChosenAverage(selection, SCHEDULE, [0.25, 0.75])):
        choice.save(expected, tmp_path)
        chosen = choice.load(tmp_path)
        assert chosen.selection.message == selection.message
        assert chosen.branch == expected.branch
        assert chosen.iterate_weights == expected.iterate_weights
    assert choice.view() == {"selection.json": "records/ema-0.json"}


def test_decays_are_in_the_fingerprint(monkeypatch):
    run = run_of("auto")
    first = DecayChoice(run, 0).fingerprint
    assert DecayChoice(run_of("auto", ema_decays=[0.5]), 0).fingerprint != first
    monkeypatch.setattr(average_choice, "_DECAYS_SHARE", 0.0)
    assert DecayChoice(run, 0).fingerprint != first
