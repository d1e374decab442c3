"""IterateCollector in loops as people write them."""

import pytest
import torch
from torch import nn

from lowland import (
    EMA,
    SWA,
    SWAG,
    Collector,
    ConfigError,
    CyclicalSchedule,
    EndOfCycle,
    Every,
    LayoutError,
    MidCycle,
    NonFiniteError,
    ParamLayout,
    SWASchedule,
    Trajectory,
)
from lowland.tensor_files import load_tree, same_tree, save_tree


def picked(rule, steps):
    return [step for step in range(1, steps + 1) if rule.picks(step)]


def test_every_step_and_every_epoch():
    assert picked(Every(1), 4) == [1, 2, 3, 4]
    assert picked(Every(7), 30) == [7, 14, 21, 28]


@pytest.mark.parametrize("total", [1, 3, 7, 10, 100])
def test_a_share_of_the_budget(total):
    for percent in range(101):
        expected = [s for s in range(1, total + 1) if s * 100 >= percent * total]
        assert picked(Every(1, total=total, start=percent / 100), total) == expected


def test_a_share_of_the_budget_begins_where_the_schedule_is_flat():
    weight = nn.Parameter(torch.ones(1))
    schedule = SWASchedule(torch.optim.SGD([weight], lr=0.1), total=40, swa_lr=0.02)
    lrs = [schedule.lrs(step)[0] for step in picked(Every(1, total=40), 40)]
    assert lrs == pytest.approx([0.02] * 11)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: Every(0), "interval"),
        (lambda: Every(1, total=10, start=1.5), "start"),
        (lambda: MidCycle(3), "even"),
        (lambda: MidCycle(0), "cycle"),
        (lambda: EndOfCycle(1), "cycle: expected a number of at least 2, got 1; make fewer"),
        (lambda: EndOfCycle(-3.5), "cycle: .* got -3.5"),
        (lambda: EndOfCycle(4, members=0), "members"),
        (lambda: EndOfCycle(4, explore=1.0), "explore"),
        (lambda: EndOfCycle(10, members=3), "at most 2, got 3: a cycle of 10 steps has 2 after"),
        (lambda: Collector(3, when=Every(1)), "into, such as SWAG.* got int"),
    ],
)
def test_settings_that_make_no_sense(build, text):
    with pytest.raises(ConfigError, match=text):
        build()


def test_cycles_may_start_later():
    assert picked(MidCycle(4, start=3), 14) == [6, 10, 14]


def test_several_members_of_a_cycle_are_evenly_spaced_over_its_last_part():
    assert picked(EndOfCycle(50, members=3, explore=0.7), 100) == [40, 45, 50, 90, 95, 100]
    assert picked(EndOfCycle(10, members=2), 20) == [9, 10, 19, 20]
    assert picked(EndOfCycle(2.5, start=3), 13) == [5, 8, 11, 13]


@pytest.mark.parametrize("cycle", [5, 7.3, 20])
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("start", [0, 4])
def test_ends_of_cycles_are_counted(cycle, members, start):
    rule = EndOfCycle(cycle, members=members, explore=0.3, start=start)
    for steps in (0, 1, 4, 5, 9, 40, 41, 77):
        assert rule.count(steps) == len(picked(rule, steps))
    # any number of whole cycles has all its members
    assert rule.count(start + round(6 * cycle)) == 6 * members


@pytest.mark.parametrize(
    ("rule", "steps", "first"),
    [
        (EndOfCycle(40), 39, 40),
        (EndOfCycle(100, members=2, explore=0.8), 50, 90),
        (Every(8, total=100, start=0.5), 30, 56),
        (MidCycle(20, start=5), 12, 16),
    ],
)
def test_a_run_without_members_is_refused_with_the_step_of_the_first(rule, steps, first):
    collector = Collector(SWA(ParamLayout(nn.Linear(1, 1))), when=rule)
    collector.check(first)
    with pytest.raises(ConfigError, match=rf"after step {first}; the run has {steps}\. Train long"):
        collector.check(steps)


def test_a_rule_that_never_selects_is_refused():
    class Never:
        def picks(self, step):
            return False

    with pytest.raises(ConfigError, match=r"would be collected; the run has 5"):
        Collector(SWA(ParamLayout(nn.Linear(1, 1))), when=Never()).check(5)


def test_a_member_of_another_network_is_refused(tmp_path):
    store = Trajectory.create(tmp_path / "run", ParamLayout(nn.Linear(3, 2)))
    collector = Collector(store, when=EndOfCycle(2))
    collector.step(nn.Linear(3, 2))
    with pytest.raises(LayoutError, match="weight"):
        collector.step(nn.Linear(4, 2))


# -- a training run that can be cut in two ---------------------------------------------------------


