"""One configuration over many splits: one table of means, errors and paired differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from lowland.cli.repeat import summary
from lowland.records import Table
from tests.cli.inside import lowland

UCI = Path(__file__).parents[2] / "configs" / "uci.yaml"


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
    np.testing.assert_allclose(table.nll_se, nll.std(0, ddof=1) / math.sqrt(2))
    pair = nll[:, 1:] - nll[:, :1]
    differences = Table.load(out / "differences.json")
    assert differences.method == table.method[1:]
    np.testing.assert_allclose(differences.nll, pair.mean(0))
    np.testing.assert_allclose(differences.nll_se, pair.std(0, ddof=1) / math.sqrt(2))
    for shown, sign in ((table, ""), (differences, "+")):  # both are printed, with their errors
        row = next(row for row in shown.rows() if row["method"] == "SWA")
        assert f"{row['nll']:{sign}.4f}±{row['nll_se']:.4f}" in stdout
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
    found, differences = summary([Table({"method": ["a", "b"], "nll": torch.tensor([1.0, 2.0])})])
    assert found.nll_se.isnan().all()
    assert len(differences) == 0


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


def test_a_value_that_would_count_twice_is_refused(root, tmp_path):
    """It has one folder, whose run would be read again: figures without an error."""
    code, _, err = lowland(*arguments(root, tmp_path / "r", "repeat.values=[1, 0, 1]"))
    assert code == 2
    assert "repeat.values: 1 is named twice" in err
    code, _, err = lowland(
        *arguments(root, tmp_path / "r", "repeat.over=train.lr", "repeat.values=[1, 1.0]")
    )
    assert code == 2
    assert "is named twice" in err
    assert not (tmp_path / "r").exists()


def test_runs_of_neighbouring_seeds_share_no_network(root, tmp_path):
    quick = ("methods=[ensemble]", "train.epochs=1", "ensemble=2", "repeat.values=[3, 4]")
    code, _, err = lowland(*arguments(root, tmp_path / "s"), *quick, "repeat.over=seed")
    assert code == 0, err
    files = sorted((tmp_path / "s").rglob("weights/sgd-*.safetensors"))
    assert len(files) == 4
    networks = [torch.cat([w.flatten() for w in load_file(file).values()]) for file in files]
    assert len(torch.unique(torch.stack(networks), dim=0)) == 4


def test_values_are_a_number_or_a_list(root, tmp_path):
    code, _, err = lowland(*arguments(root, tmp_path / "r", "repeat.values=0"))
    assert code == 2
    assert "repeat.values" in err
    assert yaml.safe_load(UCI.read_text())["repeat"] == {"over": "data.args.split"}
