"""Trainings in cycles: their series, members and pictures, and resuming."""

import pytest
import torch

from lowland.artifacts import Graph
from lowland.core import Point
from lowland.runs import cycles
from lowland.runs.config import read_config
from lowland.runs.cycles import CycleMonitor
from lowland.runs.plan import RunPlan
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.trajectory import EndOfCycle

KINDS = ("csgld", "fge", "snapshot")


def training_of(run, kind):
    return {"csgld": run.csgld, "fge": run.cycles, "snapshot": run.snapshot}[kind](0)


@pytest.mark.parametrize("kind", KINDS)
def test_series_go_from_the_start_to_the_end_with_the_members(finished, kind):
    training = training_of(finished.run, kind)
    trained = finished.load(training)
    series = trained.cycles
    assert series.members.tolist() == trained.iterates.steps
    assert set(series.members.tolist()) <= set(series.step.tolist())
    assert series.step[0] == 0
    assert series.step[-1] == series.lr_step[-1] == training.epochs * finished.run.budget.epoch
    assert series.distance[0] == 0
    assert bool((series.distance[1:] > 0).all())
    assert series.split == "validation"


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_member_is_that_on_the_validation_examples(finished, kind):
    trained, setup = finished.load(training_of(finished.run, kind)), finished.run.setup
    series = trained.cycles
    for i, step in enumerate(trained.iterates.steps):
        at = series.step.tolist().index(step)
        table = setup.surface.evaluate(trained.iterates[i], setup.validation, batchnorm="frozen")
        assert float(series.metrics["error"][at]) == pytest.approx(float(table.error[0]))
        assert float(series.metrics["nll"][at]) == pytest.approx(float(table.nll[0]), rel=1e-5)


def test_distances_of_fge_are_from_the_first_averaged_iterate(finished):
    run = finished.run
    start = finished.load(run.averaged(0)).iterates[0].weights
    trained = finished.load(run.cycles(0))
    last = (trained.point.weights - start).norm()
    assert float(trained.cycles.distance[-1]) == pytest.approx(float(last), rel=1e-5)


def test_the_learning_rate_restarts_after_each_cycle(finished):
    series = finished.load(finished.run.snapshot(0)).cycles
    lrs = dict(zip(series.lr_step.tolist(), series.lr.tolist(), strict=True))
    lr = finished.run.config.train.lr
    assert series.ends.tolist() == series.members.tolist()
    for end in series.ends.tolist()[:-1]:
        assert lrs[end + 1] == pytest.approx(lr)
        assert lrs[end] < 0.5 * lr


def test_pictures_and_records_have_their_places(finished):
    for kind in KINDS:
        assert (finished.folder / "pictures" / f"cycles-{kind}.png").is_file()
        assert (finished.folder / "records" / f"cycles-{kind}-0.json").is_file()


def test_a_run_that_was_stopped_ends_with_the_same_bits(finished, tmp_path, monkeypatch):
    folder = tmp_path / "again"
    config = read_config(finished.folder.parent / "config.yaml", [f"out={folder}"])
    run = Run(config, Setup(config, RunPlan.read(finished.folder / "plan.json")))
    picks = EndOfCycle.picks

    def stop(self, step):
        if step == 20:
            raise KeyboardInterrupt
        return picks(self, step)

    monkeypatch.setattr("lowland.train.trainer.SAVE_SECONDS", 0.0)
    for kind in ("csgld", "snapshot"):
        with monkeypatch.context() as patch:
            patch.setattr(EndOfCycle, "picks", stop)
            with pytest.raises(KeyboardInterrupt):
                Graph(folder).build([training_of(run, kind)])
        graph = Graph(folder)
        graph.build([training_of(run, kind)])
        again = graph.load(training_of(run, kind))
        trained = finished.load(training_of(finished.run, kind))
        assert torch.equal(again.point.weights, trained.point.weights)
        for mine, other in zip(again.iterates, trained.iterates, strict=True):
            assert torch.equal(mine.weights, other.weights)
        for name in ("step", "distance", "lr_step", "lr", "members", "ends"):
            assert torch.equal(getattr(again.cycles, name), getattr(trained.cycles, name))
        assert torch.equal(again.cycles.metrics["nll"], trained.cycles.metrics["nll"])


def test_a_monitor_takes_few_examples_and_leaves_random_numbers_alone(finished, monkeypatch):
    monkeypatch.setattr(cycles, "_EXAMPLES", 7)
    setup = finished.run.setup
    model = setup.model(0)
    monitor = CycleMonitor(setup, setup.surface.point(model), 3)
    before = torch.get_rng_state()
    monitor.append(model, step=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert monitor.examples.num_examples == 7
    state = monitor.state_dict()
    other = CycleMonitor(setup, Point(torch.zeros(setup.layout.size)), 0)
    other.load_state_dict(state)
    assert other.state_dict() == state == monitor.state_dict()
    assert state["steps"] == [3, 5]
    assert state["distances"] == [0.0, 0.0]
