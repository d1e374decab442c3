"""The items of validation examples, their halves, and the NLLs of candidates."""

import math

import numpy as np
import pytest
import torch
from torch import nn

import lowland as ll
from lowland.averaging.validation import Validation
from lowland.errors import DataError
from tests import models
from tests.averaging import least_squares


def language() -> tuple[ll.LossSurface, list]:
    torch.manual_seed(0)
    surface = ll.LossSurface(models.TiedLM(), ll.LanguageModeling(), models.tokens())
    return surface, models.tokens((3, 2))


def test_the_nlls_are_those_of_each_example() -> None:
    x, y, w = least_squares.problem(20, 3)
    surface = least_squares.surface(x, y)
    validation = Validation(surface, least_squares.batches(x, y))
    np.testing.assert_allclose(validation.nlls(w).numpy(), least_squares.nlls(x, y, w), rtol=1e-6)
    assert (validation.items, validation.groups) == (20, None)
    draws = ll.Gaussian(w, torch.ones(3).double())
    validation.nlls(draws, samples=5)
    assert (validation.evaluations, validation.gradients) == (6, 0)
    assert bool((validation.nlls(1e200 * w) == math.inf).all())


def test_halves_are_random_whole_and_apart() -> None:
    x, y, w = least_squares.problem(21, 3)
    surface = least_squares.surface(x, y)
    validation = Validation(surface, least_squares.batches(x, y))
    first, second = validation.halves()
    inputs = [torch.cat([batch.args[0] for batch in half]) for half in (first, second)]
    assert torch.equal(inputs[0], x[validation.in_first_half])
    assert torch.equal(inputs[1], x[~validation.in_first_half])
    assert (len(inputs[0]), len(inputs[1])) == (10, 11)
    loss, _ = validation.value_and_grad(surface.point(w), first)
    assert float(loss) == pytest.approx(
        least_squares.nlls(x, y, w)[validation.in_first_half.numpy()].mean()
    )
    assert validation.gradients == pytest.approx(10 / 21)
    # sorted examples would put a class into one half
    assert not bool(validation.in_first_half[:10].all())
    other = Validation(surface, least_squares.batches(x, y), seed=1)
    assert not torch.equal(other.in_first_half, validation.in_first_half)


def test_groups_stay_together() -> None:
    x, y, _ = least_squares.problem(20, 3)
    labels = [f"patient {i // 4}" for i in range(20)]
    validation = Validation(least_squares.surface(x, y), least_squares.batches(x, y), groups=labels)
    assert validation.groups.tolist() == [i // 4 for i in range(20)]
    assert int(validation.in_first_half.sum()) == 8
    assert len(set(validation.in_first_half.reshape(5, 4).sum(1).tolist()) - {0, 4}) == 0


def test_items_of_an_example_are_a_group() -> None:
    surface, loader = language()
    validation = Validation(surface, loader)
    labels = torch.cat([surface.task.parts(batch).target for batch in loader])
    counts = (labels[:, 1:] != -100).sum(1)
    assert validation.items == int(counts.sum())
    assert torch.equal(validation.groups, torch.arange(5).repeat_interleave(counts))
    assert len(validation.nlls(surface.point(models.TiedLM()))) == validation.items
    assert len(set(validation.groups[validation.in_first_half].tolist())) == 2


@pytest.mark.parametrize("kind", ["ignored", "multilabel", "segmented"])
def test_items_that_do_not_count_are_left_out(kind: str) -> None:
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    net, items, ignored = nn.Linear(4, 3), 6, -100
    target = torch.tensor([0, 1, -100, 2, 1, 0])
    if kind == "ignored":
        items = 5
    elif kind == "multilabel":
        target = (x[:, :3] > 0).float()
    else:
        (x, target), *_ = models.segmented()
        net, ignored = models.pixelwise(3), 255
        items = int((target != ignored).sum())
    task = ll.Classification(ignore_index=ignored)
    surface = ll.LossSurface(net, task, [(x, target)])
    validation = Validation(surface, [(x, target)])
    assert validation.items == items == len(validation.nlls(surface.point(net)))
    assert len(validation.in_first_half) == items


def test_a_choice_is_evaluated_on_the_other_half() -> None:
    x, y, _ = least_squares.problem(20, 3)
    validation = Validation(least_squares.surface(x, y), least_squares.batches(x, y))
    half = validation.in_first_half
    good, bad = torch.zeros(20), torch.ones(20)
    # setting 0 is best on the first half, setting 1 on the second
    nlls = torch.stack([torch.where(half, good, 3 * bad), torch.where(half, 2 * bad, good)])
    best, held_out = validation.best_of(nlls)
    assert best == 1
    assert torch.equal(held_out, torch.where(half, 2 * bad, 3 * bad))


def test_invalid_examples_are_refused() -> None:
    x, y, w = least_squares.problem(20, 3)
    surface = least_squares.surface(x, y)
    with pytest.raises(DataError, match="expected validation examples, got None"):
        Validation(surface, None)
    with pytest.raises(DataError, match="empty"):
        Validation(surface, [])
    with pytest.raises(DataError, match="no targets; give labelled"):
        Validation(surface, [x])
    with pytest.raises(DataError, match=r"groups: expected 20 labels.*, got 3"):
        Validation(surface, least_squares.batches(x, y), groups=[0, 1, 2])
    one = Validation(surface, [(x[:1], y[:1])])
    with pytest.raises(DataError, match="at least two validation items, got 1"):
        one.select({"a": one.nlls(w)}, "a")
    with pytest.raises(DataError, match="cannot be split into halves"):
        one.halves()
