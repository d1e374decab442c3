"""Tasks against torch's losses and distributions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Normal

import lowland as ll
from lowland.core.task import unpack
from tests.models import generator


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator())


def labels(classes: int, *shape: int) -> torch.Tensor:
    return torch.randint(classes, shape, generator=generator())


# -- classification --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.int16])
def test_multiclass(dtype) -> None:
    output, target = randn(9, 4), labels(4, 9)
    task = ll.Classification()
    ours = task.nll(output, target.to(dtype))
    torch.testing.assert_close(ours, F.cross_entropy(output, target, reduction="none"))
    assert task.count((output, target.to(dtype))) == 9
    torch.testing.assert_close(task.probs(output), output.softmax(1))


def test_dense_labels_with_some_ignored() -> None:
    output, target = randn(3, 4, 5, 2), labels(4, 3, 5, 2)
    target[0, :2] = -100
    task = ll.Classification()
    ours = task.nll(output, target)
    theirs = F.cross_entropy(output, target, reduction="none").reshape(-1)
    torch.testing.assert_close(ours, theirs)
    assert task.count((output, target)) == 26
    torch.testing.assert_close(ours.sum() / 26, F.cross_entropy(output, target))
    assert ll.Classification(ignore_index=2).count((output, target)) == int((target != 2).sum())


def test_ignored_labels_of_small_integers() -> None:
    # in eight bits -100 is 156
    target = torch.tensor([156, 3], dtype=torch.uint8)
    task = ll.Classification()
    assert task.count((torch.zeros(2, 200), target)) == 2
    task.check(torch.zeros(2, 200), target)
    with pytest.raises(ll.DataError, match="expected 0 to 99, got 156"):
        task.check(torch.zeros(2, 100), target)
    skip = ll.Classification(ignore_index=255)
    assert skip.count((torch.zeros(2, 4), torch.tensor([255, 3], dtype=torch.uint8))) == 1


@pytest.mark.parametrize("shapes", [((6,), (6,)), ((6, 1), (6, 1)), ((6, 1), (6,)), ((6,), (6, 1))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.float64])
def test_binary(shapes, dtype) -> None:
    output, target = randn(*shapes[0]) * 5, labels(2, *shapes[1]).to(dtype)
    task = ll.Classification()
    theirs = F.binary_cross_entropy_with_logits(
        output.reshape(6), target.reshape(6).float(), reduction="none"
    )
    ours = task.nll(output, target)
    assert ours.shape == (6,)  # broadcasting would give 36
    torch.testing.assert_close(ours, theirs)
    assert task.count((output, target)) == 6
    probs = task.probs(output)
    torch.testing.assert_close(probs[:, 1], output.reshape(6).sigmoid())
    torch.testing.assert_close(probs.sum(1), torch.ones(6))


def test_binary_probabilities_do_not_round_to_zero() -> None:
    probs = ll.Classification().probs(torch.tensor([50.0, -50.0]))
    assert probs[0, 0] > 0
    assert 1 - probs[0, 1] == 0  # broken twin
    torch.testing.assert_close(probs[0, 0], torch.tensor(math.exp(-50)))


def test_multilabel() -> None:
    output, target = randn(5, 3), labels(2, 5, 3)
    theirs = F.binary_cross_entropy_with_logits(output, target.float(), reduction="none").sum(1)
    torch.testing.assert_close(ll.Classification().nll(output, target.float()), theirs)
    strict = ll.Classification("multilabel")
    torch.testing.assert_close(strict.nll(output, target), theirs)
    assert (
        strict.count((output, target)) == ll.Classification().count((output, target.float())) == 5
    )
    torch.testing.assert_close(strict.probs(output), output.sigmoid())
    p = output.sigmoid()
    entropy = torch.distributions.Bernoulli(probs=p).entropy().sum(1)
    torch.testing.assert_close(strict.entropy(p), entropy)


def test_multilabel_maps_are_one_item_a_row() -> None:
    output, target = randn(4, 1, 3, 3), labels(2, 4, 1, 3, 3).float()
    task = ll.Classification()
    theirs = F.binary_cross_entropy_with_logits(output, target, reduction="none").sum((1, 2, 3))
    torch.testing.assert_close(task.nll(output, target), theirs)
    assert task.count((output, target)) == 4


@pytest.mark.parametrize(
    ("output", "target", "says"),
    [
        (
            torch.zeros(4, 3),
            torch.zeros(4, 1, dtype=torch.int64),
            r"integer labels \(4,\), got int64 \(4, 1\); use target.squeeze\(-1\),",
        ),
        (
            torch.zeros(4, 3),
            torch.zeros(5, dtype=torch.int64),
            r"expected targets \(4,\), got \(5,\)",
        ),
        (torch.zeros(4, 3), torch.zeros(4), r"integer labels \(4,\), got float32 .*target.long()"),
        (torch.zeros(4, 3, 2), torch.zeros(4, dtype=torch.int64), r"expected targets \(4, 2\)"),
        (torch.zeros(4, 3), torch.zeros(4, 3, dtype=torch.int64), "name another form="),
        (torch.zeros(4), torch.zeros(3), r"binary classification: for outputs \(4,\)"),
    ],
)
def test_shapes_that_fit_no_form(output, target, says) -> None:
    with pytest.raises(ll.DataError, match=says):
        ll.Classification().nll(output, target)


def test_values_that_cannot_be_labels() -> None:
    task = ll.Classification()
    with pytest.raises(ll.DataError, match="expected 0 to 2, got 3"):
        task.check(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ll.DataError, match="expected 0 to 2, got -1"):
        task.check(torch.zeros(2, 3), torch.tensor([0, -1]))
    task.check(torch.zeros(2, 3), torch.tensor([0, -100]))
    with pytest.raises(ll.DataError, match=r"expected labels 0 or 1, got 0.5"):
        task.check(torch.zeros(2), torch.tensor([0.5, 1]))
    with pytest.raises(ll.DataError, match="0 or 1"):
        task.check(torch.zeros(2), torch.tensor([torch.nan, 1]))
    with pytest.raises(ll.ConfigError, match="multiclass"):
        ll.Classification("soft")
    surface = ll.LossSurface(nn.Linear(2, 3), task, [(torch.zeros(2, 2), torch.tensor([0, 7]))])
    with pytest.raises(ll.DataError, match="labels out of range"):
        surface(torch.zeros(9))


def test_losses_are_never_computed_in_half_precision() -> None:
    output, target = randn(64, 10), labels(10, 64)
    half = output.bfloat16()
    ours = ll.Classification().nll(half, target)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, F.cross_entropy(half.float(), target, reduction="none"))


# -- regression ------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3])
def test_regression_with_a_variance_of_its_own(d) -> None:
    output, target = randn(6, 2 * d), randn(6, d)
    mean, variance = output[:, :d], F.softplus(output[:, d:]) + 1e-6
    theirs = -Normal(mean, variance.sqrt()).log_prob(target).sum(1)
    torch.testing.assert_close(ll.Regression().nll(output, target), theirs)


@pytest.mark.parametrize("d", [1, 3])
def test_regression_with_a_fixed_variance(d) -> None:
    output, target = randn(6, d), randn(6, d)
    theirs = -Normal(output, math.sqrt(0.3)).log_prob(target).sum(1)
    task = ll.Regression(noise_variance=0.3)
    torch.testing.assert_close(task.nll(output, target), theirs)
    assert task.count((output, target)) == 6


@pytest.mark.parametrize("homoscedastic", [True, False])
def test_gaussian_head(homoscedastic) -> None:
    net = nn.Linear(4, 2)
    head = ll.GaussianHead(net, homoscedastic=homoscedastic, noise_variance=0.25)
    x = randn(6, 4)
    raw = net(x)
    noise = F.softplus(head.rho) + 1e-6
    torch.testing.assert_close(noise, torch.tensor(0.25 + 1e-6))
    if homoscedastic:
        mean, variance = raw, noise.expand_as(raw)
    else:
        mean, variance = raw[:, :1], F.softplus(raw[:, 1:]) + noise
    target = randn(6, mean.shape[1])
    theirs = -Normal(mean, variance.sqrt()).log_prob(target).sum(1)
    task = ll.Regression("learned")
    torch.testing.assert_close(task.nll(head(x), target), theirs)
    # rho is a part of w, and has the derivative that it should
    surface = ll.LossSurface(head, task, [(x, target)])
    w = surface.layout.flatten(head)
    assert "rho" in surface.layout.names
    step = torch.zeros_like(w, dtype=torch.float64)
    step[surface.layout.names.index("rho")] = 1e-3
    slope = (surface((w + step).float()) - surface((w - step).float())) / 2e-3
    gradient = surface.value_and_grad(w)[1]
    assert float(gradient[0]) == pytest.approx(float(slope), rel=1e-2)


def test_gaussian_head_of_an_odd_number_of_outputs() -> None:
    mean, variance = ll.GaussianHead(nn.Linear(4, 3))(randn(2, 4)).chunk(2, 1)
    assert mean.shape == variance.shape == (2, 3)
    torch.testing.assert_close(variance, torch.full((2, 3), 0.1 + 1e-6))


@pytest.mark.parametrize(
    ("output", "target"),
    [((5, 1), (5,)), ((5,), (5, 1)), ((5, 1), (5, 2)), ((5, 1), (1, 1)), ((5, 1, 1), (5, 1))],
)
def test_regression_never_broadcasts(output, target) -> None:
    with pytest.raises(ll.DataError, match=r"expected (targets|outputs)"):
        ll.Regression(noise_variance=1.0).nll(torch.zeros(output), torch.zeros(target))
    # what the broken twin would take: torch broadcasts all of these but the first two silently
    assert torch.broadcast_shapes(output, target)


def test_regression_errors_say_what_to_do() -> None:
    with pytest.raises(ll.DataError, match="GaussianHead"):
        ll.Regression().nll(torch.zeros(5, 3), torch.zeros(5, 1))
    with pytest.raises(ll.DataError, match=r"use y\[:, None\]"):
        ll.Regression().nll(torch.zeros(5, 2), torch.zeros(5))
    for wrong in (0, -1.0, "fixed", math.inf, math.nan):
        with pytest.raises(ll.ConfigError, match="noise_variance"):
            ll.Regression(wrong)
    with pytest.raises(ll.ConfigError, match="constant target"):
        ll.Regression(target_std=0.0)
    with pytest.raises(ll.DataError, match="drop those rows"):
        ll.Regression().check(torch.zeros(1, 2), torch.tensor([[torch.nan]]))


def test_learned_variance_without_its_head_is_an_error_not_a_nan() -> None:
    net = nn.Linear(2, 2)
    surface = ll.LossSurface(net, ll.Regression("learned"), [(torch.ones(3, 2), torch.ones(3, 1))])
    with pytest.raises(ll.DataError, match="wrap the model in GaussianHead"):
        surface(torch.full((6,), -1.0))


# -- language --------------------------------------------------------------------------------------


def oracle(logits, ids, counts) -> tuple[float, int]:
    """-log p of token t+1 at position t, one by one."""
    total, n = 0.0, 0
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1] - 1):
            if counts[b, t + 1]:
                total -= float(logits[b, t].double().log_softmax(0)[ids[b, t + 1]])
                n += 1
    return total, n


@pytest.mark.parametrize("kind", ["labels", "mask", "bare", "tensor", "bytes"])
def test_language_modelling_shifts_once(kind) -> None:
    ids = labels(200, 3, 6)
    logits = randn(3, 6, 200)
    counts = torch.ones_like(ids, dtype=torch.bool)
    counts[1, 3:] = False
    task = ll.LanguageModeling()
    if kind == "labels":
        batch = {"input_ids": ids, "labels": ids.masked_fill(~counts, -100)}
    elif kind == "mask":
        batch = {"input_ids": ids, "attention_mask": counts.long()}
    elif kind == "bytes":  # small integers, in which -100 is a token
        ids[0, 1] = 156
        batch = {"input_ids": ids.to(torch.uint8), "attention_mask": counts.long()}
    else:
        counts[:] = True
        batch = {"input_ids": ids} if kind == "bare" else ids
    _, kwargs, target = task.unpack(batch)
    assert "labels" not in kwargs  # the model would compute a loss of its own
    total, n = oracle(logits, ids, counts)
    task.check(logits, target)
    assert task.count(batch) == n
    assert float(task.nll(logits, target).sum()) == pytest.approx(total, rel=1e-5)
    # broken twins: not shifted, shifted twice
    flat = F.cross_entropy(logits.reshape(-1, 200), target.reshape(-1).long(), reduction="sum")
    assert float(flat) != pytest.approx(total, rel=1e-3)


def test_language_modelling_refuses_what_does_not_fit() -> None:
    task = ll.LanguageModeling()
    with pytest.raises(ll.DataError, match=r"expected logits \(B, T, V\)"):
        task.nll(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ll.DataError, match="tokenizer"):
        task.check(torch.zeros(1, 2, 5), torch.tensor([[1, 5]]))
    with pytest.raises(ll.DataError, match="labels or input_ids"):
        task.unpack({"inputs_embeds": torch.zeros(1, 2, 3)})


# -- a task of one's own, batches ------------------------------------------------------------------


class Poisson(ll.Task):
    def nll(self, output, target):
        rate = output.squeeze(-1)
        return rate.exp() - target * rate + torch.lgamma(target + 1)


def test_a_task_of_ones_own_end_to_end() -> None:
    g = generator()
    x = torch.randn(40, 2, generator=g, dtype=torch.float64)
    y = torch.poisson((x @ torch.tensor([0.5, -0.3], dtype=torch.float64)).exp(), generator=g)
    model = nn.Linear(2, 1).double()
    surface = ll.LossSurface(model, Poisson(), [(x[:25], y[:25]), (x[25:], y[25:])])
    w = torch.zeros(3, dtype=torch.float64)
    for _ in range(200):
        w = w - 0.3 * surface.value_and_grad(w)[1]
    value, gradient = surface.value_and_grad(w)
    assert float(gradient.norm()) < 1e-6
    rate = (x @ w[:2] + w[2]).exp()
    assert float(value) == pytest.approx(
        float(-torch.distributions.Poisson(rate).log_prob(y).mean())
    )


class Reduced(ll.Task):
    def nll(self, output, target):
        return (output - target).square().mean()


def test_a_reduced_loss_is_refused() -> None:
    surface = ll.LossSurface(nn.Linear(2, 1), Reduced(), [(torch.ones(3, 2), torch.ones(3, 1))])
    with pytest.raises(ll.DataError, match="do not reduce the loss"):
        surface(torch.zeros(3))


X, Y, Z = torch.zeros(2, 3), torch.zeros(2), torch.ones(2, 1)


@pytest.mark.parametrize(
    ("batch", "args", "kwargs", "target"),
    [
        ((X, Y), (X,), {}, Y),
        ([X, Y], (X,), {}, Y),
        ((X, Z, Y), (X, Z), {}, Y),
        ((X,), (X,), {}, None),
        (X, (X,), {}, None),
        ({"x": X, "labels": Y}, (), {"x": X}, Y),
        ({"x": X, "y": Y}, (), {"x": X}, Y),
        ({"x": X}, (), {"x": X}, None),
        (({"x": X, "z": Z}, Y), (), {"x": X, "z": Z}, Y),
        (({"x": X},), (), {"x": X}, None),
    ],
)
def test_batch_formats(batch, args, kwargs, target) -> None:
    found = unpack(batch)
    assert len(found.args) == len(args)
    assert all(a is b for a, b in zip(found.args, args, strict=True))
    assert found.kwargs.keys() == kwargs.keys()
    assert all(found.kwargs[key] is value for key, value in kwargs.items())
    assert found.target is target


def test_unpacking_of_ones_own() -> None:
    task = ll.Classification(unpack=lambda b: ((b["image"],), {}, b["digit"]))
    batch = {"image": torch.zeros(2, 3), "digit": torch.tensor([0, 1])}
    surface = ll.LossSurface(nn.Linear(3, 2), task, [batch])
    assert float(surface(torch.zeros(8))) == pytest.approx(math.log(2))
    with pytest.raises(ll.DataError, match="empty tuple"):
        unpack(())


def test_outputs() -> None:
    task = ll.Classification()
    assert task.output(X) is X
    assert task.output({"logits": X}) is X
    assert task.output((X, None)) is X
    assert task.output(type("Out", (), {"logits": X})()) is X
    with pytest.raises(ll.DataError, match=r"override Task.output"):
        task.output({"scores": X})
