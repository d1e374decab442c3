"""A run that is stopped at any event and started again ends bit by bit where it would have."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.artifacts import Checkpoint
from lowland.tensor_files import load_tree, same_tree
from lowland.train.trainer import KIND
from tests.processes import call_in_process
from tests.train.resuming import Boom, Count, Run, kill_at, network, rows, watched


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def whole(folder, data, accumulate=1):
    """The state of the run that nobody interrupts, and how many events it has."""
    event = Count()
    with watched(event):
        run = Run(folder, data, accumulate)(event)
    return run.state(), event.count


@pytest.mark.parametrize(
    ("data", "accumulate", "stride", "error"),
    [("batches", 1, 13, Boom), ("batches", 2, 13, KeyboardInterrupt), ("dataset", 1, 23, Boom),
     ("loader", 1, 19, Boom), ("loader", 2, 29, KeyboardInterrupt)],
)  # fmt: skip
def test_bit_equal_wherever_it_was_stopped(tmp_path, data, accumulate, stride, error):
    expected, events = whole(tmp_path / "whole", data, accumulate)
    assert events > 60
    for at in range(1, events + 1, stride):
        folder = tmp_path / str(at)

        def stop():
            raise error

        event = Count(at, stop)
        with watched(event), pytest.raises(error):
            Run(folder, data, accumulate)(event)
        again = Run(folder, data, accumulate)()
        assert same_tree(again.state(), expected), f"stopped at event {at} of {events}"


def test_stopped_again_and_again(tmp_path):
    expected, _ = whole(tmp_path / "whole", "loader")
    for at in range(9, 40, 4):

        def stop():
            raise Boom

        event = Count(at, stop)
        with watched(event), pytest.raises(Boom):
            Run(tmp_path / "often", "loader")(event)
    assert same_tree(Run(tmp_path / "often", "loader")().state(), expected)


def test_the_same_objects_may_go_on(tmp_path):
    """In a notebook: interrupt the cell, run it again, with the model and averages as they are."""
    expected, events = whole(tmp_path / "whole", "batches")
    for at in (3, 8, events // 2):

        def stop():
            raise KeyboardInterrupt

        run = Run(tmp_path / str(at))
        event = Count(at, stop)
        with watched(event), pytest.raises(KeyboardInterrupt):
            run(event)
        for collector in run.collectors:
            del collector.step  # the wrapper
        assert same_tree(run().state(), expected)


def test_a_run_that_is_not_restored_differs(tmp_path):
    """The broken twin: without the random state, dropout is another one."""
    expected, _ = whole(tmp_path / "whole", "batches")

    def stop():
        raise Boom

    event = Count(40, stop)
    with watched(event), pytest.raises(Boom):
        Run(tmp_path / "twin")(event)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lowland.train.trainer.set_rng_state", lambda state: None)
        twin = Run(tmp_path / "twin")()
    assert not same_tree(twin.state(), expected)


def test_killed(tmp_path):
    """By SIGKILL, in mid-epoch, in mid-write and behind the write at the end of an epoch."""
    expected, _ = whole(tmp_path / "whole", "batches")
    behind = {}  # the events right behind the replacement of a checkpoint, by its step
    event = Count()
    with watched(event), pytest.MonkeyPatch.context() as patch:
        save = Checkpoint.save

        def saving(checkpoint, state, **settings):
            save(checkpoint, state, **settings)
            behind.setdefault(state["step"], event.count)

        patch.setattr(Checkpoint, "save", saving)
        Run(tmp_path / "counted")(event)
    end = behind[10]  # the last step of the second epoch
    places = [end - 1, end, end + 7]
    call_in_process(kill_at, {tmp_path / str(at): at for at in places})
    for at in places:
        assert same_tree(Run(tmp_path / str(at))().state(), expected), at


def test_a_finished_run_returns_at_once(tmp_path):
    first = Run(tmp_path)()
    event = Count()
    with watched(event):
        second = Run(tmp_path)(event)
    assert event.count == 0
    assert same_tree(second.state(), first.state())
    assert torch.equal(second.log.columns["seconds"], first.log.columns["seconds"])


# -- how many checkpoints ------------------------------------------------------------------------


def plainly(path, **options):
    ll.sgd(network(), ll.Classification(), ll.Batches(rows(), batch_size=5), checkpoint=path,
           **options)  # fmt: skip


def along(path, **options):
    model = nn.Linear(6, 3)
    surface = ll.LossSurface(model, ll.Classification(), ll.Batches(rows(), batch_size=5))
    w = surface.layout.flatten(model)
    ll.fit(ll.Bezier.between(w, w + 1), surface, checkpoint=path, **options)


def together(path, **options):
    data = [ll.Batches(rows(), batch_size=5, seed=seed) for seed in range(2)]
    ll.sgd_members(ll.Members(nn.Linear(6, 3) for _ in data), ll.Classification(), data,
                   checkpoint=path, **options)  # fmt: skip


@pytest.mark.parametrize("train", [plainly, along, together])
@pytest.mark.parametrize(
    ("steps", "seconds", "expected"),
    # the last step is not the end: its epoch is closed after it
    [(None, 20, [0, 30]), (12, 20, [0, 12, 24, 30]), (5, 20, [0, 5, 10, 15, 20, 25, 30, 30]),
     (None, 0, [*range(31), 30])],
)  # fmt: skip
def test_checkpoints_are_written_when_it_is_time_to(
    tmp_path, monkeypatch, train, steps, seconds, expected
):
    """Six epochs of five steps, each of a few milliseconds: as long as a checkpoint takes."""
    saved = []
    keep = Checkpoint.save

    def save(checkpoint, state, **settings):
        saved.append(state["step"])
        keep(checkpoint, state, **settings)

    monkeypatch.setattr(Checkpoint, "save", save)
    monkeypatch.setattr("lowland.train.trainer.SAVE_SECONDS", seconds)
    train(tmp_path / "c", epochs=6, checkpoint_steps=steps)
    assert saved == expected
    assert load_tree(tmp_path / "c", kind=KIND)["state"]["epoch"] == 6


@pytest.mark.parametrize(
    ("train", "name"),
    [(plainly, "epochs"), (plainly, "accumulate"), (plainly, "checkpoint_steps"),
     (along, "epochs"), (along, "accumulate"), (along, "checkpoint_steps"),
     (together, "epochs"), (together, "checkpoint_steps")],
)  # fmt: skip
def test_numbers_below_one_are_refused_by_name(tmp_path, train, name):
    with pytest.raises(
        ll.ConfigError, match=f"{name}: expected a whole number of at least 1, got 0"
    ):
        train(tmp_path / "c", **{"epochs": 1} | {name: 0})
    assert not (tmp_path / "c").exists()


# -- checkpoints that do not fit -------------------------------------------------------------------


def train(path, *, model=None, data=None, task=None, lr=0.1, momentum=0.9, **options):
    model = network() if model is None else model
    data = ll.Batches(rows(), batch_size=5) if data is None else data
    made = {"epochs": 2, "seed": 0} | options
    ll.sgd(
        model,
        ll.Classification() if task is None else task,
        data,
        optimizer=lambda p: torch.optim.SGD(p, lr=lr, momentum=momentum),
        checkpoint=path,
        **made,
    )
    return model


@pytest.mark.parametrize(
    "changed",
    [{"epochs": 3}, {"seed": 1}, {"accumulate": 2}, {"lr": 0.2}, {"momentum": 0.0}, {"clip": 1.0},
     {"data": ll.Batches(rows(), batch_size=6)}, {"data": ll.Batches(rows(), batch_size=5, seed=1)},
     {"schedule": lambda o: ll.ConstantSchedule(o)},
     {"data": ll.Batches((-rows()[0], rows()[1]), batch_size=5)},
     {"task": ll.Classification(ignore_index=2)},
     {"model": nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3))}],
    ids=lambda changed: next(iter(changed)),
)  # fmt: skip
def test_changed_settings_are_refused(tmp_path, changed):
    train(tmp_path / "c")
    with pytest.raises(ll.ConfigError, match="other settings"):
        train(tmp_path / "c", **changed)


def test_a_schedule_of_other_numbers_is_refused(tmp_path):
    falls = lambda by: lambda o: torch.optim.lr_scheduler.ExponentialLR(o, by)  # noqa: E731
    train(tmp_path / "c", schedule=falls(0.97))
    train(tmp_path / "c", schedule=falls(0.97))
    with pytest.raises(ll.ConfigError, match="other settings"):
        train(tmp_path / "c", schedule=falls(0.2))


def test_foreign_and_damaged_checkpoints(tmp_path):
    path = tmp_path / "c"
    swag = ll.SWAG(ll.ParamLayout(network()), rank=2)
    swag.save(path)
    with pytest.raises(ll.StoreError, match="expected training checkpoint 2, found SWAG"):
        train(path)
    path.unlink()
    train(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ll.StoreError, match="damaged"):
        train(path)


def test_wrappers_do_not_matter(tmp_path):
    """Stopped compiled and continued plain, or the other way: never silently from new weights."""
    expected = train(tmp_path / "whole")
    wrapped = nn.DataParallel(network())  # as torch.compile, it puts a prefix before names
    train(tmp_path / "c", model=wrapped)
    plain = train(tmp_path / "c", model=network())
    assert same_tree(dict(plain.state_dict()), dict(expected.state_dict()))


class Counting(nn.Module):
    """Buffers that no state dict has: one that is not persistent, one that is None at first."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("first", None)

    def forward(self, x):
        if self.training:
            self.calls += 1
            if self.first is None:
                self.first = x.mean(0)
        return self.net(x - self.first) / (1 + 0.1 * self.calls)


def test_every_buffer_comes_back(tmp_path):
    def run(path, stop_at):
        torch.manual_seed(0)
        model = Counting()

        def progress(done, total):
            if done == stop_at:
                raise Boom

        ll.sgd(model, ll.Classification(), ll.Batches(rows(), batch_size=5), epochs=2,
               checkpoint=path, checkpoint_steps=1, progress=progress)  # fmt: skip
        return [model.net.weight, model.calls, model.first]

    expected = run(None, -1)
    with pytest.raises(Boom):
        run(tmp_path / "c", 4)
    assert same_tree(run(tmp_path / "c", -1), expected)
