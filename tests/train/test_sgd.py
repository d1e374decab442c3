"""The training loop against loops written out by hand, and what it leaves alone."""

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.tensor_files import same_tree
from lowland.train.rng import rng_state
from tests.models import conv_bn, images
from tests.train.resuming import network, rows

TASK = ll.Classification()


def batches(size=5, **options):
    return ll.Batches(rows(), batch_size=size, seed=2, **options)


def plain(epochs=2, seed=0, make=None, schedule=None, clip=None, accumulate=1, autocast=None):
    """What everybody writes."""
    torch.manual_seed(seed)
    keep = torch.get_rng_state()
    model = network()
    torch.set_rng_state(keep)
    optimizer = (make or (lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)))(model.parameters())
    scheduler = schedule(optimizer) if schedule else None
    losses, data = [], batches()
    for epoch in range(epochs):
        model.train()
        total = items = 0
        parts = list(data.epoch(epoch))
        for start in range(0, len(parts), accumulate):
            optimizer.zero_grad()
            group = parts[start : start + accumulate]
            for x, y in group:
                with torch.autocast("cpu", dtype=autocast, enabled=autocast is not None):
                    output = model(x)
                loss = F.cross_entropy(output.float(), y, reduction="none").sum() / len(y)
                (loss / accumulate).backward()
                total, items = total + loss.item() * len(y), items + len(y)
            if len(group) < accumulate:
                for p in model.parameters():
                    p.grad.mul_(accumulate / len(group))
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
        losses.append(total / items)
    return model, losses


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optimizer": lambda p: torch.optim.Adam(p, lr=1e-2)},
        {"schedule": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.2, total_steps=10)},
        {"clip": 0.05},
        {"accumulate": 2},
        {"accumulate": 3, "clip": 0.1},
        {"autocast": torch.bfloat16},
        {"seed": 5},
    ],
    ids=lambda o: "-".join(o) or "bare",
)
def test_equals_the_loop_by_hand_bit_by_bit(options):
    model = network()
    log = ll.sgd(model, TASK, batches(), epochs=2, **options)
    by_hand = {"make" if k == "optimizer" else k: v for k, v in options.items()}
    expected, losses = plain(**by_hand)
    assert same_tree(dict(model.state_dict()), dict(expected.state_dict()))
    assert log.columns["loss"].tolist() == losses
    assert log.columns["epoch"].tolist() == [1, 2]


def test_the_last_batches_of_an_epoch_are_a_mean_too():
    """The broken twin divides one batch's gradient by all that an optimizer step usually has."""
    x, y = torch.randn(6, 6), torch.randint(3, (6,))
    makes = {"lr": 1.0}
    whole, pieces = nn.Linear(6, 3), nn.Linear(6, 3)
    pieces.load_state_dict(whole.state_dict())
    data = ll.Batches((x, y), batch_size=2, shuffle=False)
    ll.sgd(
        pieces, TASK, data, epochs=1, accumulate=8, optimizer=lambda p: torch.optim.SGD(p, **makes)
    )
    data = ll.Batches((x, y), batch_size=6, shuffle=False)
    ll.sgd(whole, TASK, data, epochs=1, optimizer=lambda p: torch.optim.SGD(p, **makes))
    torch.testing.assert_close(pieces.weight, whole.weight)


def test_clip_sees_what_is_optimised_alone():
    """Gradients of layers that the optimizer does not hold pile up, and are no part of the norm."""

    def head_alone(frozen):
        model = network()
        model[0].requires_grad_(not frozen)
        model[1].requires_grad_(not frozen)
        make = lambda _: torch.optim.SGD(model[4].parameters(), lr=0.5)  # noqa: E731
        ll.sgd(model, TASK, batches(), epochs=1, optimizer=make, clip=0.01)
        return model[4].weight

    assert torch.equal(head_alone(True), head_alone(False))


def test_channels_last_is_a_memory_format():
    (x, y), *_ = images((16,))
    found = []
    for channels_last in (False, True):
        torch.manual_seed(0)
        model = conv_bn()
        data = ll.Batches((x, y), batch_size=8)
        seen = []
        model.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(
                args[0].is_contiguous(memory_format=torch.channels_last)
            )
        )
        ll.sgd(model, TASK, data, epochs=2, channels_last=channels_last)
        assert set(seen) == {channels_last}
        found.append(model[0].weight)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


