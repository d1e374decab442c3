"""What methods reach for what they cost: one table, two pictures, and no training twice."""

import csv
import json
import math

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from lowland.cli.budget import cost_table
from lowland.cli.repeat import summary
from lowland.records import Table
from lowland.zoo import ConvNet
from tests.cli.conftest import CONFIG
from tests.cli.forked import lowland as forked
from tests.cli.inside import lowland as inside
from tests.cli.shared import copy_of

METHODS = ["sgd", "temperature", "swa", "swag", "ensemble"]
BUDGET = CONFIG | {"methods": METHODS, "ensemble": 2}
QUICK = ("repeat.values=2", "budget=[1, 1.25]")
ROWS = [  # label, epochs, forward passes
    ("SGD", 4, 1),
    ("SGD + temperature scaling", 4, 1),
    ("SWA", 4, 1),
    ("SWA 1.25", 5, 1),
    ("SWAG", 4, 3),
    ("SWAG 1.25", 5, 3),
    ("Deep ensemble of 2", 8, 2),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(BUDGET))
    return path


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """The folder of two runs that nobody stopped, and what was printed."""

    def make(folder):
        code, out, err = inside("budget", config, f"out={folder / 'both'}", *QUICK, pictures=True)
        assert code == 0, err
        (folder / "stdout.txt").write_text(out)

    folder = copy_of(tmp_path_factory, "budget", make)
    return folder / "both", (folder / "stdout.txt").read_text()


