"""Trainings in segments: equal to the unsplit ones, shared, stopped and resumed."""

import pytest
import torch

import lowland as ll
from lowland.artifacts import Graph
from lowland.artifacts.order import ordered
from lowland.errors import ConfigError
from lowland.runs.config import check_config
from lowland.runs.methods.swag import gaussian
from lowland.runs.run import Run
from lowland.runs.segments import AnnealedSGD, FGECycles, Segment
from lowland.runs.setup import Setup
from lowland.runs.training import optimizer_of
from lowland.tensor_files import same_tree
from lowland.trajectory import Every
from tests.runs.conftest import CONFIG

STEPS = 6  # of an epoch: 179 examples in batches of 30


def run_of(lr="auto", methods=("sgd", "swa"), **settings):
    """A run whose trainings share their first epochs, but for a learning rate that is a number."""
    values = CONFIG | {"methods": list(methods)} | settings
    values["average"] = values["average"] | {"lr": lr}
    config = check_config(values, where="here")
    return Run(config, Setup(config))


@pytest.fixture(scope="module")
def run():
    return run_of()


@pytest.fixture(scope="module")
def longer():
    average = CONFIG["average"] | {"budget": [1.5, 1, 1.25]}
    return run_of(0.05, methods=["sgd", "swa", "swag", "ema"], average=average)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    return Graph(tmp_path_factory.mktemp("segments"))


def trained(graph, artifact):
    graph.build([artifact])
    return graph.load(artifact)


def test_a_prefix_and_its_continuation_equal_the_unsplit_training(run, graph):
    split = trained(graph, run.annealed(0))
    whole = trained(Graph(graph.folder / "whole"), AnnealedSGD(run, 0))
    assert torch.equal(split.point.weights, whole.point.weights)
    assert same_tree(dict(split.log.columns), dict(whole.log.columns))
    assert split.log.columns["epoch"].tolist() == [1, 2, 3, 4]
    # its own schedule is one way to average: twice in each of its two epochs
    assert split.iterates.steps == [15, 18, 21, 24]
    assert run.annealed(0).stored == 4
    assert torch.equal(split.iterates[len(split.iterates) - 1].weights, whole.point.weights)


def test_branches_share_the_prefix(run, graph):
    graph.build([run.annealed(0)])
    first = graph.place(run.prefix(0)).stat().st_mtime_ns
    probes = [
        Segment(run, f"probe-{lr:g}", run.prefix(0), epochs=1, lr=lr, iterates=Every(2))
        for lr in (0.01, 0.1)
    ]
    graph.build(probes)
    assert graph.place(run.prefix(0)).stat().st_mtime_ns == first
    results = [graph.load(probe) for probe in probes]
    assert [r.log.columns["lr"].tolist() for r in results] == [[0.01], [0.1]]
    assert results[0].iterates.steps == [14, 16, 18]  # counted from the first step of the network
    assert not torch.equal(results[0].point.weights, results[1].point.weights)
    assert results[0].state.epoch == 3


def test_a_probe_that_continues_equals_a_longer_one(run, graph):
    options = {"lr": 0.02, "iterates": Every(2)}
    probe = Segment(run, "short", run.prefix(0), epochs=1, **options)
    rest = Segment(run, "rest", probe, epochs=1, iterates=Every(2))
    longer = Segment(run, "long", run.prefix(0), epochs=2, **options)
    graph.build([rest, longer])
    parts, whole = [graph.load(each) for each in (probe, rest)], graph.load(longer)
    assert torch.equal(parts[1].point.weights, whole.point.weights)
    assert parts[0].iterates.steps + parts[1].iterates.steps == whole.iterates.steps
    assert [each.name for each in rest.segments()] == [
        "train/prefix-0", "train/short-0", "train/rest-0",
    ]  # fmt: skip
    assert (rest.first_epoch, rest.last_epoch) == (3, 4)


