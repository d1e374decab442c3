"""Closed forms of the papers, in steps."""

import io
import math

import pytest
import torch
from torch import nn, optim

from lowland import (
    ConfigError,
    ConstantSchedule,
    CyclicalCosineSchedule,
    CyclicalSchedule,
    DecaySchedule,
    EndOfCycle,
    MidCycle,
    SWASchedule,
)


def optimizer(*lrs):
    groups = [{"params": [nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs or (0.1,)]
    return optim.SGD(groups, lr=0.1, momentum=0.9)


BUILD = {
    "constant": lambda o: ConstantSchedule(o),
    "decay": lambda o: DecaySchedule(o, total=40),
    "swa": lambda o: SWASchedule(o, total=40, swa_lr=0.02),
    "cyclical": lambda o: CyclicalSchedule(o, cycle=8, high=0.05, low=1e-4),
    "snapshot": lambda o: CyclicalCosineSchedule(o, cycle=8),
    "cosine": lambda o: CyclicalCosineSchedule(o, cycle=8, high=0.05, low=1e-4),
}


def decay(t):
    """Garipov et al. 2018: constant to half of the budget, linear to 1% at 90%, then flat."""
    if t <= 0.5:
        return 1.0
    if t <= 0.9:
        return 1.0 - (1.0 - 0.01) * (t - 0.5) / 0.4
    return 0.01


def swa(t, lr_init, swa_lr, start):
    """Izmailov et al. 2018: to half of swa_start, linear to swa_lr at 90% of it, constant."""
    t = t / start
    ratio = swa_lr / lr_init
    if t <= 0.5:
        return lr_init
    return lr_init * (1.0 - (1.0 - ratio) * (t - 0.5) / 0.4) if t <= 0.9 else swa_lr


def cyclical(step, cycle, a1, a2):
    t = (step % cycle) / cycle
    if t < 0.5:
        return a1 * (1 - 2 * t) + 2 * a2 * t
    return a1 * (2 * t - 1) + a2 * (2 - 2 * t)


def cosine(step, cycle, high, low=0.0):
    """Huang et al. 2017, equation 2, with t = step + 1: cosine from high, restarted each cycle."""
    return low + (high - low) / 2 * (math.cos(math.pi * (step % cycle) / cycle) + 1)


FORMS = {
    "constant": lambda s: 0.1,
    "decay": lambda s: 0.1 * decay(s / 40),
    "swa": lambda s: swa(s / 40, 0.1, 0.02, 0.75),
    "cyclical": lambda s: cyclical(s, 8, 0.05, 1e-4),
    "snapshot": lambda s: cosine(s, 8, 0.1),
    "cosine": lambda s: cosine(s, 8, 0.05, 1e-4),
}


def lrs(schedule, steps):
    """The rates that the optimizer steps with."""
    values = []
    for _ in range(steps):
        values.append([float(group["lr"]) for group in schedule.optimizer.param_groups])
        schedule.optimizer.step()
        schedule.step()
    return values


@pytest.mark.parametrize("name", BUILD)
def test_the_optimizer_steps_with_the_closed_form(name):
    values = [lr for (lr,) in lrs(BUILD[name](optimizer()), 60)]
    assert values == pytest.approx([FORMS[name](s) for s in range(60)], rel=1e-9)


@pytest.mark.parametrize("name", BUILD)
def test_rates_agree_with_the_steps(name):
    schedule = BUILD[name](optimizer(0.1, 0.3))
    expected = [schedule.lrs(s) for s in range(30)]
    assert lrs(schedule, 30) == expected
    assert schedule.get_last_lr() == schedule.lrs(30)


@pytest.mark.parametrize("name", BUILD)
def test_parameter_groups_keep_their_proportions(name):
    for first, second, third in lrs(BUILD[name](optimizer(0.1, 0.2, 0.05)), 50):
        assert second == pytest.approx(2 * first)
        assert third == pytest.approx(first / 2)


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("at", [0, 1, 19, 20, 35, 50])
def test_continuing_equals_not_stopping(name, at):
    straight = lrs(BUILD[name](optimizer(0.1, 0.2)), 60)
    first = BUILD[name](optimizer(0.1, 0.2))
    assert lrs(first, at) == straight[:at]
    file = io.BytesIO()
    torch.save((first.state_dict(), first.optimizer.state_dict()), file)
    file.seek(0)
    state, optimizer_state = torch.load(file, weights_only=True)
    second = BUILD[name](optimizer(0.1, 0.2))
    second.load_state_dict(state)
    second.optimizer.load_state_dict(optimizer_state)
    assert lrs(second, 60 - at) == straight[at:]


def test_a_rate_that_is_a_tensor_is_stepped_in_place():
    weight = nn.Parameter(torch.ones(1))
    schedule = DecaySchedule(optim.AdamW([weight], lr=torch.tensor(0.5)), total=10)
    weight.grad = torch.ones(1)
    values = [float(lr) for (lr,) in lrs(schedule, 10)]
    assert values == pytest.approx([0.5 * decay(s / 10) for s in range(10)], rel=1e-6)


def test_swa_lr_may_exceed_the_first_lr():
    schedule = SWASchedule(optimizer(0.01), total=100, swa_lr=0.05, start=0.5)
    assert schedule.lrs(0) == [pytest.approx(0.01)]
    assert schedule.lrs(45) == [pytest.approx(0.05)]
    assert schedule.lrs(99) == [pytest.approx(0.05)]


@pytest.mark.parametrize("cycle", [2, 4, 10, 18])
def test_members_are_collected_where_the_learning_rate_is_lowest(cycle):
    schedule = CyclicalSchedule(optimizer(), cycle=cycle, high=0.05, low=1e-4)
    rule = MidCycle(cycle)
    lrs = {}  # of the step that led to each member
    for step in range(1, 4 * cycle + 1):
        (lr,) = schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
        if rule.picks(step):
            lrs[step] = lr
    assert list(lrs) == [cycle // 2 + 1 + k * cycle for k in range(4)]
    assert list(lrs.values()) == [pytest.approx(1e-4)] * 4
    assert min(schedule.lrs(s)[0] for s in range(100)) == pytest.approx(1e-4)


@pytest.mark.parametrize("cycles", [1, 3, 7])
def test_a_whole_number_of_cosine_cycles_fills_any_budget(cycles):
    total = 103
    schedule = CyclicalCosineSchedule(optimizer(), cycle=total / cycles)
    rule = EndOfCycle(total / cycles)
    ends = [step for step in range(1, total + 1) if rule.picks(step)]
    assert ends == [round(total * i / cycles) for i in range(1, cycles + 1)]
    values = [schedule.lrs(step)[0] for step in range(total + 1)]
    assert [step for step in range(1, total + 1) if values[step] == values[0]] == ends
    lengths = [b - a for a, b in zip([0, *ends], ends, strict=False)]
    assert max(lengths) - min(lengths) <= 1
    # the step before a member is that with the cycle's lowest learning rate
    for end, length in zip(ends, lengths, strict=True):
        assert values[end - 1] == min(values[end - length : end])


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda o: DecaySchedule(o, total=0), "total"),
        (lambda o: CyclicalCosineSchedule(o, cycle=1.5), "cycle: .*at least 2, got 1.5; make few"),
        (lambda o: CyclicalCosineSchedule(o, cycle=-4), "at least 2, got -4; make fewer cycles"),
        (lambda o: CyclicalCosineSchedule(o, cycle=4, low=0.2), "low: .* from 0 to 0.1"),
        (lambda o: CyclicalCosineSchedule(o, cycle=4, high=0.0), "high"),
        (lambda o: DecaySchedule(o, total=5, final=-0.1), "final"),
        (lambda o: SWASchedule(o, total=0, swa_lr=0.1), "total"),
        (lambda o: SWASchedule(o, total=9, swa_lr=0.0), "swa_lr"),
        (lambda o: SWASchedule(o, total=9, swa_lr=0.1, start=0.0), "start"),
        (lambda o: SWASchedule(o, total=9, swa_lr=0.1, start=1.1), "start"),
        (lambda o: CyclicalSchedule(o, cycle=3), "even number"),
        (lambda o: CyclicalSchedule(o, cycle=0), "cycle"),
        (lambda o: CyclicalSchedule(o, cycle=4, high=0.1, low=0.2), "low"),
        (lambda o: CyclicalSchedule(o, cycle=4, high=0.1, low=0.0), "low"),
    ],
)
def test_arguments_that_make_no_sense(build, text):
    with pytest.raises(ConfigError, match=text):
        build(optimizer())


