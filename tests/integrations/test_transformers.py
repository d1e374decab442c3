"""A real run of the Hugging Face Trainer: its folder averaged, its iterates collected, resumed."""

import doctest
import importlib
import shutil
from functools import partial

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from lowland import SWA, SWAG, ConfigError, ParamLayout, Trajectory
from lowland.integrations.transformers import FILE, CollectorCallback
from lowland.records import Table
from tests.cli.test_average import done

pytestmark = pytest.mark.integrations
logging.disable_progress_bar()

CONFIG = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "num_labels": 3,
}
ROWS, STEPS = 40, 10  # steps an epoch


class Recorder(TrainerCallback):
    """What the weights were after each step: what an average is checked against."""

    def __init__(self):
        self.after = {}

    def on_step_end(self, args, state, control, **kwargs):
        model = kwargs["model"]
        self.after[state.global_step] = ParamLayout(model).flatten(model).double()


def rows():
    g = torch.Generator().manual_seed(0)
    return [
        {"input_ids": ids, "labels": ids.sum() % 3}
        for ids in torch.randint(0, 30, (ROWS, 8), generator=g)
    ]


def train(folder, *callbacks, resume=None, epochs=4, **options):
    set_seed(0)
    model = BertForSequenceClassification(BertConfig(**CONFIG))
    defaults = {
        "output_dir": str(folder),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-3,
        "save_strategy": "epoch",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
    }
    args = TrainingArguments(**(defaults | options))
    trainer = Trainer(model=model, args=args, train_dataset=rows(), callbacks=list(callbacks))
    trainer.train(resume_from_checkpoint=resume)
    return model


def test_the_folder_that_the_trainer_writes_is_averaged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    train("run", recorder)
    out = done("run")
    assert "4 checkpoints, steps 10 to 40" in out
    model = BertForSequenceClassification.from_pretrained("averaged")
    layout = ParamLayout(model)
    exact = torch.stack([recorder.after[s] for s in (10, 20, 30, 40)]).mean(0)
    torch.testing.assert_close(layout.flatten(model).double(), exact, rtol=1e-5, atol=1e-6)
    last = BertForSequenceClassification.from_pretrained("run/checkpoint-40")
    assert not torch.allclose(layout.flatten(model), layout.flatten(last))
    swag = SWAG.load("averaged/swag.safetensors", layout=layout)
    w = torch.stack([recorder.after[s] for s in (10, 20, 30, 40)])
    torch.testing.assert_close(swag.variance.double(), w.var(0, correction=0), rtol=1e-4, atol=1e-9)
    draw = swag.posterior(scale=0.5).draw(0)
    layout.load_(model, draw)
    assert model(input_ids=rows()[0]["input_ids"][None]).logits.isfinite().all()


PROJECT = """
import torch
from transformers import BertConfig, BertForSequenceClassification

def model():
    return BertForSequenceClassification(BertConfig(**{config}))

def splits():
    g = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 30, (60, 8), generator=g)
    parts = zip(("train", "validation", "test"), ids.split(20))
    return {{name: {{"input_ids": part, "labels": part.sum(1) % 3}} for name, part in parts}}
"""