class Steps:
    """A collector that writes down what it sees."""

    def __init__(self):
        self.seen = []

    def step(self, model):
        self.seen.append((model[0].weight.detach().clone(), model.training))
        return True

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_collectors_validation_and_schedule_run_when_they_should():
    model, steps, rates = network(), Steps(), []
    layout = ll.ParamLayout(model)
    ema, swa = ll.EMA(layout, decay=0.9), ll.SWA(layout)
    calls = []

    def validate(net):
        assert net is model
        assert not any(m.training for m in net.modules())
        assert not torch.is_grad_enabled()
        calls.append(net[0].weight.detach().clone())
        return {"late": 1.0} if len(calls) > 1 else {}

    log = ll.sgd(
        model,
        TASK,
        batches(),
        epochs=3,
        accumulate=2,
        collectors=[steps, ll.Collector(ema, swa, when=ll.Every(3))],
        validate=validate,
        schedule=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda s: rates.append(s) or 1.0),
    )
    assert len(steps.seen) == 3 * 3  # ceil(5 / 2) an epoch
    assert rates == list(range(10))  # once when made, once an optimizer step
    assert all(training for _, training in steps.seen)
    assert [torch.equal(calls[e], steps.seen[3 * e + 2][0]) for e in range(3)] == [True] * 3
    taken = [steps.seen[i][0].flatten() for i in (2, 5, 8)]
    first = slice(0, taken[0].numel())
    torch.testing.assert_close(swa.mean[first], torch.stack(taken).mean(0))
    assert ema.count == 3
    # a figure that comes later than the first epoch leaves a gap, not a shorter column
    assert log.columns["late"].isnan().tolist() == [True, False, False]
    assert {len(c) for c in log.columns.values()} == {3}


def test_what_belongs_to_the_caller_stays():
    model = network()
    model[1].eval()  # held in evaluation mode, as in fine-tuning
    before, mean = rng_state(), model[1].running_mean.clone()
    modes = [m.training for m in model.modules()]
    seen = []
    model[3].register_forward_hook(lambda *_: seen.append((model[1].training, model[3].training)))
    torch.manual_seed(7), np.random.seed(7), random.seed(7)  # noqa: NPY002
    before = rng_state()
    ll.sgd(model, TASK, batches(), epochs=2, validate=lambda m: {"a": 1.0})
    assert same_tree(rng_state(), before)
    assert set(seen) == {(False, True)}
    assert torch.equal(model[1].running_mean, mean)
    assert [m.training for m in model.modules()] == modes
    network_in_eval = network().eval()
    ll.sgd(network_in_eval, TASK, batches(), epochs=1)
    assert not any(m.training for m in network_in_eval.modules())


def test_the_seed_decides_whatever_the_global_state_is():
    found = []
    for state in (1, 2):
        model = network()
        torch.manual_seed(state)
        ll.sgd(model, TASK, batches(), epochs=1, seed=4)
        found.append(model[4].weight)
    assert torch.equal(*found)
    model = network()
    ll.sgd(model, TASK, batches(), epochs=1, seed=5)
    assert not torch.equal(model[4].weight, found[0])  # another dropout


def test_a_loss_that_is_not_finite_names_its_place(tmp_path):
    x, y = rows()
    x[12] = float("nan")
    model, layout = network(), ll.ParamLayout(network())
    store = ll.Trajectory.create(tmp_path / "store", layout)
    data = ll.Batches((x, y), batch_size=5, shuffle=False)
    with pytest.raises(ll.NonFiniteError, match=r"nan at step 3 \(epoch 1, batch 3\)"):
        ll.sgd(model, TASK, data, epochs=2, collectors=[ll.Collector(store, when=ll.Every(1))],
               checkpoint=tmp_path / "c", checkpoint_steps=1)  # fmt: skip
    assert ll.Trajectory.open(tmp_path / "store").steps == [1, 2]
    good = store[1]
    # with the example mended, the run goes on from the state before
    x[12] = 0
    again = network()
    store = ll.Trajectory.open(tmp_path / "store", layout=layout)
    ll.sgd(again, TASK, data, epochs=2, collectors=[ll.Collector(store, when=ll.Every(1))],
           checkpoint=tmp_path / "c", checkpoint_steps=1)  # fmt: skip
    assert torch.equal(store[1].weights, good.weights)
    assert len(store) == 10


def test_weights_that_overflow_do_not_replace_a_good_checkpoint(tmp_path):
    model = nn.Linear(6, 3)

    def overflow(parameters):
        made = torch.optim.SGD(parameters, lr=0.1)

        def hook(*_):
            with torch.no_grad():
                model.weight[0, 0] = float("inf")

        made.register_step_post_hook(hook)
        return made

    data = ll.Batches(rows(), batch_size=23)
    with pytest.raises(ll.NonFiniteError, match="no checkpoint at step 1"):
        ll.sgd(model, TASK, data, epochs=1, optimizer=overflow, checkpoint=tmp_path / "c")
    fresh = nn.Linear(6, 3)
    ll.sgd(fresh, TASK, data, epochs=1, checkpoint=tmp_path / "c",
           optimizer=lambda p: torch.optim.SGD(p, lr=0.1))  # fmt: skip
    assert bool(fresh.weight.isfinite().all())


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ([(torch.randn(4, 6), torch.tensor([0, 1, 2, 3]))], "labels out of range.*got 3"),
        ([(torch.randn(4, 6), torch.zeros(3).long())], "expected targets"),
        ([(torch.randn(4, 6), torch.zeros(4))], "integer labels"),
        ([(torch.randn(4, 6),)], "no target"),
        ([], "empty"),
        (iter([]), "empty"),
    ],
    ids=["range", "rows", "float", "unlabelled", "empty", "iterator"],
)
def test_data_that_do_not_fit(data, says):
    with pytest.raises(ll.DataError, match=says):
        ll.sgd(network(), TASK, data, epochs=1)


