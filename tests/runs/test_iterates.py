"""The table of averaged iterates of a run."""

import pytest

from lowland.records import IterateTable
from lowland.runs.iterates import iterate_pictures


def test_its_last_row_is_that_of_the_comparison(finished):
    table = finished.load(finished.run.iterate_metrics())
    assert isinstance(table, IterateTable)
    iterates = finished.load(finished.run.averaged(0)).iterates
    assert table.step.tolist() == iterates.steps
    comparison = finished.load(finished.run.comparison())
    swa = comparison.method.index("SWA")
    last = list(table.rows())[-1]
    assert last["error_average"] == pytest.approx(1 - float(comparison.accuracy[swa]))
    assert last["nll_average"] == pytest.approx(float(comparison.nll[swa]), rel=1e-5)


def test_it_is_printed_and_written_in_four_forms_and_pictures(finished):
    table = finished.load(finished.run.iterate_metrics())
    assert str(table).splitlines()[0] in finished.out
    records = finished.folder / "records"
    assert (records / "iterates.csv").read_text() == table.to_csv()
    assert (records / "iterates.md").read_text() == table.to_markdown() + "\n"
    assert (records / "iterates.tex").read_text() == table.to_latex() + "\n"
    assert len(IterateTable.load(records / "iterates.json")) == len(table)
    pictures = {path.name for path in (finished.folder / "pictures").iterdir()}
    assert {"iterates-error.png", "iterates-nll.png"} <= pictures
    assert "iterates-rmse.png" not in pictures
    assert len(iterate_pictures(finished.run.iterate_metrics())) == 3


def test_without_the_key_there_is_none(finished):
    swa, run = finished.method("swa"), finished.run
    average = run.config.average.model_copy(update={"table": False})
    other = type(run)(run.config.model_copy(update={"average": average}), run.setup)
    assert list(swa.pictures(other)) == []
    assert list(swa.notes(other, {})) == []
