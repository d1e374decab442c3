"""Optimizers and schedules by name are torch's own, made by hand."""

import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

import lowland as ll

LR = 0.4


def parameters():
    return [nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 3.0]]))]


def rates(schedule, steps, **arguments):
    optimizer = torch.optim.SGD(parameters(), lr=LR)
    made = schedule(optimizer, **arguments)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


@pytest.mark.parametrize(
    ("name", "cls", "arguments"),
    [
        ("AdamW", torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.05}),
        ("adamw", torch.optim.AdamW, {"lr": 1e-3, "betas": (0.8, 0.9)}),
        ("SGD", torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        ("RMSprop", torch.optim.RMSprop, {}),
        ("lbfgs", torch.optim.LBFGS, {"lr": 0.5}),
        ("Muon", torch.optim.Muon, {"lr": 0.02}),
    ],
)
def test_an_optimizer_by_name_takes_the_same_steps(name, cls, arguments):
    mine, theirs = parameters(), parameters()
    for values, optimizer in (
        (mine, ll.optimizer_named(name, **arguments)(mine)),
        (theirs, cls(theirs, **arguments)),
    ):
        assert type(optimizer) is cls

        def closure(optimizer=optimizer, values=values):
            optimizer.zero_grad()
            loss = values[0].pow(4).sum()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
    assert torch.equal(mine[0], theirs[0])


def test_cosine_after_a_warm_up_by_hand():
    found = rates(ll.schedule_named("cosine", total=12, warmup=4), 12)
    expected = [LR * (s + 1) / 5 for s in range(4)]
    expected += [LR * 0.5 * (1 + math.cos(math.pi * s / 8)) for s in range(8)]
    assert found == pytest.approx(expected, abs=1e-12)
    assert rates(ll.schedule_named("Cosine", total=12, warmup=1 / 3), 12) == found  # a share


@pytest.mark.parametrize(
    ("name", "options", "torchs"),
    [
        ("cosine", {"total": 9}, lambda o: lr_scheduler.CosineAnnealingLR(o, 9)),
        ("cosine", {"total": 9, "eta_min": 0.1},
         lambda o: lr_scheduler.CosineAnnealingLR(o, 9, eta_min=0.1)),
        ("linear", {"total": 9}, lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 9)),
        ("constant", {}, lambda o: lr_scheduler.ConstantLR(o, 1.0)),
        ("StepLR", {"step_size": 3, "gamma": 0.5}, lambda o: lr_scheduler.StepLR(o, 3, 0.5)),
        ("onecyclelr", {"max_lr": 1.0, "total_steps": 9},
         lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=9)),
        ("DecaySchedule", {"total": 9}, lambda o: ll.DecaySchedule(o, total=9)),
    ],
)  # fmt: skip
def test_schedules_by_name_are_those_by_hand(name, options, torchs):
    assert rates(ll.schedule_named(name, **options), 9) == rates(torchs, 9)


def test_a_warm_up_before_any_schedule():
    found = rates(ll.schedule_named("StepLR", warmup=3, step_size=2, gamma=0.5), 8)
    expected = [LR / 4, LR / 2, 3 * LR / 4, LR, LR, LR / 2, LR / 2, LR / 4]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_run_by_names_is_the_run_by_hand_and_goes_on_where_it_was_stopped(tmp_path):
    x, y = torch.randn(20, 4), torch.randint(3, (20,))

    def run(optimizer, schedule, **options):
        torch.manual_seed(0)
        net = nn.Linear(4, 3)
        ll.sgd(
            net, ll.Classification(), ll.Batches((x, y), batch_size=5), epochs=3,
            optimizer=optimizer, schedule=schedule, **options,
        )  # fmt: skip
        return net.weight

    named = (
        ll.optimizer_named("AdamW", lr=0.01, weight_decay=0.1),
        ll.schedule_named("cosine", total=12, warmup=0.25),
    )

    def by_hand(optimizer):
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / 4, total_iters=3)
        rest = lr_scheduler.CosineAnnealingLR(optimizer, 9)
        return lr_scheduler.SequentialLR(optimizer, [warmup, rest], milestones=[3])

    whole = run(*named)
    adamw = lambda params: torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)  # noqa: E731
    assert torch.equal(whole, run(adamw, by_hand))
    for at in (2, 3, 4, 9):  # around the end of the warm-up, and in the third epoch

        def stop(done, total, at=at):
            if done == at:
                raise KeyboardInterrupt

        options = {"checkpoint": tmp_path / f"{at}", "checkpoint_steps": 1}
        with pytest.raises(KeyboardInterrupt):
            run(*named, **options, progress=stop)
        assert torch.equal(run(*named, **options), whole)
    with pytest.raises(ll.ConfigError, match=r"other settings .*schedule: SequentialLR"):
        run(named[0], ll.schedule_named("cosine", total=12, warmup=0.5), **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ll.optimizer_named("AdmaW"), "no 'AdmaW' in torch.optim; did you mean 'AdamW'?"),
        (lambda: ll.optimizer_named("zzz"), "no 'zzz' in torch.optim; there are ASGD, Adadelta"),
        (lambda: ll.optimizer_named("AdamW", weight_decy=1), "AdamW has no argument weight_decy="),
        (lambda: ll.optimizer_named("AdamW", weight_decy=1), "write weight_decay= instead"),
        (lambda: ll.optimizer_named("AdamW", momentum=0.9), "no argument momentum=; it takes lr"),
        (lambda: ll.optimizer_named("AdamW", lr=-1.0), "AdamW: Invalid learning rate: -1.0"),
        (lambda: ll.schedule_named("cosin", total=3), "no 'cosin' of torch or lowland; did you m"),
        (lambda: ll.schedule_named("ReduceLROnPlateau"), "no 'ReduceLROnPlateau'"),
        (lambda: ll.schedule_named("cosine"), "cosine needs total=, the optimizer steps in all"),
        (lambda: ll.schedule_named("cosine", total=9, eta=1), "write eta_min= instead"),
        (lambda: ll.schedule_named("StepLR"), "StepLR needs step_size"),
        (lambda: ll.schedule_named("OneCycleLR", max_lr=1.0), "OneCycleLR: You must define either"),
        (lambda: ll.schedule_named("cosine", total=9, warmup=9), "fewer than the 9 steps in all"),
        (lambda: ll.schedule_named("constant", warmup=0.1), "warmup: 0.1 is a share of all steps"),
        (lambda: ll.schedule_named("cosine", total=9, warmup=-1), "warmup: expected a number of"),
        (lambda: ll.schedule_named("cosine", total=9, warmup=1.5), "warmup: expected a whole num"),
    ],
)
def test_wrong_names_and_arguments_are_refused_before_anything_is_trained(make, message):
    with pytest.raises(ll.ConfigError) as caught:
        make()
    assert message in str(caught.value)