def rows_of(folder):
    with open(folder / "budget" / "table.csv", newline="", encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_each_method_is_charged_what_it_costs(finished):
    costs = [(n, float(r["epochs"]), float(r["samples"])) for n, r in rows_of(finished[0]).items()]
    assert costs == ROWS


def test_means_errors_and_paired_differences_are_those_of_the_runs(finished):
    runs = [Table.load(finished[0] / f"seed-{i}/records/comparison.json") for i in range(2)]
    rows = list(rows_of(finished[0]).values())
    for name in ("accuracy", "nll"):
        values = np.stack([run.columns[name].numpy() for run in runs])
        pairs = values - values[:, :1]
        for column, each in ((name, values), (f"{name}_difference", pairs)):
            for i, row in enumerate(rows):
                if each is pairs and i == 0:
                    assert row[column] == row[f"{column}_se"] == "nan"
                    continue
                assert float(row[column]) == pytest.approx(each[:, i].mean(), abs=1e-12)
                error = each[:, i].std(ddof=1) / math.sqrt(2)
                assert float(row[f"{column}_se"]) == pytest.approx(error, abs=1e-12)


def test_the_table_is_printed_and_written_in_three_forms(finished):
    folder, stdout = finished
    swa = rows_of(folder)["SWA"]
    texts = [
        f"{float(swa['nll']):.4f} ± {float(swa['nll_se']):.4f}",
        f"{float(swa['nll_difference']):+.4f} ± {float(swa['nll_difference_se']):.4f}",
    ]
    markdown = (folder / "budget/table.md").read_text(encoding="utf-8")
    latex = (folder / "budget/table.tex").read_text(encoding="utf-8")
    assert "| method | accuracy | NLL | accuracy - SGD | NLL - SGD | epochs |" in markdown
    assert len(markdown.splitlines()) == 2 + len(ROWS)
    assert len(latex.splitlines()) == 6 + len(ROWS)
    for text in texts:
        assert text.replace(" ± ", "±") in stdout
        assert f"| {text} |" in markdown
        assert f"& ${text.replace('±', chr(92) + 'pm')}$ &" in latex
    pictures = [folder / "budget" / f"{cost}-cost.png" for cost in ("training", "prediction")]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_each_column_stands_before_its_errors(finished):
    """Also those of differences, of which the first row has none."""
    metrics = "accuracy", "nll", "accuracy_difference", "nll_difference"
    expected = [column for name in metrics for column in (name, f"{name}_se")]
    assert list(rows_of(finished[0])["SGD"])[:9] == ["method", *expected]


def test_methods_share_their_trainings(finished):
    for i in range(2):
        lines = (finished[0] / f"seed-{i}" / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        names = [e["artifact"] for e in events if e["event"] == "building"]
        trained = sorted(name for name in names if name.startswith("train/"))
        assert trained == ["train/sgd-0", "train/sgd-1", "train/swa-0", "train/swa@1.25-0"]


def test_a_folder_is_read_and_nothing_is_built(finished, tmp_path):
    folder, stdout = finished
    before = {p: p.read_bytes() for p in (folder / "budget").iterdir()}
    events = (folder / "seed-0" / "events.jsonl").read_bytes()
    code, out, err = inside("budget", folder, pictures=True)
    assert code == 0, err
    assert out.splitlines()[0] in stdout
    assert {p: p.read_bytes() for p in (folder / "budget").iterdir()} == before
    assert (folder / "seed-0" / "events.jsonl").read_bytes() == events
    # one run has no errors
    code, out, err = inside("budget", folder / "seed-0")
    assert code == 0, err
    assert "no standard errors" in out.replace("\n", " ")
    row = rows_of(folder / "seed-0")["SWA"]
    assert set(row) == {"method", "accuracy", "nll", "epochs", "samples"}


def test_stopped_twice_and_started_again_it_ends_with_the_same_table(finished, config, tmp_path):
    words = "budget", config, f"out={tmp_path / 'stopped'}", *QUICK
    for stop in (("step", 30, "SIGKILL"), ("after-replace", 60, "SIGKILL")):
        code, _, err = forked(*words, event=stop, folder=tmp_path)
        assert code == -9, err
        assert not (tmp_path / "stopped" / "budget").exists()
    code, _, err = inside(*words)
    assert code == 0, err
    for name in ("comparison.json", "differences.json", "budget/table.csv", "budget/table.tex"):
        assert (tmp_path / "stopped" / name).read_bytes() == (finished[0] / name).read_bytes()


def test_one_value_has_no_errors_and_no_differences_of_before(config, tmp_path):
    quick = "methods=[sgd, swa]", "train.epochs=2", f"out={tmp_path / 'o'}"
    code, _, err = inside("budget", config, *quick, "repeat.values=2")
    assert code == 0, err
    assert (tmp_path / "o/differences.json").is_file()
    code, out, err = inside("budget", config, *quick, "repeat.values=1")
    assert code == 0, err
    assert "One run: no standard errors" in out
    assert not (tmp_path / "o/differences.json").exists()
    assert set(rows_of(tmp_path / "o")["SWA"]) == {"method", "accuracy", "nll", "epochs", "samples"}


def test_a_pretrained_network_costs_no_training(tmp_path):
    file = tmp_path / "net.safetensors"
    torch.manual_seed(0)
    save_file(ConvNet(widths=[4], classes=10).state_dict(), file)
    body = BUDGET | {"methods": ["pretrained", "sgd", "swag"], "start_from": str(file)}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(body | {"average": {"rank": 2, "scales": [0.5]}}))
    settings = "train.epochs=20", "train.lr=0.02", "repeat={over: seed, values: [3]}"
    code, _, err = inside("budget", config, f"out={tmp_path / 'o'}", *settings)
    assert code == 0, err
    rows = rows_of(tmp_path / "o")
    costs = {name: (float(r["epochs"]), float(r["tuning_epochs"])) for name, r in rows.items()}
    # SWAG: SGD, its last two epochs at another learning rate, and four trials of a step
    steps = 6  # of an epoch of 179 examples
    trials = 4 * int(0.0125 * 20 * steps) / steps
    assert costs["Pretrained"] == (0, 0)
    assert costs["SGD"] == (20, 0)
    assert costs["SWAG"] == pytest.approx((22 + trials, 2 + trials))
    assert rows["Pretrained"]["samples"] == "1.0"


def test_costs_that_vary_have_errors_and_methods_of_a_part_of_the_runs_no_difference():
    runs = [
        Table(
            {
                "method": ["SGD", "FGE"][: 2 - i],
                "rmse": torch.tensor([1.0, 0.5], dtype=torch.float64)[: 2 - i] + i,
                "samples": torch.tensor([1.0 + 2 * i, 3.0], dtype=torch.float64)[: 2 - i],
            }
        )
        for i in range(2)
    ]
    table = cost_table(*summary(runs))
    assert table.samples.tolist() == [2, 3]
    assert table.samples_se[0] == 1
    assert table.samples_se[1].isnan()
    assert table.rmse.tolist() == [1.5, 0.5]
    assert "rmse_difference" not in table.columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods=[sgd, swagg]"], "swagg"),
        (["budget=[1, 0.5]"], "average.budget"),
        (["budget=1.1"], "no whole epoch longer"),
        (["repeat.over=nothing"], "there is no such key"),
        (["methods=[sgd, pretrained]"], "pretrained needs start_from"),
    ],
    ids=["method", "budget-below-start", "budget-too-near", "key", "pretrained"],
)
def test_what_cannot_be_run_is_refused_before_any_training(config, tmp_path, words, message):
    code, _, err = inside("budget", config, f"out={tmp_path / 'o'}", *words)
    assert code == 2
    assert message in err
    assert not list(tmp_path.rglob("train-*"))


def test_a_folder_that_holds_no_table_or_gets_settings_is_refused(finished, tmp_path):
    code, _, err = inside("budget", tmp_path)
    assert code == 2
    assert "holds no comparison.json" in err
    (tmp_path / "records").mkdir()  # as `lowland compare` has it: without costs
    Table.from_rows([{"method": "SGD", "nll": 1.0}]).save(tmp_path / "records/comparison.json")
    code, _, err = inside("budget", tmp_path)
    assert code == 2
    assert "with costs" in err
    code, _, err = inside("budget", finished[0], "seed=1")
    assert code == 2
    assert "leave out seed=1" in err
    code, _, err = inside("budget", tmp_path / "no.yaml")
    assert code == 2
    assert "no such configuration" in err
