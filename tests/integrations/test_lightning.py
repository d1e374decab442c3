"""A real Lightning run: its checkpoints averaged, its iterates collected, stopped and resumed."""

import doctest
import importlib
import shutil
from functools import partial

import lightning
import pytest
import torch
from lightning.pytorch import callbacks
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from safetensors.torch import load_file
from torch import nn

from lowland import SWA, SWAG, ConfigError, ParamLayout, Trajectory
from lowland.integrations.lightning import CollectorCallback
from tests.cli.test_average import done

pytestmark = [
    pytest.mark.integrations,
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),  # Lightning's own use
]

BATCHES = 8


class Module(lightning.LightningModule):
    """A network with BatchNorm, and a loss with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))

    def training_step(self, batch, index):
        return self.loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


class Recorder(lightning.Callback):
    """What the weights were after each batch: what an average is checked against."""

    def __init__(self):
        self.after = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        layout = ParamLayout(pl_module.net)
        self.after[trainer.global_step] = layout.flatten(pl_module.net).double()


class Rows:
    """Batches in a fixed order, which a checkpoint in mid-epoch remembers the place in."""

    def __init__(self):
        g = torch.Generator().manual_seed(0)
        x = torch.randn(8 * BATCHES, 4, generator=g)
        self.batches = list(zip(x.split(8), x[:, :3].argmax(1).split(8), strict=True))
        self.place = 0

    def __len__(self):
        return BATCHES

    def __iter__(self):
        self.place %= BATCHES
        while self.place < BATCHES:
            self.place += 1
            yield self.batches[self.place - 1]

    def state_dict(self):
        return {"place": self.place % BATCHES}

    def load_state_dict(self, state):
        self.place = state["place"]


def fit(folder, *callbacks, epochs=4, resume=None, **options):
    lightning.seed_everything(0, verbose=False)
    module = Module()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=CSVLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **({"devices": 1} | options),
    )
    trainer.fit(module, Rows(), ckpt_path=resume)
    return module, trainer


def every_epoch(**options):
    return ModelCheckpoint(save_top_k=-1, every_n_epochs=1, **options)


def test_the_folder_that_lightning_writes_is_averaged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    module, _ = fit(tmp_path, recorder, every_epoch(save_last=True))
    steps = [BATCHES * e for e in range(1, 5)]
    folder = tmp_path / "lightning_logs" / "version_0"
    assert len(list((folder / "checkpoints").glob("*.ckpt"))) == 5  # the last one twice
    out = done(folder, "--prefix", "net.", "--rank", 3)
    assert "4 checkpoints, steps 8 to 32" in out
    swa = load_file("averaged/swa.safetensors")
    module.net.load_state_dict(swa)  # strict
    exact = torch.stack([recorder.after[s] for s in steps]).mean(0)
    layout = ParamLayout(module.net)
    torch.testing.assert_close(layout.flatten(swa).double(), exact, rtol=1e-5, atol=1e-6)
    traj = Trajectory.from_checkpoints(folder, layout)
    assert traj.steps == steps
    swag = SWAG.load("averaged/swag.safetensors", layout=layout)
    torch.testing.assert_close(swag.variance, traj.swag(rank=3).variance, rtol=1e-5, atol=1e-8)
    assert torch.equal(traj[-1].buffers["1.running_var"], swa["1.running_var"])


@pytest.mark.skipif(not hasattr(callbacks, "WeightAveraging"), reason="Lightning before 2.6")
def test_of_lightnings_own_averages_the_iterates_are_averaged(tmp_path, monkeypatch):
    """Its `WeightAveraging` writes an average as `state_dict`: SWAG of those is too narrow."""
    monkeypatch.chdir(tmp_path)
    recorder = Recorder()
    # updated before checkpoints are written
    module, _ = fit(tmp_path, callbacks.WeightAveraging(), recorder, every_epoch())
    folder = tmp_path / "lightning_logs" / "version_0"
    layout = ParamLayout(module.net)
    for key, name in ((None, "swa"), ("state_dict", "again")):
        options = ["--key", key] if key else []
        out = done(folder, "--prefix", "net.", "--no-swag", "--out", name, *options)
        assert ("'current_model_state' was taken, and not 'state_dict'" in out) == (key is None)
    exact = torch.stack([recorder.after[BATCHES * e] for e in range(1, 5)]).mean(0)
    swa, again = (layout.flatten(load_file(f"{n}/swa.safetensors")) for n in ("swa", "again"))
    torch.testing.assert_close(swa.double(), exact, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(swa, again, rtol=1e-2)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_callback_takes_what_it_says(tmp_path, accumulate):
    recorder = Recorder()
    callback = CollectorCallback(
        SWA, partial(SWAG, rank=2), tmp_path / "walk", module="net", start=0.5
    )
    module, trainer = fit(tmp_path, recorder, callback, accumulate_grad_batches=accumulate)
    epoch = -(-BATCHES // accumulate)
    steps = [2 * epoch, 3 * epoch, 4 * epoch]  # the last epoch's end among them
    assert trainer.global_step == steps[-1]
    swa, swag, walk = callback.targets
    assert walk.steps == steps
    w = torch.stack([recorder.after[s] for s in steps])
    torch.testing.assert_close(swa.mean.double(), w.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swag.variance.double(), w.var(0, correction=0), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(walk[2].weights, ParamLayout(module.net).flatten(module.net))
    assert torch.equal(walk[2].buffers["1.running_var"], module.net[1].running_var)


@pytest.mark.parametrize("stop", [BATCHES * 2 + 3, BATCHES * 3])  # in mid-epoch, and at an end
def test_a_run_that_is_stopped_goes_on_with_what_was_collected(tmp_path, stop):
    def callbacks(folder):
        steps = ModelCheckpoint(folder / "saved", save_top_k=-1, every_n_train_steps=1)
        collector = CollectorCallback(SWAG, folder / "walk", module="net", start=0.4, every_steps=3)
        return collector, steps

    whole, saving = callbacks(tmp_path / "whole")
    module, _ = fit(tmp_path / "whole", whole, saving)
    # as a kill leaves it: the store has gone on after the checkpoint that the run resumes from
    shutil.copytree(tmp_path / "whole", tmp_path / "b")
    (ckpt,) = (tmp_path / "b" / "saved").glob(f"*step={stop}.ckpt")
    second, saving = callbacks(tmp_path / "b")
    resumed, _ = fit(tmp_path / "b", second, saving, resume=ckpt)
    for mine, theirs in zip(resumed.parameters(), module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert second.targets[0].count == whole.targets[0].count == 6
    assert second.targets[1].steps == whole.targets[1].steps
    for name in ("mean", "variance", "deviations"):
        a, b = (getattr(c.targets[0], name) for c in (second, whole))
        torch.testing.assert_close(a, b)


def test_a_checkpoint_from_before_the_callback_is_reported(tmp_path):
    saving = ModelCheckpoint(tmp_path / "saved", save_top_k=-1, every_n_epochs=1)
    fit(tmp_path, saving, epochs=3)
    (ckpt,) = (tmp_path / "saved").glob("*step=24.ckpt")
    callback = CollectorCallback(SWA, start=0.25)
    with pytest.warns(UserWarning, match="after step 24 .* the averages begin anew"):
        fit(tmp_path, callback, resume=ckpt)
    assert callback.targets[0].count == 1


def test_two_processes_collect_once_and_resume(tmp_path):
    """Both see the same rows, so that their mean gradient is that of one process."""

    def run(folder, resume=None, **options):
        callback = CollectorCallback(folder / "walk", module="net", start=0.5)
        saving = ModelCheckpoint(folder / "saved", save_top_k=-1)
        fit(folder, callback, saving, resume=resume, **options)
        walk = Trajectory.open(folder / "walk")
        assert walk.steps == [16, 24, 32]
        return [point.weights.clone() for point in walk]

    alone = run(tmp_path / "alone")
    two = {"devices": 2, "strategy": "ddp_fork"}
    together = run(tmp_path / "two", **two)
    (ckpt,) = (tmp_path / "two" / "saved").glob("*step=16.ckpt")
    resumed = run(tmp_path / "two", resume=ckpt, **two)
    for a, b, c in zip(alone, together, resumed, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(c, a, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        CollectorCallback(every_steps=1, every_epochs=1)
    with pytest.raises(ConfigError, match="interval: expected a whole number of at least 1"):
        CollectorCallback(every_steps=0)
    with pytest.raises(ConfigError, match="training has not begun"):
        _ = CollectorCallback().targets
    with pytest.raises(ConfigError, match="the trainer has no budget"):
        fit(tmp_path, CollectorCallback(), epochs=-1)


def test_its_example():
    module = importlib.import_module("lowland.integrations.lightning")
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0