@pytest.mark.parametrize("name", ["swa", "cyclical"])
def test_proportions_to_a_rate_of_zero_do_not_exist(name):
    with pytest.raises(
        ConfigError, match="positive learning rate for the first parameter group, got 0"
    ):
        BUILD[name](optimizer(0.0, 0.1))


# -- after another schedule on the same optimizer ------------------------------------------------

LRS = optim.lr_scheduler


def stepped(schedule, steps):
    """The first group's rates that the optimizer steps with."""
    return [first for first, *_ in lrs(schedule, steps)]


@pytest.mark.parametrize("first", [True, False], ids=["after", "beside"])
def test_swa_goes_on_from_the_rate_that_a_decay_has_reached(first):
    """torch's recipe for SWA makes both schedules first; others make the second when it is due."""
    o = optimizer()
    cosine = LRS.CosineAnnealingLR(o, T_max=20, eta_min=1e-3)
    make = lambda: SWASchedule(o, total=20, swa_lr=0.05, start=0.5)  # noqa: E731
    schedule = None if first else make()
    decayed = stepped(cosine, 20)
    assert decayed[0] == pytest.approx(0.1)  # the second schedule leaves the first alone
    if schedule is None:
        schedule = make()
    else:
        o.step()
        schedule.step()
    values = stepped(schedule, 20)
    assert values[0] == pytest.approx(1e-3)
    expected = [swa(s / 20, 1e-3, 0.05, 0.5) for s in range(40)]
    assert values == pytest.approx(expected[0 if first else 1 :][:20])


