"""A training in two parts equals the unsplit one bit by bit."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import lowland as ll
from lowland.tensor_files import load_tree, same_tree, save_tree
from lowland.train.training_state import KIND, TrainingState
from tests.train.resuming import DATA, network, rows

TASK = ll.Classification()
STEPS = {1: 5, 2: 3}  # of an epoch of 23 examples in batches of 5, by `accumulate`

MOMENTUM = lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)  # noqa: E731
OPTIONS = {
    "accumulate": {"accumulate": 2},
    "adamw": {"optimizer": lambda p: torch.optim.AdamW(p, lr=1e-2)},
    "autocast": {"autocast": torch.bfloat16},
    "clip": {"clip": 0.05},
    "cosine": {"schedule": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=20)},
    "decay": {"schedule": lambda o: ll.DecaySchedule(o, total=20)},
    "one cycle": {"schedule": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=20)},
    "plain": {},
    "warm-up": {"schedule": ll.schedule_named("cosine", total=20, warmup=8)},
}  # fmt: skip


class Iterates:
    """A collector of every iterate."""

    def __init__(self):
        self.weights = []

    def step(self, model):
        self.weights.append(model[0].weight.detach().clone())
        return True

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def train(model, data, epochs, **options):
    """The log without seconds, and every iterate."""
    iterates = Iterates()
    options = {"optimizer": MOMENTUM} | options
    log = ll.sgd(model, TASK, data, epochs=epochs, collectors=[iterates], **options)
    return {k: v for k, v in log.columns.items() if k != "seconds"}, iterates.weights


def two_parts(folder, data, first, rest, **options):
    """Model, log and iterates of a training in two calls, on new objects each."""
    file = folder / "first.safetensors"
    log, iterates = train(network(), data(), first, checkpoint=file, **options)
    model = network()
    more, others = train(model, data(), rest, start=file, **options)
    columns = {key: torch.cat([log[key], more[key]]) for key in log}
    return model, columns, iterates + others


@pytest.mark.parametrize("data", sorted(DATA))
@pytest.mark.parametrize("name", sorted(OPTIONS))
def test_two_parts_equal_the_whole_bit_by_bit(tmp_path, name, data):
    options, whole = OPTIONS[name], network()
    columns, iterates = train(whole, DATA[data](), 4, **options)
    model, log, both = two_parts(tmp_path, DATA[data], 3, 1, **options)
    assert same_tree(dict(model.state_dict()), dict(whole.state_dict()))
    assert same_tree(both, iterates)
    assert same_tree(log, columns)
    assert columns["epoch"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("broken", ["optimizer", "rng", "epoch"])
def test_a_part_of_the_state_is_not_enough(tmp_path, broken):
    """The broken twins: without momentum, random states (dropout) or position in the order."""
    file, whole = tmp_path / "first", network()
    train(whole, DATA["batches"](), 3)
    train(network(), DATA["batches"](), 2, checkpoint=file)
    state = TrainingState.load(file)
    lost = {
        "optimizer": {"state": {}, "param_groups": state.state["optimizer"]["param_groups"]},
        "rng": ll.train.rng.rng_state(),
        "epoch": 0,
    }
    parts = {**state.state, broken: lost[broken]}
    model = network()
    train(model, DATA["batches"](), 1, start=TrainingState(state.settings, parts))
    assert not same_tree(dict(model.state_dict()), dict(whole.state_dict()))


def test_another_schedule_begins_at_the_optimizers_own_learning_rate(tmp_path):
    """SGD with momentum by hand: weights, momentum and order of the first part, and another lr."""
    file, data = tmp_path / "first", ll.Batches(rows(), batch_size=5, seed=3)
    model = nn.Linear(6, 3)
    decay = {"schedule": lambda o: ll.DecaySchedule(o, total=20)}
    ll.sgd(model, TASK, data, epochs=3, optimizer=MOMENTUM, checkpoint=file, **decay)
    state = TrainingState.load(file).without_schedule()
    weight, bias = (p.detach().clone().requires_grad_() for p in model.parameters())
    moments = [m["momentum_buffer"].clone() for m in state.state["optimizer"]["state"].values()]
    for x, y in data.epoch(3):
        loss = nn.functional.cross_entropy(x @ weight.T + bias, y)
        grads = torch.autograd.grad(loss, [weight, bias])
        with torch.no_grad():
            for p, m, g in zip([weight, bias], moments, grads, strict=True):
                m.mul_(0.9).add_(g)
                p.sub_(0.2 * m)
    branch = nn.Linear(6, 3)
    other = lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9)  # noqa: E731
    log = ll.sgd(branch, TASK, data, epochs=1, optimizer=other, start=state,
                 schedule=lambda o: ll.ConstantSchedule(o))  # fmt: skip
    torch.testing.assert_close(branch.weight, weight)
    assert log.columns["lr"].tolist() == [0.2]
    # the same state serves again: nobody wrote into it
    again = nn.Linear(6, 3)
    ll.sgd(again, TASK, data, epochs=1, optimizer=other, start=state,
           schedule=lambda o: ll.ConstantSchedule(o))  # fmt: skip
    assert torch.equal(again.weight, branch.weight)


def test_a_part_is_stopped_and_resumed(tmp_path):
    first, whole = tmp_path / "first", network()
    train(whole, DATA["loader"](), 4)
    train(network(), DATA["loader"](), 2, checkpoint=first)

    class Boom(Exception):
        pass

    def stop(done, total):
        assert total == 10
        if done == 7:
            raise Boom

    options = {"start": first, "checkpoint": tmp_path / "rest", "checkpoint_steps": 1}
    with pytest.raises(Boom):
        train(network(), DATA["loader"](), 2, progress=stop, **options)
    model = network()
    log, _ = train(model, DATA["loader"](), 2, **options)
    assert same_tree(dict(model.state_dict()), dict(whole.state_dict()))
    assert log["epoch"].tolist() == [3, 4]
    train(network(), DATA["loader"](), 3, checkpoint=tmp_path / "other")
    with pytest.raises(ll.ConfigError, match=r"made with other settings .*start"):
        train(network(), DATA["loader"](), 1, **options | {"start": tmp_path / "other"})


def test_bytes_of_a_saved_state_are_a_function_of_the_training(tmp_path):
    files = []
    for name in ("a", "b"):
        train(network(), DATA["batches"](), 2, checkpoint=tmp_path / name)
        state = TrainingState.load(tmp_path / name)
        state.save(tmp_path / f"{name}.state")
        files.append((tmp_path / f"{name}.state").read_bytes())
    assert files[0] == files[1]
    again = TrainingState.load(tmp_path / "a.state")
    assert same_tree(dict(again.state), dict(state.state))
    assert (again.epoch, again.step, again.fingerprint) == (2, 10, state.fingerprint)
    models = []
    for start in (tmp_path / "a", tmp_path / "a.state", state):
        models.append(network())
        train(models[-1], DATA["batches"](), 1, start=start)
    assert all(torch.equal(m[0].weight, models[0][0].weight) for m in models)
    # it is no checkpoint of a run: that would return without a log
    with pytest.raises(ll.ConfigError, match="other settings"):
        train(network(), DATA["batches"](), 2, checkpoint=tmp_path / "a.state")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"optimizer": lambda p: torch.optim.AdamW(p, lr=0.05)}, "optimizer: SGD.*AdamW"),
        ({"schedule": lambda o: ll.DecaySchedule(o, total=9)}, "total=20.*total=9.*without_sched"),
        ({"schedule": lambda o: ll.ConstantSchedule(o)}, "schedule: Decay.*Constant"),
        ({"model": nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))}, "model: "),
        ({"optimizer": lambda p: torch.optim.SGD(list(p)[:2], lr=0.05)}, "optimizer: "),
    ],
    ids=["optimizer", "total", "schedule", "model", "parameters"],
)
def test_what_cannot_continue_is_refused(tmp_path, changed, words):
    decay = {"schedule": lambda o: ll.DecaySchedule(o, total=20)}
    train(network(), DATA["batches"](), 1, checkpoint=tmp_path / "a", **decay)
    changed = decay | changed
    model = changed.pop("model", None) or network()
    with pytest.raises(ll.ConfigError, match=f"start: .*{words}"):
        train(model, DATA["batches"](), 1, start=tmp_path / "a", **changed)


def test_a_branch_needs_the_same_parameters(tmp_path):
    train(network(), DATA["batches"](), 1, checkpoint=tmp_path / "a")
    state = TrainingState.load(tmp_path / "a").without_schedule()
    with pytest.raises(ll.ConfigError, match="trained other parameters"):
        train(network(), DATA["batches"](), 1, start=state,
              optimizer=lambda p: torch.optim.SGD(list(p)[:2], lr=0.05))  # fmt: skip
    with pytest.raises(ll.ConfigError, match="optimizer: SGD there, AdamW now"):
        train(network(), DATA["batches"](), 1, start=state,
              optimizer=lambda p: torch.optim.AdamW(p, lr=0.05))  # fmt: skip


def test_files_that_are_no_end_of_an_epoch(tmp_path):
    class Boom(Exception):
        pass

    def stop(done, total):
        if done == 3:
            raise Boom

    with pytest.raises(Boom):
        train(network(), DATA["batches"](), 1, checkpoint=tmp_path / "c", checkpoint_steps=2,
              progress=stop)  # fmt: skip
    with pytest.raises(ll.ConfigError, match="middle of an epoch"):
        train(network(), DATA["batches"](), 1, start=tmp_path / "c")
    with pytest.raises(ll.StoreError, match="no such file"):
        TrainingState.load(tmp_path / "none")
    body = load_tree(tmp_path / "c", kind=KIND)
    del body["state"]["model"]
    save_tree(tmp_path / "d", body, kind=KIND)
    with pytest.raises(ll.StoreError, match="no training checkpoint"):
        TrainingState.load(tmp_path / "d")


def test_labels_are_checked_in_a_continuation_too(tmp_path):
    train(network(), DATA["batches"](), 1, checkpoint=tmp_path / "a")
    wrong = [(torch.zeros(4, 6), torch.tensor([0, 1, 2, 7]))]
    with pytest.raises(ll.DataError, match="labels out of range"):
        train(network(), wrong, 1, start=tmp_path / "a")


def test_a_metric_that_comes_late_leaves_a_gap(tmp_path):
    train(network(), DATA["batches"](), 2, checkpoint=tmp_path / "a")
    calls = []

    def validate(model):
        calls.append(model)
        return {"late": 1.0} if len(calls) > 1 else {}

    log, _ = train(network(), DATA["batches"](), 2, start=tmp_path / "a", validate=validate)
    assert math.isnan(log["late"][0])
    assert log["late"][1] == 1