def test_averages_are_judged_on_the_users_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    train("run", epochs=3)
    (tmp_path / "bert_project.py").write_text(PROJECT.format(config=CONFIG))
    config = {"model": {"name": "bert_project:model"}, "data": {"name": "bert_project:splits"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config | {"samples": 3, "threads": 1}))
    out = done("run", "--config", "config.yaml")
    assert "BatchNorm" not in out
    table = Table.load("averaged/comparison.json")
    assert table.method == ["last checkpoint", "SWA", "SWAG"]
    test = importlib.import_module("bert_project").splits()["test"]
    for row, folder in ((0, "run/checkpoint-30"), (1, "averaged")):
        model = BertForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            logits = model(input_ids=test["input_ids"]).logits
            loss = torch.nn.functional.cross_entropy(logits, test["labels"])
        assert float(table.nll[row]) == pytest.approx(float(loss), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_models_in_several_files_with_tied_weights(tmp_path, dtype):
    states = []
    for step in (9, 10, 11):
        set_seed(step)
        model = BertForMaskedLM(BertConfig(**CONFIG)).to(dtype)
        model.save_pretrained(tmp_path / "run" / f"checkpoint-{step}", max_shard_size="5KB")
        states.append(ParamLayout(model).flatten(model).double())
    assert (tmp_path / "run" / "checkpoint-9" / "model.safetensors.index.json").is_file()
    done(tmp_path / "run", "--out", tmp_path / "out", "--no-swag")
    model = BertForMaskedLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == dtype
    found = ParamLayout(model).flatten(model).double()
    wide = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found, torch.stack(states).mean(0), rtol=wide, atol=1e-6)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_callback_takes_what_it_says(tmp_path):
    recorder = Recorder()
    callback = CollectorCallback(SWA, partial(SWAG, rank=2), tmp_path / "walk", start=0.5)
    model = train(tmp_path / "run", recorder, callback)
    swa, swag, walk = callback.targets
    assert walk.steps == [20, 30, 40]
    w = torch.stack([recorder.after[s] for s in walk.steps])
    torch.testing.assert_close(swa.mean.double(), w.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swag.variance.double(), w.var(0, correction=0), rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(walk[2].weights, ParamLayout(model).flatten(model))
    saved = load_file(tmp_path / "run" / "checkpoint-40" / FILE)
    assert any(torch.equal(t, swa.mean) for t in saved.values())


def test_accumulated_batches_are_one_step(tmp_path):
    callback = CollectorCallback(tmp_path / "walk", start=0.0)
    train(tmp_path / "run", callback, gradient_accumulation_steps=3, epochs=2)
    assert callback.targets[0].steps == [4, 8]


@pytest.mark.parametrize("stop", [23, 30])  # in mid-epoch, and at an end
def test_a_run_that_is_stopped_goes_on_with_what_was_collected(tmp_path, stop):
    def callback(folder):
        return CollectorCallback(SWAG, folder / "walk", start=0.4, every_steps=3)

    options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 100}
    whole = callback(tmp_path / "whole")
    model = train(tmp_path / "whole" / "run", whole, **options)
    # as a kill leaves it: the store has gone on after the checkpoint that the run resumes from
    shutil.copytree(tmp_path / "whole", tmp_path / "b")
    again = callback(tmp_path / "b")
    resume = str(tmp_path / "b" / "run" / f"checkpoint-{stop}")
    resumed = train(tmp_path / "b" / "run", again, resume=resume, **options)
    for mine, theirs in zip(resumed.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert again.targets[0].count == whole.targets[0].count == 8
    assert again.targets[1].steps == whole.targets[1].steps
    for name in ("mean", "variance", "deviations"):
        a, b = (getattr(c.targets[0], name) for c in (again, whole))
        torch.testing.assert_close(a, b)
    assert len(Trajectory.open(tmp_path / "b" / "walk")) == 8


def test_a_checkpoint_from_before_the_callback_is_reported(tmp_path):
    train(tmp_path / "run", epochs=4)
    callback = CollectorCallback(SWA, start=0.25)
    with pytest.warns(UserWarning, match="after step 30 .* the averages begin anew"):
        train(tmp_path / "run", callback, resume=str(tmp_path / "run" / "checkpoint-30"))
    assert callback.targets[0].count == 1


class Stops(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 10


def test_the_end_of_training_shows_what_was_collected(tmp_path, capsys):
    train(tmp_path / "run", CollectorCallback(start=0.5))
    assert "3 iterates were collected, from step 20 to step 40." in capsys.readouterr().out
    with pytest.warns(UserWarning, match=r"ended at 25% of its budget, before start=0\.75"):
        train(tmp_path / "stopped", CollectorCallback(), Stops())


def test_data_without_a_length_need_steps(tmp_path):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(rows())

    def run(callback):
        args = TrainingArguments(
            output_dir=str(tmp_path / "run"),
            max_steps=6,
            per_device_train_batch_size=4,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        model = BertForSequenceClassification(BertConfig(**CONFIG))
        Trainer(model=model, args=args, train_dataset=Stream(), callbacks=[callback]).train()

    with pytest.raises(ConfigError, match=r"no length.*give every_steps"):
        run(CollectorCallback())
    callback = CollectorCallback(SWA, start=0.5, every_steps=1)
    run(callback)
    assert callback.targets[0].count == 4


def test_its_example():
    module = importlib.import_module("lowland.integrations.transformers")
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
