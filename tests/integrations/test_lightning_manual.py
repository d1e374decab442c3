"""Lightning with manual optimization, several optimizers, and other ways of stepping."""

import itertools
import logging

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.nn.functional import cross_entropy

from lowland import SWA, SWAG, ConfigError, ParamLayout
from lowland.integrations.lightning import CollectorCallback
from tests.integrations.test_lightning import BATCHES, Rows
from tests.integrations.test_lightning import pytestmark as marks

pytestmark = [
    *marks,
    pytest.mark.filterwarnings("ignore:.*have no `val_dataloader`"),
    pytest.mark.filterwarnings("ignore:.*configure_optimizers. returned .None."),
]


class Manual(lightning.LightningModule):
    """Two halves, each with an optimizer of its own; `how` says who steps, and when."""

    def __init__(self, how="both"):
        super().__init__()
        self.how = how
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 3)
        if how == "own":
            self.own = [self.make(self.first), self.make(self.second)]

    @staticmethod
    def make(part):
        return torch.optim.SGD(part.parameters(), lr=0.1)

    def configure_optimizers(self):
        if self.how == "own":
            return None
        return [self.make(self.first), self.make(self.second)]

    def training_step(self, batch, index):
        x, y = batch
        if self.how == "own":
            first, second = self.own
        else:
            first, second = self.optimizers(use_pl_optimizer=self.how != "raw")
        self.manual_loss = cross_entropy(self.second(self.first(x).relu()), y)
        (self.manual_loss / (4 if self.how == "accumulated" else 1)).backward()
        if self.how == "accumulated" and (index + 1) % 4:
            return
        stepping = {"alternating": [(first, second)[index % 4 == 3]], "still": []}
        for optimizer in stepping.get(self.how, [first, second]):
            optimizer.step()
        self.zero_grad()


class Automatic(Manual):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = True

    def configure_optimizers(self):
        return self.make(self)

    def training_step(self, batch, index):
        if isinstance(batch, dict):
            batch = batch["a"]
        return cross_entropy(self.second(self.first(batch[0]).relu()), batch[1])

    def validation_step(self, batch, index):
        self.log("loss", self.training_step(batch, index))


class Recorder(lightning.Callback):
    """The weights at the end of every batch."""

    def __init__(self, part=None):
        self.part = part
        self.after = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        net = pl_module if self.part is None else getattr(pl_module, self.part)
        self.after.append(ParamLayout(net).flatten(net).double())


def fit(folder, module, *callbacks, resume=None, loader=None, validation=None, **options):
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **({"enable_checkpointing": False} | options),
    )
    trainer.fit(module, loader or Rows(), validation, ckpt_path=resume)
    return trainer


def module_of(how):
    lightning.seed_everything(0, verbose=False)
    return Manual(how)


def same(average, iterates):
    torch.testing.assert_close(average.mean.double(), torch.stack(iterates).mean(0))
    assert average.count == len(iterates)


def test_a_budget_of_steps_of_two_optimizers_is_one_of_batches(tmp_path):
    """The twin counts batches against a budget of both optimizers' steps: it takes one of six."""
    recorder, callback = Recorder(), CollectorCallback(SWA, tmp_path / "walk", every_steps=1)
    trainer = fit(tmp_path, module_of("both"), recorder, callback, max_steps=40)
    assert trainer.global_step == 40
    assert len(recorder.after) == 20
    swa, walk = callback.targets
    assert walk.steps == [30, 32, 34, 36, 38, 40]  # Lightning's own numbers
    same(swa, recorder.after[14:])


@pytest.mark.parametrize("how", ["raw", "own"])
def test_optimizers_that_lightning_does_not_see_step_are_counted(tmp_path, how):
    recorder, callback = Recorder(), CollectorCallback(SWA, tmp_path / "walk", start=0.5)
    trainer = fit(tmp_path, module_of(how), recorder, callback, max_epochs=4)
    assert trainer.global_step == 0
    swa, walk = callback.targets
    assert walk.steps == [2 * BATCHES, 3 * BATCHES, 4 * BATCHES]
    same(swa, [recorder.after[n * BATCHES - 1] for n in (2, 3, 4)])


@pytest.mark.parametrize(
    ("options", "steps"),
    [({}, [4, 6, 8]), ({"every_steps": 1}, [4, 5, 6, 7, 8]), ({"every_steps": 3}, [6])],
    ids=str,
)
def test_batches_that_are_accumulated_by_hand_are_one_step(tmp_path, options, steps):
    recorder = Recorder("first")
    callback = CollectorCallback(SWA, tmp_path / "walk", module="first", start=0.5, **options)
    fit(tmp_path, module_of("accumulated"), recorder, callback, max_epochs=4)
    swa, walk = callback.targets
    assert len(walk) == len(steps)
    same(swa, [recorder.after[4 * n - 1] for n in steps])


def test_steps_of_another_network_are_none_of_this_one(tmp_path):
    """As with a generator whose critic steps three times as often."""
    recorder = Recorder("second")
    callback = CollectorCallback(SWA, module="second", start=0.5, every_steps=1)
    fit(tmp_path, module_of("alternating"), recorder, callback, max_epochs=4)
    moved = [3, *(i for i in range(4, 32) if not torch.equal(*recorder.after[i - 1 : i + 1]))]
    assert moved == list(range(3, 32, 4))
    same(callback.targets[0], [recorder.after[i] for i in moved if i + 1 >= 16])