class Run:
    """A loop with autocast, accumulated gradients, a schedule and a collector."""

    accumulate, batches = 2, 6

    def __init__(self, folder, *, fresh=True, when=None):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
        g = torch.Generator().manual_seed(1)
        self.data = [
            (torch.randn(8, 3, generator=g), torch.randint(2, (8,), generator=g))
            for _ in range(self.batches)
        ]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.schedule = CyclicalSchedule(self.optimizer, cycle=4, high=0.05, low=0.001)
        layout = ParamLayout(self.model)
        make = Trajectory.create if fresh else lambda path, _: Trajectory.open(path)
        self.store = make(folder, layout)
        self.swa, self.swag = SWA(layout), SWAG(layout, rank=3)
        self.ema = EMA(layout, decay=0.8)
        self.collector = Collector(
            self.store, self.swa, self.swag, self.ema, when=when or MidCycle(4)
        )
        self.batch = 0

    def step(self):
        """One batch; the optimizer steps at every second one."""
        x, y = self.data[self.batch % self.batches]
        self.batch += 1
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(self.model(x), y)
        (loss / self.accumulate).backward()
        if self.batch % self.accumulate:
            return False
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        return self.collector.step(self.model, metrics={"loss": loss})

    def save(self, path):
        parts = (self.model, self.optimizer, self.schedule, self.collector)
        # what `state_dict` gives are views, so it goes to disk at once
        save_tree(path, {"batch": self.batch, "parts": [p.state_dict() for p in parts]}, kind="run")

    def load(self, path):
        state = load_tree(path, kind="run")
        self.batch = state["batch"]
        parts = (self.model, self.optimizer, self.schedule, self.collector)
        for part, saved in zip(parts, state["parts"], strict=True):
            part.load_state_dict(saved)


def check_equal(a, b):
    for name in ("swa", "swag", "ema"):
        assert same_tree(getattr(a, name).state_dict(), getattr(b, name).state_dict())
    assert a.store.steps == b.store.steps
    assert a.store.metrics == b.store.metrics
    for x, y in zip(a.store, b.store, strict=True):
        assert torch.equal(x.weights, y.weights)
        assert same_tree(x.buffers, y.buffers)


def test_members_are_collected_after_the_optimizers_steps(tmp_path):
    run = Run(tmp_path / "run")
    steps = [run.batch for _ in range(48) if run.step()]
    assert steps == [6, 14, 22, 30, 38, 46]
    assert run.store.steps == [3, 7, 11, 15, 19, 23]
    assert run.collector.count == 24
    assert run.swa.count == run.swag.count == run.ema.count == 6
    assert all(w.dtype == torch.float32 for w, _ in run.store)
    assert torch.allclose(run.store.swa(), run.swa.mean, atol=1e-6)
    assert {"1.running_mean", "1.running_var"} < run.store[0].buffers.keys()


@pytest.mark.parametrize("saved", [0, 4, 11, 12, 26])
@pytest.mark.parametrize("ahead", [0, 9, 20])
def test_a_run_goes_on_from_a_checkpoint_that_the_store_is_ahead_of(tmp_path, saved, ahead):
    """Saved in mid-epoch, killed some batches later, continued: equal to uninterrupted."""
    straight = Run(tmp_path / "straight")
    for _ in range(48):
        straight.step()
    killed = Run(tmp_path / "run")
    for _ in range(saved):
        killed.step()
    # gradients that are accumulated are not in any state: checkpoints are between the steps
    while killed.batch % killed.accumulate:
        killed.step()
    killed.save(tmp_path / "checkpoint")
    for _ in range(ahead):
        killed.step()
    resumed = Run(tmp_path / "run", fresh=False)
    resumed.load(tmp_path / "checkpoint")
    assert len(resumed.store) == resumed.swa.count
    while resumed.batch < 48:
        resumed.step()
    check_equal(resumed, straight)
    resumed.store = Trajectory.open(tmp_path / "run")
    check_equal(resumed, straight)


def test_the_check_of_resuming_fails_a_store_that_is_not_rewound(tmp_path, monkeypatch):
    monkeypatch.setattr(Trajectory, "rewind", lambda self, step: None)
    with pytest.raises((AssertionError, OSError)):
        test_a_run_goes_on_from_a_checkpoint_that_the_store_is_ahead_of(tmp_path, 4, 20)


def test_collectors_that_differ_are_refused(tmp_path):
    run = Run(tmp_path / "run")
    other = Collector(run.swa, when=Every(1))
    with pytest.raises(ConfigError, match="of 4 targets, this collector has 1"):
        other.load_state_dict(run.collector.state_dict())


def test_an_iterate_that_is_not_finite_is_reported(tmp_path):
    run = Run(tmp_path / "run", when=Every(1))
    for _ in range(6):
        run.step()
    with torch.no_grad():
        run.model[0].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"step 4 .*0\.weight.*last iterate stored is step 3"):
        run.collector.step(run.model)
    assert run.store.steps == [1, 2, 3]
    assert run.swa.count == 3


def test_how_many_are_picked_is_known_without_going_through_the_steps():
    for interval in (1, 3, 7):
        for start in (0.0, 0.3, 1.0):
            rule = Every(interval, total=40, start=start)
            for steps in (0, 1, 11, 12, 40, 41):
                assert rule.count(steps) == sum(map(rule.picks, range(1, steps + 1)))
            assert rule.first_step == picked(rule, 100)[0]
    for cycle in (2, 4, 6):
        for start in (0, 5):
            rule = MidCycle(cycle, start=start)
            for steps in (0, 1, 5, 7, 8, 30):
                assert rule.count(steps) == sum(map(rule.picks, range(1, steps + 1)))
    assert Every(2, total=10**12).count(10**12) == 10**12 // 8 + 1
