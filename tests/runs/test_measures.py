"""Measures at the weights of a run are those of the library, and keep what rays need."""

import lowland as ll
from lowland.artifacts import Graph, Source
from lowland.runs.measures import EIGENVECTORS, Spectrum, SWAGWidths
from lowland.runs.sources import hash_of
from tests.runs.test_segments import run_of
from tests.runs.test_sharpness import EXAMPLES, OPTIONS, sources


def test_rays_along_swag_are_those_of_the_library(tmp_path):
    run = run_of(0.05)
    surface = run.setup.surface
    swag = ll.SWAG(surface.layout, rank=3)
    for i in range(4):
        swag.update(run.setup.model(i))
    source = Source("swag/swa-0", swag, {"hash": hash_of(swag.deviations)})
    measure = SWAGWidths(run, sources(run)[0], OPTIONS, source)
    graph = Graph(tmp_path)
    graph.build([measure])
    expected = ll.widths(surface, measure.weights.value, directions=swag, count=EXAMPLES)
    assert graph.load(measure).width.tolist() == expected.width.tolist()


def test_a_spectrum_comes_back_with_its_eigenvectors(tmp_path):
    run = run_of(0.05)
    for count in (0, 2):
        options = OPTIONS.model_copy(update={"eigenvalues": count, "probes": 1})
        measure = Spectrum(run, sources(run)[0], options)
        graph = Graph(tmp_path / str(count))
        graph.build([measure])
        result = graph.load(measure)
        assert len(result.eigenvalues) == count
        assert len(list((tmp_path / str(count)).rglob(EIGENVECTORS))) == bool(count)
        if count:
            gram = result.eigenvectors @ result.eigenvectors.T
            assert abs(gram - gram.new_tensor([[1, 0], [0, 1]])).max() < 1e-5
