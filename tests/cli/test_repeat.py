"""One configuration over many splits: one table of means, errors and paired differences."""

import io
import math
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from lowland.cli import main
from lowland.cli.repeat import summary
from lowland.records import Table

UCI = Path(__file__).parents[2] / "configs" / "uci.yaml"


def lowland(*args):
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["lowland", *map(str, args)])
        with pytest.raises(SystemExit) as stop:
            main()
    return stop.value.code, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("uci")
    g = np.random.default_rng(0)
    x = g.normal(size=(60, 3))
    y = 50 + 4 * (x[:, 0] + 0.3 * g.normal(size=60))
    mask = np.arange(60)[None] // 6 == np.arange(2)[:, None]
    np.savez(path / "tiny.npz", x=x, y=y, test_mask=mask)
    return path


def arguments(root, out, *more):
    return (
        "run", UCI, f"data.args.root={root}", "data.args.name=tiny", f"out={out}",
        "methods=[sgd, swa, swag]", "train.epochs=6", "samples=3", "average.rank=2", *more,
    )  # fmt: skip


def test_uci_config_runs_one_split(root, tmp_path):
    """The data bring the width of the net and the target's units."""
    code, _, err = lowland(*arguments(root, tmp_path / "one", "data.args.split=1"))
    assert code == 0, err
    table = Table.load(tmp_path / "one" / "records" / "comparison.json")
    assert table.method == ["SGD", "SWA", "SWAG"]
    # a run of before there was such a key goes on, and one that is to be repeated later
    file = tmp_path / "one" / "config.yaml"
    body = yaml.safe_load(file.read_text())
    assert body["settings"].pop("repeat") is None
    file.write_text(yaml.safe_dump(body))
    code, _, err = lowland(*arguments(root, tmp_path / "one", "data.args.split=1"))
    assert code == 0, err
    # standardised targets have a spread of 1, and these one of 4
    assert 1.2 < float(table.rmse[0]) < 8


def test_all_splits_in_one_table(root, tmp_path):
    out = tmp_path / "all"
    code, stdout, err = lowland(*arguments(root, out, "repeat.values=2"))
    assert code == 0, err
    assert "Over 2 values of data.args.split" in stdout
    each = [Table.load(out / f"split-{i}" / "records" / "comparison.json") for i in range(2)]
    table = Table.load(out / "comparison.json")
    nll = np.stack([one.nll.numpy() for one in each])
    np.testing.assert_allclose(table.nll, nll.mean(0))
    np.testing.assert_allclose(table.nll_error, nll.std(0, ddof=1) / math.sqrt(2))
    pair = nll - nll[:, :1]
    np.testing.assert_allclose(table.nll_difference, pair.mean(0))
    np.testing.assert_allclose(table.nll_difference_error, pair.std(0, ddof=1) / math.sqrt(2))
    # differences of the same splits: far from what independent runs would have for an error
    assert (nll[0] != nll[1]).all()
    before = (out / "comparison.json").read_text()
    events = [(out / f"split-{i}" / "events.jsonl").read_text() for i in range(2)]
    assert lowland(*arguments(root, out, "repeat.values=2"))[0] == 0
    assert (out / "comparison.json").read_text() == before
    for i, text in enumerate(events):  # nothing was trained again
        later = (out / f"split-{i}" / "events.jsonl").read_text()
        assert later.count('"trained"') == text.count('"trained"')


def test_one_run_has_no_error():
    found = summary([Table({"method": ["a"], "nll": torch.tensor([1.0])})])
    assert found.nll_error.isnan().all()


@pytest.mark.parametrize(
    ("over", "what"),
    [("train", "a key with a value"), ("out", "a key with a value"),
     ("seed.part", "seed is not a section"), ("no.such", "there is no such key"),
     ("a b", "pattern")],
)  # fmt: skip
def test_what_cannot_be_repeated(root, tmp_path, over, what):
    code, _, err = lowland(
        *arguments(root, tmp_path / "r", f"repeat.over={over}", "repeat.values=[1]")
    )
    assert code == 2
    assert what in err


def test_values_are_a_number_or_a_list(root, tmp_path):
    code, _, err = lowland(*arguments(root, tmp_path / "r", "repeat.values=0"))
    assert code == 2
    assert "repeat.values" in err
    assert yaml.safe_load(UCI.read_text())["repeat"] == {"over": "data.args.split"}