def test_accumulation_that_changes_between_epochs(tmp_path):
    recorder, callback = Recorder(), CollectorCallback(SWA, tmp_path / "walk", start=0.5)
    schedule = GradientAccumulationScheduler({0: 1, 2: 4})
    trainer = fit(tmp_path, Automatic(), recorder, callback, schedule, max_epochs=4)
    assert trainer.global_step == 8 + 8 + 2 + 2
    assert callback.targets[1].steps == [16, 18, 20]


def test_a_run_without_end_needs_a_start_of_zero(tmp_path):
    class Stops(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step == 20

    with pytest.raises(ConfigError, match=r"no budget, so that start=0.75 .* or start=0"):
        fit(tmp_path, Automatic(), Stops(), CollectorCallback(), max_epochs=-1)
    callback = CollectorCallback(SWA, tmp_path / "walk", start=0)
    fit(tmp_path, Automatic(), Stops(), callback, max_epochs=-1)
    assert callback.targets[1].steps == [8, 16]
    callback = CollectorCallback(SWA, tmp_path / "other")
    fit(tmp_path, Automatic(), callback, max_epochs=-1, max_steps=16)
    assert callback.targets[1].steps == [16]


class Endless:
    """Batches without a length."""

    def __iter__(self):
        return itertools.cycle(Rows().batches)


def test_data_without_a_length(tmp_path):
    with pytest.raises(ConfigError, match=r"no length.*every_steps="):
        fit(tmp_path, Automatic(), CollectorCallback(), loader=Endless(), max_steps=10)
    callback = CollectorCallback(tmp_path / "walk", every_steps=2)
    fit(tmp_path, Automatic(), callback, loader=Endless(), max_steps=10)
    assert callback.targets[0].steps == [8, 10]


def test_several_loaders_and_validation_in_between(tmp_path):
    recorder, callback = Recorder(), CollectorCallback(SWA, tmp_path / "walk", start=0.5)
    module = Automatic()
    trainer = fit(
        tmp_path,
        module,
        recorder,
        callback,
        loader={"a": Rows(), "b": Rows()},
        validation=Rows(),
        val_check_interval=3,
        max_epochs=4,
    )
    assert callback.targets[1].steps == [16, 24, 32]
    same(callback.targets[0], [recorder.after[i - 1] for i in (16, 24, 32)])
    trainer.validate(module, Rows(), verbose=False)  # and one alone
    assert callback.targets[0].count == 3


class Saves(lightning.Callback):
    """Lightning's own saves nothing where it has seen no step."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"{trainer.current_epoch}.ckpt")


@pytest.mark.parametrize("how", ["both", "raw"])
def test_a_stopped_run_goes_on(tmp_path, how):
    def run(folder, resume=None):
        callback = CollectorCallback(SWAG, folder / "walk", start=0.4, every_steps=3)
        options = {"max_epochs": 4, "resume": resume}
        fit(folder, module_of(how), callback, Saves(folder), **options)
        return callback

    whole = run(tmp_path)
    resumed = run(tmp_path, tmp_path / "1.ckpt")
    assert resumed.targets[0].count == whole.targets[0].count == 6
    assert resumed.targets[1].steps == whole.targets[1].steps
    torch.testing.assert_close(resumed.targets[0].mean, whole.targets[0].mean)


def test_a_second_fit_goes_on(tmp_path):
    module, callback = module_of("both"), CollectorCallback(SWA, tmp_path / "walk", start=0.5)
    trainer = fit(tmp_path, module, callback, max_epochs=2)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(module, Rows())
    assert callback.targets[1].steps == [16, 32, 48, 64]


def test_the_end_of_a_fit_shows_what_was_collected(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        fit(tmp_path, module_of("both"), CollectorCallback(start=0.5), max_epochs=4)
    assert "3 iterates were collected, from step 32 to step 64." in caplog.text
    with pytest.warns(UserWarning, match="never moved .* an optimizer steps the parameters"):
        fit(tmp_path, module_of("still"), CollectorCallback(start=0.5), max_epochs=2)
    with pytest.warns(UserWarning, match="1 iterate was collected, at step 16. SWAG needs two"):
        fit(tmp_path, Automatic(), CollectorCallback(), max_epochs=2)
    fit(tmp_path, Automatic(), CollectorCallback(SWA), max_epochs=2)  # an average of one is one
    with pytest.warns(UserWarning, match="with every_steps=30, none of the 16 .* was due"):
        fit(tmp_path, Automatic(), CollectorCallback(every_steps=30), max_epochs=2)

    class Stops(lightning.Callback):
        def on_train_batch_end(self, trainer, *args):
            trainer.should_stop = trainer.global_step == 8

    with pytest.warns(UserWarning, match="ended at 25% of its budget, before start=0.75"):
        fit(tmp_path, Automatic(), CollectorCallback(), Stops(), max_epochs=4)