def test_regression_targets_are_never_broadcast():
    net = nn.Linear(6, 1)
    with pytest.raises(ll.DataError, match=r"expected targets \(4, 1\)"):
        ll.sgd(
            net, ll.Regression(noise_variance=1.0), [(torch.randn(4, 6), torch.randn(4))], epochs=1
        )


class Reduced(ll.Task):
    """A loss that is a mean already: divided by the examples again, it would train too slowly."""

    def nll(self, output, target):
        return F.cross_entropy(output, target)


def test_a_reduced_loss_is_refused():
    with pytest.raises(ll.DataError, match="do not reduce"):
        ll.sgd(network(), Reduced(), batches(), epochs=1)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(zip(*rows(), strict=True))


def test_a_stream_without_length_can_be_trained_on(tmp_path):
    loader = torch.utils.data.DataLoader(Stream(), batch_size=5)
    seen = []
    ll.sgd(network(), TASK, loader, epochs=2, checkpoint=tmp_path / "c",
           progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen[-1] == (10, None)


def test_progress_counts_optimizer_steps():
    seen = []
    ll.sgd(network(), TASK, batches(), epochs=2, accumulate=2,
           progress=lambda done, total: seen.append((done, total)))  # fmt: skip
    assert seen[-1] == (6, 6)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_settings_that_make_no_sense():
    for options in ({"epochs": 0}, {"epochs": 1, "accumulate": 0}):
        with pytest.raises(ll.ConfigError):
            ll.sgd(network(), TASK, batches(), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"optimizer": torch.optim.SGD([torch.zeros(1)], lr=1.0)}, r"optimizer: .*lambda params"),
        ({"optimizer": "adam"}, r"optimizer: expected a function, got 'adam'; write optimizer="),
        ({"schedule": 5}, r"schedule: expected a function, got 5; write schedule=lambda"),
        ({"validate": {}}, r"validate: expected a function"),
        ({"collectors": [ll.SWA(ll.ParamLayout(nn.Linear(2, 1)))]}, r"list of .*, got SWA; write"),
        ({"collectors": ll.Collector(when=ll.Every(1))}, r"list of ll.Collector, got Collector"),
        ({"device": "meta"}, r"device: nothing can be computed on 'meta'"),
    ],
)
def test_what_is_no_function_or_collector_is_reported(options, words):
    data = [(torch.ones(2, 2), torch.ones(2, 1))]
    with pytest.raises(ll.ConfigError, match=words):
        ll.sgd(nn.Linear(2, 1), ll.Regression(1.0), data, epochs=1, **options)


def test_masked_tokens_do_not_count():
    """The loss of a batch is the mean over its items, however many there are."""
    from tests.models import TiedLM, tokens

    torch.manual_seed(0)
    model, twin = TiedLM(), TiedLM()
    twin.load_state_dict(model.state_dict())
    batch = tokens((4,))[0]
    make = lambda p: torch.optim.SGD(p, lr=0.5)  # noqa: E731
    ll.sgd(model, ll.LanguageModeling(), [batch], epochs=1, optimizer=make)
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)[:, 1:]
    loss = F.cross_entropy(twin(**batch).logits[:, :-1].flatten(0, 1), labels.flatten())
    optimizer = make(twin.parameters())
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(model.embed.weight, twin.embed.weight)


def test_rules_that_ask_for_more_than_a_step_are_refused():
    data = [(torch.randn(4, 2), torch.randn(4, 1))]
    task = ll.Regression(noise_variance=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    with pytest.raises(ll.ConfigError, match="ReduceLROnPlateau needs a metric"):
        ll.sgd(nn.Linear(2, 1), task, data, epochs=1, schedule=plateau)


@pytest.mark.parametrize("clip", [0, -1.0, math.inf, math.nan])
def test_a_norm_to_clip_at_is_positive(clip):
    data = [(torch.randn(4, 2), torch.randn(4, 1))]
    with pytest.raises(ll.ConfigError, match="clip"):
        ll.sgd(nn.Linear(2, 1), ll.Regression(noise_variance=1.0), data, epochs=1, clip=clip)


def test_an_iterator_is_told_from_an_empty_loader():
    data = iter([(torch.randn(4, 2), torch.randn(4, 1))])
    with pytest.raises(ll.DataError, match="give a loader, not an iterator"):
        ll.sgd(nn.Linear(2, 1), ll.Regression(noise_variance=1.0), data, epochs=2)


def test_autocast_is_the_devices_own():
    from lowland.core.template import autocast_dtype

    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert autocast_dtype(True, cpu) is torch.bfloat16
    assert autocast_dtype(True, gpu) is torch.float16  # so that losses are scaled, and fit refuses
    assert autocast_dtype(torch.bfloat16, gpu) is torch.bfloat16
    assert autocast_dtype(None, gpu) is autocast_dtype(False, gpu) is None
