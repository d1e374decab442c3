"""The artifacts of `lowland sharpness`: each number is that of the function of the library."""

import pytest

import lowland as ll
from lowland.artifacts import Graph, Source
from lowland.artifacts.order import complete, ordered
from lowland.runs.measures import SharpnessOptions
from lowland.runs.sharpness import sharpness_artifacts
from lowland.runs.sources import hash_of
from tests.runs.test_segments import run_of

EXAMPLES = 60
OPTIONS = SharpnessOptions(
    kinds=["sam", "average"],
    eigenvalues=2,
    probes=1,
    directions=2,
    points=4,
    examples=EXAMPLES,
    seed=3,
)


@pytest.fixture(scope="module")
def run():
    return run_of(0.05)


def sources(run, names=("first", "second")):
    points = [run.setup.surface.point(run.setup.model(i)) for i in range(len(names))]
    return [
        Source(f"weights/{name}", point, {"hash": hash_of([point.weights, point.buffers or {}])})
        for name, point in zip(names, points, strict=True)
    ]


@pytest.fixture(scope="module")
def graph(run, tmp_path_factory):
    graph = Graph(tmp_path_factory.mktemp("sharpness"))
    graph.build(complete(sharpness_artifacts(run, sources(run), OPTIONS)))
    return graph


def test_the_table_has_the_numbers_of_the_library(run, graph):
    table, *_ = sharpness_artifacts(run, sources(run), OPTIONS)
    result, surface = graph.load(table), run.setup.surface
    assert list(result.method) == ["first", "second"]
    for i, source in enumerate(sources(run)):
        w = source.value
        options = {"count": EXAMPLES, "seed": 3}
        for kind in ("average", "sam"):
            assert result.columns[kind][i] == float(ll.sharpness(surface, w, kind=kind, **options))
        widths = ll.widths(surface, w, directions=2, **options)
        assert result.width[i] == widths.width.median()
        assert result.gradient_norm[i] == widths.gradient_norm
        examples = surface.replayable(None, count=EXAMPLES)
        hessian = ll.spectrum(
            surface, w, top=2, probes=1, seed=3, loader=examples, eigenvectors=True
        )
        assert float(result.eigenvalue[i]) == pytest.approx(float(hessian.eigenvalues[0]), rel=1e-4)
        assert float(result.trace[i]) == pytest.approx(hessian.trace, rel=1e-4)
        # the Hessian is that of fixed statistics, and so is the loss along its eigenvectors
        fixed = ll.Point(w.weights, {**(w.buffers or {}), **surface.refresh(w)})
        rays = {"directions": hessian, "count": EXAMPLES}
        along = ll.widths(surface, fixed, batchnorm="frozen", **rays).width.min()
        assert float(result.width_eigenvector[i]) == pytest.approx(float(along), rel=0.01)
        assert result.train_loss[i] == surface.evaluate([w], count=EXAMPLES).loss[0]
        assert result.test_loss[i] == surface.evaluate([w], run.setup.test).loss[0]


def test_the_line_goes_from_before_the_first_to_behind_the_second(run, graph):
    artifacts = ordered(sharpness_artifacts(run, sources(run), OPTIONS))
    (line,) = [each for each in artifacts if each.kind == "line-between"]
    record = graph.load(line)
    assert record.t.tolist() == [-1.0, 0.0, 1.0, 2.0]
    first = run.setup.surface.evaluate([sources(run)[0].value], count=EXAMPLES)
    assert float(record.loss[1]) == pytest.approx(float(first.loss[0]), rel=1e-5)


def test_pictures_of_each_measure_are_drawn(run, graph):
    _, *pictures = sharpness_artifacts(run, sources(run), OPTIONS)
    files = {graph.load(picture).name for picture in pictures}
    names = ["line", "rays-loss", "rays-test-error", "sharpness-average", "sharpness-sam"]
    names += ["rays-eigenvectors-first", "rays-eigenvectors-second"]
    names += ["spectrum-first", "spectrum-second"]
    assert files == {f"{name}.png" for name in names}


def test_other_options_build_what_depends_on_them(run, graph):
    changed = OPTIONS.model_copy(update={"directions": 3})
    artifacts = complete(sharpness_artifacts(run, sources(run), changed))
    needed = {each.name for each in graph.needed(artifacts)}
    assert "sharpness/first/widths" in needed
    assert "sharpness/first/sam" not in needed


def test_without_eigenvalues_and_probes_there_is_no_spectrum(run):
    without = OPTIONS.model_copy(update={"eigenvalues": 0, "probes": 0})
    artifacts = ordered(sharpness_artifacts(run, sources(run), without))
    assert not any("spectrum" in each.name for each in artifacts)
    alone = OPTIONS.model_copy(update={"probes": 0})
    names = [each.name for each in ordered(sharpness_artifacts(run, sources(run), alone))]
    assert "sharpness/first/spectrum" in names
    assert "pictures/spectrum-first" not in names


def test_a_line_needs_two_weight_vectors_that_differ(run):
    def lines(weights):
        artifacts = ordered(sharpness_artifacts(run, weights, OPTIONS))
        return [each.labels for each in artifacts if each.kind == "line-between"]

    first, second = sources(run)
    same = Source("weights/same", first.value, first.content)
    assert lines([first]) == lines([first, same]) == []
    assert lines([first, same, second]) == [("first", "second")]
