"""SWA and EMA weights of a trajectory, ready to be served."""

from dataclasses import replace

import pytest
import torch

from lowland.artifacts import Graph
from lowland.records import Selection
from lowland.runs.average_choice import CONSTANT, SCHEDULE, SGD, ChosenAverage
from tests.runs.test_segments import run_of


def test_swa_is_the_mean_of_the_iterates(finished):
    average = finished.load(finished.run.average(0, "swa"))
    iterates = finished.load(finished.run.averaged(0)).iterates
    mean = torch.stack([iterates[i].weights for i in range(len(iterates))]).double().mean(0)
    torch.testing.assert_close(average.weights.double(), mean, rtol=1e-5, atol=1e-6)


def test_the_ema_is_that_of_the_trajectory(finished):
    average = finished.load(finished.run.average(0, "ema"))
    assert torch.equal(average.weights, finished.load(finished.run.averaged(0)).ema.point.weights)


def test_an_average_is_a_state_dict_for_people(finished):
    for name in ("average-0", "ema-0"):
        point = finished.results.graph.load(
            finished.run.average(0, "swa" if name == "average-0" else "ema")
        )
        layout = finished.run.setup.layout
        folder = finished.folder / "weights"
        assert (folder / f"{name}.safetensors").is_file()
        model = finished.run.setup.model(0)
        layout.load_(model, point.weights)
        assert torch.equal(layout.flatten(model), point.weights)


@pytest.mark.parametrize("branch", [CONSTANT, SCHEDULE])
@pytest.mark.parametrize("of", ["ema", "swa"])
def test_an_average_has_the_shares_that_were_chosen(tmp_path, of, branch):
    run, graph = run_of(methods=["sgd", "ema", "swa"]), Graph(tmp_path)
    average = run.average(0, of)
    assert average.choice is not None
    trained = {each.name: each for each in (average.trajectory, average.annealed)}
    graph.build(list(trained.values()))
    one = torch.zeros(2, dtype=torch.float64)
    selection = Selection([SGD, "a"], one, one, one, one, SGD, "a")
    results = {name: graph.load(each) for name, each in trained.items()}
    chosen = results | {average.choice.name: ChosenAverage(selection, branch, [0.25, 0.75])}
    source = average.annealed if branch == SCHEDULE else average.trajectory
    last = [point.weights.double() for point in results[source.name].iterates][-2:]
    expected = (0.25 * last[0] + 0.75 * last[1]).float()
    assert torch.equal(average.build(chosen, None, None).weights, expected)
    chosen[average.choice.name] = ChosenAverage(replace(selection, best=SGD))
    annealed = results[average.annealed.name].point.weights
    assert torch.equal(average.build(chosen, None, None).weights, annealed)
