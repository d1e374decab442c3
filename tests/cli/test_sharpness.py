"""`lowland sharpness`: the measures at the weights of a run."""

import pytest
import torch

from lowland.artifacts import Source
from lowland.cli.sharpness import default_weights, distinct
from lowland.core import Point
from lowland.records import Table
from lowland.runs.folder import RunFolder
from tests.cli.conftest import copy_of_two_runs
from tests.cli.inside import lowland

SHORT = ["--kinds", "average", "--eigenvalues", 1, "--probes", 1, "--directions", 2, "--points", 4]
SHORT += ["--examples", 60]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of SGD and SWAG, to write into."""
    return copy_of_two_runs(tmp_path_factory) / "r0"


def test_a_run_is_measured_and_measured_again(finished):
    words = ["--weights", "sgd-0,average-0", *SHORT]
    code, out, err = lowland("sharpness", finished, *words, pictures=True)
    assert code == 0, err
    assert "Sharpness on 60 training examples" in out
    assert "Radii: average 0.01. Widths: where the loss has risen by 0.1 nats" in out
    folder = finished / "sharpness"
    table = Table.load(folder / "records/sharpness.json")
    assert list(table.method) == ["sgd-0", "average-0"]
    metrics = ("average", "eigenvalue", "trace", "width_eigenvector", "width_swag")
    assert all(table.columns[name].isfinite().all() for name in metrics)
    names = {path.name for path in (folder / "pictures").iterdir()}
    expected = ["line", "rays-loss", "rays-test-error", "sharpness-average"]
    expected += ["rays-eigenvectors-average-0", "rays-eigenvectors-sgd-0"]
    expected += ["rays-swag-loss", "rays-swag-test-error"]
    expected += ["spectrum-average-0", "spectrum-sgd-0"]
    assert names == {f"{name}.png" for name in expected}
    # on to the end at once: everything is in the folder
    code, again, err = lowland("sharpness", finished, *words)
    assert code == 0, err
    assert "average: sgd-0" not in again
    _, out, _ = lowland("status", finished)
    assert "sharpness/" in out


def test_equal_weights_are_measured_once():
    """As where a run's average is its SGD solution."""
    one, other = torch.zeros(3), torch.ones(3)
    weights = {"sgd-0": one, "average-0": one.clone(), "ema-0": other, "sgd-1": other.clone()}
    sources = [Source(f"weights/{n}", Point(w), {}) for n, w in weights.items()]
    different, equal = distinct(sources)
    assert [each.name for each in different] == ["weights/sgd-0", "weights/ema-0"]
    assert equal == {"average-0": "sgd-0", "sgd-1": "ema-0"}


def test_by_default_networks_are_those_that_are_trained_to_the_end_and_averages(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "weights").mkdir()
    for name in ("average-0", "average-1", "prefix-0", "sgd-0", "sgd-1", "swa-0"):
        (tmp_path / "weights" / f"{name}.safetensors").touch()
    assert default_weights(folder) == ["sgd-0", "average-0", "sgd-1"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--weights", "sgd-7"], "no weights 'sgd-7'; there are"),
        (["--trajectory", "fge-9"], "fge-9"),
        (["--directions", 0], "--directions"),
        (["--kinds", "flat"], "expected 'keskar', 'sam'"),
    ],
)
def test_what_does_not_fit_is_refused(finished, tmp_path, words, error):
    code, _, err = lowland("sharpness", finished, *SHORT, *words, "--out", tmp_path / "out")
    assert code == 2
    assert error in err
    assert not (tmp_path / "out").exists()