def test_swa_in_sequential_goes_on_from_the_rate_that_a_decay_has_reached():
    o = optimizer()
    parts = [LRS.CosineAnnealingLR(o, T_max=20), SWASchedule(o, total=20, swa_lr=0.05, start=0.5)]
    values = stepped(LRS.SequentialLR(o, parts, milestones=[20]), 40)
    last = values[19]
    assert last < 0.1 * (1 - 0.98)
    expected = [swa(s / 20, last, 0.05, 0.5) for s in range(20)]
    assert values[20:] == pytest.approx(expected)


@pytest.mark.parametrize("warmup", [LRS.LinearLR, LRS.ConstantLR])
@pytest.mark.parametrize("name", sorted(BUILD))
def test_after_a_warmup_each_begins_at_the_optimizers_own_rate(warmup, name):
    o = optimizer()
    parts = [warmup(o, 0.1, total_iters=5), BUILD[name](o)]
    values = stepped(LRS.SequentialLR(o, parts, milestones=[5]), 50)
    assert values[0] == pytest.approx(0.01)
    assert values[5:] == pytest.approx([FORMS[name](s) for s in range(45)], rel=1e-9)


@pytest.mark.parametrize("name", sorted(BUILD))
def test_first_in_sequential_it_is_as_alone(name):
    o = optimizer()
    parts = [BUILD[name](o), LRS.ExponentialLR(o, 0.9)]
    values = stepped(LRS.SequentialLR(o, parts, milestones=[30]), 31)
    assert values[:30] == pytest.approx([FORMS[name](s) for s in range(30)], rel=1e-9)


@pytest.mark.parametrize("name", ["constant", "decay", "swa"])
def test_a_schedule_made_in_mid_training_begins_at_the_rate_of_then(name):
    o = optimizer(0.1, 0.2)
    stepped(LRS.ExponentialLR(o, 0.5), 3)
    schedule = BUILD[name](o)
    assert schedule.lrs(0) == pytest.approx([0.1 / 8, 0.2 / 8])
    resumed = optimizer(0.1, 0.2)  # and so it does where the optimizer was restored, without a step
    resumed.load_state_dict(o.state_dict())
    assert BUILD[name](resumed).lrs(0) == pytest.approx([0.1 / 8, 0.2 / 8])


def test_proportions_are_those_of_the_initial_rates():
    """A cosine ends at one rate for all groups, which may be zero."""
    o = optimizer(0.1, 0.3)
    stepped(LRS.CosineAnnealingLR(o, T_max=10), 10)
    values = lrs(SWASchedule(o, total=10, swa_lr=0.02, start=0.5), 10)
    assert values[0] == pytest.approx([0.0, 0.0])
    assert values[-1] == pytest.approx([0.02, 0.06])


@pytest.mark.parametrize("at", [0, 1, 10, 19, 20, 21, 30])
def test_a_sequence_continues_as_if_it_had_not_stopped(at):
    def build():
        o = optimizer(0.1, 0.2)
        parts = [LRS.CosineAnnealingLR(o, T_max=20), SWASchedule(o, total=20, swa_lr=0.05)]
        return LRS.SequentialLR(o, parts, milestones=[20])

    straight = lrs(build(), 40)
    first = build()
    lrs(first, at)
    second = build()
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert lrs(second, 40 - at) == straight[at:]
