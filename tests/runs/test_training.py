"""Trainings of a configuration: optimizers and schedules by name, SAM, and what they cost."""

import json

import pytest
import torch
import yaml
from torch import nn

from lowland.errors import ConfigError
from lowland.records import Table
from lowland.runs.config import check_config
from lowland.runs.plan import RunPlan
from lowland.runs.results import Results
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.runs.training import Training, fit_values, optimizer_of, schedule_of
from lowland.runs.training_sections import Train
from lowland.train import sgd
from tests.cli.inside import lowland
from tests.runs.conftest import CONFIG
from tests.runs.test_segments import run_of


def test_the_default_is_sgd_with_its_momentum():
    (group,) = optimizer_of(Train(lr=0.2, momentum=0.7))(
        [nn.Parameter(torch.zeros(2))]
    ).param_groups
    assert (group["lr"], group["momentum"], group["fused"]) == (0.2, 0.7, True)


def test_another_optimizer_and_schedule_are_taken_by_name():
    train = Train(
        optimizer="AdamW",
        optimizer_args={"betas": [0.8, 0.9]},
        lr=0.01,
        schedule="cosine",
        warmup=0.2,
    )
    optimizer = optimizer_of(train)([nn.Parameter(torch.zeros(2))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert tuple(optimizer.param_groups[0]["betas"]) == (0.8, 0.9)
    schedule = schedule_of(train, 100)(optimizer)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(0.01 / 21)  # a warm-up of 20 steps
    assert max(rates) == pytest.approx(0.01)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "AdamV"}, "did you mean"),
        ({"optimizer": "AdamW", "optimizer_args": {"beta": 1}}, "beta"),
        ({"schedule": "cosin"}, "did you mean"),
    ],
)
def test_other_names_are_refused(changes, words):
    make = schedule_of if "schedule" in changes else optimizer_of
    arguments = (Train(**changes), 10) if "schedule" in changes else (Train(**changes),)
    with pytest.raises(ConfigError, match=words):
        make(*arguments)


def test_a_run_with_adamw(tmp_path):
    own = CONFIG | {
        "methods": ["sgd", "swa"],
        "train": {
            "epochs": 4,
            "batch_size": 60,
            "optimizer": "AdamW",
            "lr": 0.01,
            "schedule": "cosine",
            "warmup": 0.1,
        },
        "average": {"lr": 0.005, "start": 0.5},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(own))
    code, out, err = lowland("run", tmp_path / "config.yaml", f"out={tmp_path / 'r'}")
    assert code == 0, err
    code, out, err = lowland(
        "run", tmp_path / "config.yaml", f"out={tmp_path / 'r'}", "train.optimizer=Adam"
    )
    assert "train/sgd-0 is built again (train.optimizer: AdamW there, Adam now" in out


def test_a_run_with_sam_trains_by_it_and_is_charged_twice(tmp_path):
    own = CONFIG | {"methods": ["sgd", "swa"], "train": CONFIG["train"] | {"sam": 0.05}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(own))
    code, out, err = lowland("run", tmp_path / "config.yaml", f"out={tmp_path / 'r'}")
    assert code == 0, err
    assert "train.sam: a step takes two passes" in out
    table = Table.load(tmp_path / "r" / "records" / "comparison.json")
    assert table.epochs.tolist() == [8.0, 8.0]
    choice = json.loads((tmp_path / "r" / "best" / "best.json").read_text())
    assert choice["training"] == 1.0  # of SGD's, which is by SAM as well
    config = check_config(own, where="here")
    setup = Setup(config, RunPlan.read(tmp_path / "r" / "plan.json"))
    network = setup.model(0)
    log = sgd(
        network,
        setup.task,
        setup.batches(setup.seed(0)),
        epochs=4,
        optimizer=optimizer_of(config.train),
        schedule=schedule_of(config.train, 24),
        seed=setup.seed(0),
        sam=0.05,
    )
    trained = Results(Run(config, setup), tmp_path / "r").load(Run(config, setup).annealed(0))
    assert torch.equal(trained.log.columns["loss"], log.columns["loss"])
    assert torch.equal(trained.point.weights, setup.layout.flatten(network))


def test_trials_and_segments_of_sam_are_charged_twice_and_shapes_are_fitted_without():
    plain, sharp = (
        run_of(
            methods=["sgd", "swa", "espro"],
            train=CONFIG["train"] | {"sam": rho, "sam_adaptive": rho is not None},
        )
        for rho in (None, 0.05)
    )
    for one, other in zip(plain.methods, sharp.methods, strict=True):
        for a, b in zip(one.parts(plain), other.parts(sharp), strict=True):
            if isinstance(a.artifact, Training):
                assert b.artifact.passes({}) == 2 * a.artifact.passes({})
            assert a.artifact.fingerprint != b.artifact.fingerprint
    assert fit_values(plain.config) == fit_values(sharp.config)
