"""Runs that start from a pretrained network."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lowland as ll
from lowland.artifacts import Graph
from lowland.errors import LayoutError, StoreError
from lowland.runs.config import check_config
from lowland.runs.pretrained import Pretrained, load_checkpoint
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from lowland.runs.training import optimizer_of, schedule_of
from lowland.tensor_files import same_tree
from tests.runs.conftest import CONFIG


def net(width=4):
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 2))


def trained_net():
    """A network whose weights and statistics are those of no fresh one."""
    torch.manual_seed(3)
    model = net()
    model(torch.randn(20, 3) + 5)
    return model


def lightning(state, folder):
    prefixed = {f"net.{name}": value for name, value in state.items()}
    content = {"state_dict": prefixed | {"metric.total": torch.ones(1)}, "global_step": 7}
    torch.save(content | {"epoch": 1, "pytorch-lightning_version": "2"}, folder / "last.ckpt")
    return folder / "last.ckpt"


def state_dict(state, folder):
    torch.save(state, folder / "net.pt")
    return folder / "net.pt"


def safetensors(state, folder):
    save_file(state, folder / "net.safetensors")
    return folder / "net.safetensors"


def hugging_face(state, folder):
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "own"}))
    return folder


def trainer(state, folder):
    for step, factor in ((9, 0.0), (10, 1.0)):
        (folder / f"checkpoint-{step}").mkdir()
        scaled = {name: value * factor for name, value in state.items()}
        save_file(scaled, folder / f"checkpoint-{step}" / "model.safetensors")
    return folder


def wrapped(state, folder):
    torch.save({"model": {f"module.{n}": t for n, t in state.items()}, "epoch": 3},
               folder / "ddp.pth")  # fmt: skip
    return folder / "ddp.pth"


@pytest.mark.parametrize(
    "write", [hugging_face, lightning, safetensors, state_dict, trainer, wrapped]
)
def test_weights_and_buffers_come_from_any_format(tmp_path, write):
    expected, model = trained_net().state_dict(), net()
    Pretrained(write(expected, tmp_path)).load_into(model)
    assert same_tree(dict(model.state_dict()), dict(expected))


def test_pickled_objects_are_refused(tmp_path):
    torch.save(net(), tmp_path / "whole.pt")
    with pytest.raises(StoreError, match=r"whole\.pt"):
        Pretrained(tmp_path / "whole.pt")
    with pytest.raises(StoreError, match="no such file"):
        Pretrained(tmp_path / "nowhere.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [(lambda s: net(5).state_dict(), r"from another model"),
     (lambda s: {n: t for n, t in s.items() if n != "2.bias"}, r"2\.bias"),
     (lambda s: {n: t for n, t in s.items() if n != "1.running_var"}, r"no 1\.running_var, which"),
     (lambda s: s | {"1.running_var": torch.ones(9)}, r"1\.running_var is \(9,\), and \(4,\)"),
     (lambda s: s | {"3.weight": torch.ones(2)}, r"configuration has no 3\.weight")],
    ids=["width", "weight", "buffer", "shape", "layer"],
)  # fmt: skip
def test_names_that_do_not_fit_are_refused(tmp_path, change, words):
    file = state_dict(change(trained_net().state_dict()), tmp_path)
    with pytest.raises(LayoutError, match=f"start_from: .*net.pt.*{words}"):
        Pretrained(file).load_into(net())


def test_integers_that_the_model_does_not_store_are_left_out(tmp_path):
    state = trained_net().state_dict() | {"position_ids": torch.arange(3)}
    model = net()
    Pretrained(state_dict(state, tmp_path)).load_into(model)
    assert torch.equal(model[0].weight, state["0.weight"])


def test_load_checkpoint_returns_what_the_model_has():
    state = trained_net().state_dict()
    loaded = load_checkpoint(net(), state | {"other": torch.ones(1)}, source="here")
    assert set(loaded) == set(state)


# -- in a run --------------------------------------------------------------------------------------


def run_from(path, methods=("sgd",), **settings):
    values = CONFIG | {"methods": list(methods), "start_from": str(path)} | settings
    config = check_config(values, where="here")
    return Run(config, Setup(config))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A network of the configuration, with weights that no seed gives."""
    config = check_config(CONFIG, where="here")
    model = Setup(config).model(0)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return state_dict(model.state_dict(), tmp_path_factory.mktemp("checkpoint")), model


def test_every_network_begins_there(checkpoint):
    path, model = checkpoint
    setup = run_from(path).setup
    for number in (0, 1):
        assert same_tree(dict(setup.model(number).state_dict()), dict(model.state_dict()))


def test_training_continues_from_it(checkpoint, tmp_path):
    path, model = checkpoint
    run = run_from(path)
    graph = Graph(tmp_path)
    graph.build([run.annealed(0)])
    setup, train = run.setup, run.config.train
    options = {"optimizer": optimizer_of(train), "schedule": schedule_of(train, run.budget.total)}
    data, seed = setup.batches(setup.seed(0)), setup.seed(0)
    ll.sgd(model, setup.task, data, epochs=4, seed=seed, **options)
    weights = graph.load(run.annealed(0)).point.weights
    assert torch.equal(weights, setup.layout.flatten(model))


def test_its_content_is_in_the_fingerprint_and_its_place_is_not(checkpoint, tmp_path):
    path, _ = checkpoint
    state = torch.load(path)
    copy, changed = tmp_path / "copy.pt", tmp_path / "changed.pt"
    torch.save(state, copy)
    torch.save({name: value + 1 for name, value in state.items()}, changed)
    prints = [run_from(each).annealed(0).fingerprint for each in (path, copy, changed)]
    assert prints[0] == prints[1] != prints[2]
    assert Run(*_plain()).annealed(0).fingerprint not in prints


@pytest.mark.parametrize("method", ["ensemble", "multiswag"])
def test_an_ensemble_from_one_network_is_warned_of(checkpoint, method):
    run = run_from(checkpoint[0], [method])
    with pytest.warns(UserWarning, match=r"of 2: all networks start from .* share its basin"):
        run.check()


def _plain():
    config = check_config(CONFIG | {"methods": ["sgd"]}, where="here")
    return config, Setup(config)
