"""L(w): the weighting of items, precision, and options that must not change the value."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.core.model_copy import private_copy
from lowland.errors import LayoutError
from tests.models import Lazy, TiedLM, blobs, conv_bn, generator, images, mlp, tokens


def test_every_item_has_equal_weight() -> None:
    """A mean of batch means would weight the last, smaller batch 8 times."""
    torch.manual_seed(0)
    model = mlp()
    batches = blobs((64, 64, 8))
    surface = ll.LossSurface(model, ll.Classification(), batches)
    w = surface.layout.flatten(model)
    with torch.no_grad():
        each = [F.cross_entropy(model(x).double(), y, reduction="none") for x, y in batches]
    torch.testing.assert_close(surface(w), torch.cat(each).mean(), rtol=1e-6, atol=0)
    means = torch.stack([e.mean() for e in each]).mean()
    assert not torch.allclose(means, surface(w), rtol=1e-4)  # broken twin


def test_every_token_has_equal_weight() -> None:
    torch.manual_seed(0)
    model = TiedLM()
    batches = tokens()
    batches[0]["attention_mask"][:, 2:] = 0
    surface = ll.LossSurface(model, ll.LanguageModeling(), batches)
    total, items, means = 0.0, 0, []
    with torch.no_grad():
        for batch in batches:
            logits = model(**batch).logits
            mask = batch["attention_mask"][:, 1:].bool()
            log_probs = logits[:, :-1].log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None])
            loss = -log_probs[..., 0][mask].double()
            total, items = total + float(loss.sum()), items + len(loss)
            means.append(float(loss.mean()))
    value = float(surface(surface.layout.flatten(model)))
    assert value == pytest.approx(total / items, rel=1e-6)
    assert value != pytest.approx(sum(means) / len(means), rel=1e-4)  # broken twin


def test_the_sum_is_in_float64() -> None:
    """One item of 1e8, then thousands of about 1: in float32 each of these would be lost."""
    y = torch.cat([torch.tensor([[14142.0]]), torch.rand(4000, 1, generator=generator())])
    batches = [(torch.zeros(len(part), 1), part) for part in y.split(4)]
    model = nn.Linear(1, 1, bias=False)
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), batches)
    items = 0.5 * (math.log(2 * math.pi) + y.double() ** 2)
    exact = float(items.sum())
    total = float(surface(torch.zeros(1))) * len(y)
    assert total == pytest.approx(exact, rel=1e-7)
    running = torch.zeros(())
    for part in items.float().split(4):
        running += part.sum()
    assert abs(float(running) - exact) > 100 * abs(total - exact)  # broken twin


def test_constants_are_included() -> None:
    x, y = torch.zeros(4, 1), torch.zeros(4, 1)
    surface = ll.LossSurface(nn.Linear(1, 1), ll.Regression(noise_variance=2.0), [(x, y)])
    assert float(surface(torch.zeros(2))) == pytest.approx(0.5 * math.log(4 * math.pi))
    loglik = surface.log_likelihood(torch.zeros(2))
    assert loglik.dtype == torch.float64
    assert float(loglik) == pytest.approx(-2 * math.log(4 * math.pi))


def test_another_loader() -> None:
    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), blobs())
    other = blobs((30, 3))
    w = surface.layout.flatten(model)
    alone = ll.LossSurface(model, ll.Classification(), other)
    assert surface(w, loader=other) == alone(w)
    assert surface.log_likelihood(w, loader=other) == alone.log_likelihood(w) == -33 * alone(w)


@pytest.mark.parametrize("batchnorm", ["refresh", "frozen"])
def test_bfloat16_autocast_is_close(batchnorm) -> None:
    torch.manual_seed(0)
    model = conv_bn()
    plain = ll.LossSurface(model, ll.Classification(), images())
    fast = ll.LossSurface(model, ll.Classification(), images(), autocast=torch.bfloat16)
    w = plain.layout.flatten(model)
    near = fast(w, batchnorm=batchnorm)
    assert near != plain(w, batchnorm=batchnorm)
    torch.testing.assert_close(near, plain(w, batchnorm=batchnorm), rtol=2e-2, atol=0)
    gradient = fast.value_and_grad(w)[1]
    cosine = F.cosine_similarity(gradient, plain.value_and_grad(w)[1], 0)
    assert cosine > 0.99
    same = ll.LossSurface(model, ll.Classification(), images(), autocast=True)
    assert same(w, batchnorm=batchnorm) == near


def test_channels_last_is_the_same_function() -> None:
    torch.manual_seed(0)
    model = conv_bn()
    plain = ll.LossSurface(model, ll.Classification(), images())
    last = ll.LossSurface(model, ll.Classification(), images(), channels_last=True)
    w = plain.layout.flatten(model)
    torch.testing.assert_close(last(w), plain(w), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        last.value_and_grad(w)[1], plain.value_and_grad(w)[1], rtol=1e-4, atol=1e-6
    )
    batch = images()[0]
    assert last.value_and_grad(w, batch)[0] == pytest.approx(plain.value_and_grad(w, batch)[0])


def test_weights_of_any_float_dtype() -> None:
    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), blobs())
    w = surface.layout.flatten(model)
    assert surface(w.double()) == surface(w)
    assert surface.value_and_grad(w.double())[1].dtype == torch.float64


def test_where_freezes_the_rest() -> None:
    torch.manual_seed(0)
    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), blobs(), where=r"^2\.")
    w = surface.layout.flatten(model)
    full_surface = ll.LossSurface(model, ll.Classification(), blobs())
    assert surface.layout.size == 24
    assert surface(w) == full_surface(full_surface.layout.flatten(model))
    gradient = full_surface.value_and_grad(full_surface.layout.flatten(model))[1]
    torch.testing.assert_close(surface.value_and_grad(w)[1], gradient[-24:])


def test_training_the_model_later_does_not_change_the_surface() -> None:
    model = conv_bn()
    surface = ll.LossSurface(model, ll.Classification(), images())
    w = surface.layout.flatten(model)
    before = surface(w, batchnorm="frozen")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.mul_(3)
    assert surface(w, batchnorm="frozen") == before


def test_calls_are_independent() -> None:
    """Buffers that a forward pass fills or writes have their first values at every call."""
    torch.manual_seed(0)
    model = Lazy()
    a, b = blobs((4, 4))
    surface = ll.LossSurface(model, ll.Classification(), [a])
    w = surface.layout.flatten(model)
    first = surface.loss(w, a)
    surface.loss(w, b)
    torch.func.vmap(lambda u: surface.loss(u, b))(torch.stack([w, w + 1]))
    surface.value_and_grad(w, b)
    assert surface.loss(w, a) == first
    # broken twin: a plain call of the template keeps the first call's values
    twin = private_copy(model).eval()
    losses = [F.cross_entropy(twin(x), y) for x, y in (b, a)]
    assert losses[1] != first


def test_dropout_is_on_in_training_steps_alone() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    surface = ll.LossSurface(model, ll.Classification(), blobs())
    w = surface.layout.flatten(model)
    batch = blobs()[0]
    assert surface(w) == surface(w)
    assert surface.loss(w, batch) == surface.loss(w, batch)
    assert surface.value_and_grad(w, batch)[0] != surface.value_and_grad(w, batch)[0]
    model[1].eval()  # unless the user turned it off inside a model in training mode
    off = ll.LossSurface(model, ll.Classification(), blobs())
    assert off.value_and_grad(w, batch)[0] == off.value_and_grad(w, batch)[0]


def test_gradients_work_where_the_user_turned_them_off() -> None:
    model = conv_bn()
    surface = ll.LossSurface(model, ll.Classification(), images())
    w = surface.layout.flatten(model)
    expected = surface.value_and_grad(w)[1], surface.value_and_grad(w, images()[0])[1]
    with torch.no_grad():
        assert torch.equal(surface.value_and_grad(w)[1], expected[0])
        assert torch.equal(surface.value_and_grad(w, images()[0])[1], expected[1])
    assert not surface(w.requires_grad_()).requires_grad


def test_batches_without_targets() -> None:
    surface = ll.LossSurface(mlp(), ll.Classification(), [torch.zeros(3, 6)])
    with pytest.raises(ll.DataError, match="the batch has no target"):
        surface(torch.zeros(surface.layout.size))
    with pytest.raises(ll.ConfigError, match="expected a Task such as"):
        ll.LossSurface(mlp(), F.cross_entropy, blobs())


def test_an_average_is_its_point() -> None:
    model = torch.nn.Linear(2, 1)
    data = [(torch.randn(4, 2), torch.zeros(4, 1))]
    surface = ll.LossSurface(model, ll.Regression(noise_variance=1.0), data)
    swag = ll.SWAG(surface.layout, rank=2)
    for scale in (0.5, 1.5):
        swag.update(torch.full((3,), scale))
    assert surface(swag) == surface(torch.ones(3))
    with pytest.raises(LayoutError, match=r"got Gaussian; give a draw, such as posterior.point"):
        surface(swag.posterior().with_scale(0.1))
    with pytest.raises(LayoutError, match=r"a model or an average such as SWA, got str\.$"):
        surface("weights")


def test_a_batch_is_no_loader() -> None:
    surface = ll.LossSurface(torch.nn.Linear(2, 1), ll.Regression(noise_variance=1.0), [])
    with pytest.raises(ll.DataError, match="an iterable of batches, got dict; wrap data in"):
        surface(torch.zeros(3), loader={"input": torch.zeros(4, 2), "labels": torch.zeros(4, 1)})
