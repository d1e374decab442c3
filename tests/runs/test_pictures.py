"""Pictures: drawn from records, and left out where there is nothing to draw."""

import pytest
import torch

from lowland import plots
from lowland.artifacts import Graph
from lowland.runs.pictures import Picture, TrainingCurves, chain_pictures, training_picture


@pytest.mark.parametrize("axes", ["axes", None])
def test_a_picture_is_a_file_or_nothing(axes, tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "save", lambda result, path: path.write_text(result))
    graph, picture = Graph(tmp_path), Picture("drawing", [], lambda: axes, labels=["a"])
    graph.build([picture])
    path = graph.load(picture)
    assert (path is None) == (axes is None)
    assert (tmp_path / "pictures" / "drawing.png").is_file() == (axes is not None)


def test_the_finished_run_has_its_pictures(finished):
    names = {path.name for path in (finished.folder / "pictures").iterdir()}
    expected = {"training.png", "nll-by-samples.png", "reliability.png", "growth.png"}
    assert names >= expected | {"posterior.png", "trace.png", "rank.png"}


def test_training_curves_end_with_the_loss_of_the_average(finished):
    setup = finished.run.setup
    curves = TrainingCurves(finished.run)
    log = finished.load(curves)
    average = finished.load(finished.run.average(0, "swa"))
    expected = float(setup.surface(average, loader=setup.validation))
    assert float(log.averages["SWA"]["nll"][-1]) == pytest.approx(expected, rel=1e-5)
    assert set(log.averages) == {"SWA", "EMA", "SGD, annealed"}
    assert torch.isfinite(log.columns["nll"]).all()


def test_a_chain_without_a_plane_has_two_pictures(finished):
    names = [each.name for each in chain_pictures(finished.run.chain(), None)]
    assert names == ["pictures/trace", "pictures/rank"]


@pytest.mark.parametrize("batchnorm", [False, True])
def test_the_training_picture_names_the_statistics_of_its_lines(batchnorm, finished, monkeypatch):
    surface = type(finished.run.setup.surface)
    monkeypatch.setattr(surface, "has_batchnorm", batchnorm)
    picture = training_picture(finished.run)
    title = picture.draw(finished.load(TrainingCurves(finished.run))).get_title(loc="left")
    assert picture.settings["labels"] == ([title] if batchnorm else [])
    assert ("running BatchNorm statistics" in title) == batchnorm