def test_fge_branches_from_the_prefix(run, graph):
    cycles = run.cycles(0)
    assert (cycles.trajectory, cycles.start) == (None, run.prefix(0))
    result = trained(graph, cycles)
    assert result.iterates.steps == [2 * STEPS + STEPS // 2 + 1, 3 * STEPS + STEPS // 2 + 1]
    assert result.log.columns["epoch"].tolist() == [3, 4]


def test_a_method_is_charged_all_that_its_trainings_stand_on(run):
    method = run_of(methods=["fge"]).methods[0]
    parts = {part.artifact.name: part for part in run.parts(method)}
    trials = {trial.name for trial in run.learning_rate().trials}
    assert parts.keys() == {"train/prefix-0", "train/sgd-0", "train/fge-0"} | trials
    assert {name for name, part in parts.items() if part.tuning} == {"train/fge-0"} | trials
    epochs = sum(part.share * part.artifact.passes({}) for part in parts.values())
    assert epochs == pytest.approx(4 + 2 + 4 / STEPS)  # with SGD's own end, and four trials
    sgd = run_of(methods=["sgd"]).methods[0]
    assert sum(part.artifact.passes({}) for part in run.parts(sgd)) == 4
    names = {each.name for each in ordered([run.row(sgd)])}
    assert {"train/prefix-0", "train/sgd-0"} <= names


def test_settings_are_in_the_fingerprint(run):
    def make(**changed):
        options = {"epochs": 1, "lr": 0.1, "iterates": Every(2)} | changed
        return Segment(run, "a", options.pop("start", run.prefix(0)), **options).fingerprint

    others = [{"epochs": 2}, {"lr": 0.2}, {"lr": None}, {"iterates": None}, {"iterates": Every(3)},
              {"start": run.prefix(1)}]  # fmt: skip
    prints = [make(), *(make(**other) for other in others)]
    assert len(set(prints)) == len(prints)
    assert make() == prints[0]


@pytest.mark.parametrize("name", ["extension", "fge", "prefix", "probe", "sgd"])
def test_a_stopped_segment_resumes_with_equal_bytes(run, longer, tmp_path, name, monkeypatch):
    """Each artifact is stopped in mid-epoch, and ends with the files of one that nobody stopped."""
    monkeypatch.setattr("lowland.train.trainer.SAVE_SECONDS", 0.0)
    artifact = {
        "extension": lambda: longer.averaged(0, 1.25),
        "fge": lambda: run.cycles(0),
        "prefix": lambda: run.prefix(0),
        "probe": lambda: Segment(
            run, "stopped", run.prefix(0), epochs=2, lr=0.1, iterates=Every(2)
        ),
        "sgd": lambda: run.annealed(0),
    }[name]()
    whole, again = Graph(tmp_path / "whole"), Graph(tmp_path / "again")
    whole.build([artifact])
    again.build(artifact.segments()[:-1])

    class Boom(Exception):
        pass

    def bar(_):
        def report(done, total):
            if done == 4:
                raise Boom

        return report

    with pytest.raises(Boom):
        again.build([artifact], bar=bar)
    again.build([artifact])
    files = {
        file.relative_to(whole.place(artifact)): file.read_bytes()
        for file in whole.place(artifact).rglob("*")
        if file.is_file() and file.name not in ("timing.json", "manifest.json")
    }
    assert len(files) > 2
    for file, content in files.items():
        assert (again.place(artifact) / file).read_bytes() == content, file


def test_without_a_shared_prefix_trainings_begin_with_first_weights():
    run = run_of(0.05)
    assert run.annealed(0).start is None
    assert run.averaged(0).start is None
    assert FGECycles(run, 0).trajectory is run.averaged(0)
    assert not any(each.kind == "prefix" for each in ordered(run.targets()))


def test_a_published_state_is_no_larger_than_the_training_needs(run, graph):
    """Weights, buffers, momentum and random states, and no log of seconds."""
    state = trained(graph, run.prefix(0)).state
    assert state.epoch == 2
    assert not {"columns", "partial", "collectors"} & set(state.state)


# -- beyond the epochs of SGD ----------------------------------------------------------------------


def test_a_trajectory_that_goes_on_equals_one_that_never_stopped(longer, graph):
    """The same schedule over six epochs at once, which stays at its last learning rate."""
    train, setup = longer.config.train, longer.setup
    model, weights = setup.model(0), []
    iterates = ll.Trajectory.create(graph.folder / "iterates", setup.layout)
    ll.sgd(
        model,
        setup.task,
        setup.batches(setup.seed(0)),
        epochs=6,
        optimizer=optimizer_of(train),
        schedule=lambda o: ll.SWASchedule(o, total=4 * STEPS, swa_lr=0.05, start=0.5),
        collectors=[ll.Collector(iterates, when=Every(3, total=4 * STEPS, start=0.5))],
        seed=setup.seed(0),
    )
    segments = longer.averaged_segments(0, 1.5)
    assert [each.name for each in segments] == [
        "train/swa-0", "train/swa@1.25-0", "train/swa@1.5-0",
    ]  # fmt: skip
    average = trained(graph, longer.average(0, "swa", 1.5))
    for segment in segments:
        weights += [point.weights for point in graph.load(segment).iterates]
    assert torch.equal(graph.load(segments[-1]).point.weights, setup.layout.flatten(model))
    assert len(weights) == len(iterates) == longer.budget.stored(1.5)
    assert all(map(torch.equal, weights, (point.weights for point in iterates)))
    assert torch.equal(average.weights, iterates.swa())
    loaded = {each.name: graph.load(each) for each in segments}
    post = gaussian(longer, loaded, longer.averaged_segments(0, 1.5), 20)
    assert torch.equal(post.draw(2), iterates.swag(rank=len(iterates)).posterior().draw(2))


def test_each_budget_has_rows_and_is_charged_what_it_stands_on(longer, graph):
    table = trained(graph, longer.comparison())
    expected = {"SGD": 4, "SWA": 4, "SWA 1.25": 5, "SWA 1.5": 6, "SWAG": 4, "SWAG 1.25": 5,
                "SWAG 1.5": 6, "EMA": 4}  # fmt: skip
    assert dict(zip(table.columns["method"], table.columns["epochs"].tolist(), strict=True)) == (
        expected
    )
    assert len(set(table.columns["nll"].tolist())) == len(expected)
    # the segments are trained once, whatever rows stand on them
    names = [each.name for each in ordered(longer.targets()) if each.name.startswith("train/")]
    assert sorted(names) == ["train/sgd-0", "train/swa-0", "train/swa@1.25-0", "train/swa@1.5-0"]


def test_a_larger_budget_later_trains_the_rest_alone(longer, graph):
    graph.build([longer.comparison()])
    average = CONFIG["average"] | {"budget": [1.5, 1, 1.25, 2]}
    more = run_of(0.05, methods=["sgd", "swa", "swag", "ema"], average=average)
    needed = [each.name for each in graph.needed(more.targets())]
    assert [name for name in needed if name.startswith("train/")] == ["train/swa@2-0"]
    assert not {"rows/swa", "rows/swa@1.5", "tuning/swag"} & set(needed)


def test_one_budget_beyond_sgds_is_named_too():
    run = run_of(0.05, methods=["swa", "multiswag"], average=CONFIG["average"] | {"budget": 1.25})
    assert [method.label(run) for method in run.methods] == ["SWA 1.25", "MultiSWAG of 2"]
    run.check()


@pytest.mark.parametrize(
    ("budget", "words"),
    [(0.9, "average.budget: .*greater than or equal to 1"),
     ([1, 0.5], "average.budget: .*greater than or equal to 1"),
     ([1.5, 1.5], "average.budget: expected each number once"),
     ([], "average.budget: "),
     (1.1, "1.1 of 4 epochs is no whole epoch longer than 1; train longer"),
     ([1.5, 1.55], "1.55 of 4 epochs is no whole epoch longer than 1.5")],
)  # fmt: skip
def test_budgets_that_make_no_sense_are_refused(budget, words):
    with pytest.raises(ConfigError, match=words):
        run_of(0.05, average=CONFIG["average"] | {"budget": budget}).check()
