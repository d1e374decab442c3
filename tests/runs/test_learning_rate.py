"""The learning rate of averaging: short trials, a choice on validation examples, what it costs."""

import pytest
import torch

from lowland.artifacts import Checkpoint, Graph, Inputs
from lowland.errors import NonFiniteError
from lowland.records import Selection
from lowland.runs import learning_rate
from lowland.runs.learning_rate import FACTORS
from tests.runs.test_segments import STEPS, run_of


@pytest.fixture(scope="module")
def run():
    return run_of(average={"start": 0.5, "rank": 2, "scales": [0.5, 1.0]})


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("trials"))


@pytest.fixture(scope="module")
def selection(run, graph):
    graph.build([run.learning_rate()])
    return graph.load(run.learning_rate())


def test_the_trial_with_the_lowest_nll_is_taken(run, selection):
    best = selection.names[int(selection.nll.argmin())]
    chosen = run.learning_rate().best_trial(selection)
    assert best.startswith(f"{chosen.lr:g}: ")
    assert [trial.lr for trial in run.learning_rate().trials] == [0.05 * f for f in FACTORS]


def test_a_trial_is_a_short_training_from_where_averaging_starts(run, graph, selection):
    trial = run.learning_rate().trials[0]
    trained = graph.load(trial)
    assert trial.steps == 1
    assert trial.passes({}) == pytest.approx(1 / STEPS)
    assert trained.log.columns["lr"].tolist() == [pytest.approx(0.05)]
    start = graph.load(run.prefix(0)).point.weights
    assert trained.iterates.steps == [2 * STEPS + 1]
    assert not torch.equal(trained.point.weights, start)


def test_the_comparison_of_trials_shows_its_progress(run, graph, selection, tmp_path):
    steps = []
    choice = run.learning_rate()
    inputs = Inputs(choice.inputs, graph.load)
    again = choice.build(inputs, Checkpoint(tmp_path / "state"), lambda *step: steps.append(step))
    assert torch.equal(again.nll, selection.nll)
    assert steps[-1][0] > 1  # passes, whose total is not known before


@pytest.mark.parametrize(("batch_size", "steps"), [(27, 7), (30, 6)])
def test_longer_trials_take_whole_epochs(batch_size, steps):
    train = {"epochs": 200, "batch_size": batch_size, "lr": 0.05}
    long = run_of(average={}, train=train)
    trial = long.learning_rate().trials[0]
    assert (trial.epochs, trial.steps, trial.passes({})) == (2, steps, 2.0)
    # trials and the end of SGD's own schedule cost 14% more than SGD
    swa = next(method for method in long.methods if method.name == "swa")
    epochs = {part.artifact.name: part.artifact.epochs for part in long.parts(swa)}
    assert sum(epochs.values()) == 228
    tuning = [p.artifact.name for p in long.parts(swa) if p.tuning]
    assert tuning == ["train/swa-0", *(t.name for t in long.learning_rate().trials)]


@pytest.mark.parametrize(("epochs", "batch_size"), [(10, 15), (14, 30), (19, 27)])
def test_tuning_costs_15_percent_of_sgd_at_most(epochs, batch_size):
    """Where 1.25% of the budget is a step or more."""
    train = {"epochs": epochs, "batch_size": batch_size, "lr": 0.05}
    run = run_of(average={}, train=train)
    assert run.budget.total >= 80
    swa = next(method for method in run.methods if method.name == "swa")
    tuning = [part.artifact for part in swa.parts(run) if part.tuning]
    assert sum(each.passes({}) for each in tuning) <= 0.15 * epochs


def test_the_trajectory_goes_on_at_the_chosen_learning_rate(run, graph, selection):
    graph.build([run.averaged(0)])
    trained = graph.load(run.averaged(0))
    chosen = run.learning_rate().best_trial(selection).lr
    assert trained.log.columns["lr"].tolist() == [pytest.approx(chosen)] * 2
    assert trained.log.columns["epoch"].tolist() == [3, 4]


def test_swag_is_judged_where_it_is_cheap(run, selection):
    few = run_of(average={"scales": [0.5]})  # four samples of 4 trials cost under 2% of training
    assert few.learning_rate()._samples() == 0
    long = run_of(train={"epochs": 4000, "batch_size": 30, "lr": 0.05})
    assert long.learning_rate()._samples() == 10
    assert not any("SWAG" in name for name in selection.names)


def test_a_learning_rate_that_diverges_is_no_candidate(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_rate, "FACTORS", (1e30, 0.1))
    run, graph = run_of(train={"epochs": 80, "batch_size": 30, "lr": 0.05}), Graph(tmp_path)
    graph.build([run.learning_rate()])
    selection = graph.load(run.learning_rate())
    assert isinstance(selection, Selection)
    assert {name.partition(":")[0] for name in selection.names} == {"0.005"}
    assert graph.load(run.learning_rate().trials[0]).diverged


def test_where_all_diverge_it_says_what_to_do(run):
    choice = run_of().learning_rate()

    class Diverged:
        diverged = True

    inputs = Inputs(choice.inputs, lambda artifact: Diverged())
    with pytest.raises(NonFiniteError, match=r"diverges at 0\.05, .* lower train\.lr"):
        choice.build(inputs, None, None)
