"""Properties of the layout and the surface for every model of `tests.models`."""

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from tests.models import CASES, Case, every_case, nearby, resolve_task


def frozen_in_time(model: nn.Module) -> dict:
    """All state of a model that must not change."""

    def bits(tensors):
        return {n: (t.detach().clone(), t.requires_grad) for n, t in tensors}

    return {
        "parameters": bits(model.named_parameters(remove_duplicate=False)),
        "buffers": bits(model.named_buffers(remove_duplicate=False)),
        "modes": [module.training for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [len(module._forward_pre_hooks) for module in model.modules()],
    }


def same(a, b) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def plain_loss(case: Case, model: nn.Module) -> tuple[Tensor, int]:
    """The sum of NLLs over items, and their number, by a plain loop."""
    task = case.task()
    total, items = torch.zeros((), dtype=torch.float64), 0
    for batch in case.batches():
        args, kwargs, target = task.unpack(batch)
        # a copy per batch: a forward pass may write to buffers
        total = total + task.nll(task.output(model(*args, **kwargs)), target).double().sum()
        items += task.count(batch)
    return total, items


class Pure(nn.Module):
    """Calls a model and restores its buffers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args, **kwargs):
        before = {
            m: {k: None if b is None else b.detach().clone() for k, b in m._buffers.items()}
            for m in self.model.modules()
        }
        out = self.model(*args, **kwargs)
        for module, buffers in before.items():
            module._buffers.update(buffers)
        return out


def users_copy(case: Case, w: Tensor, layout: ll.ParamLayout) -> nn.Module:
    model = case.plain(case.model())
    layout.load_(model, w)
    return resolve_task(model)


def mapped(case: Case, function, stack: Tensor) -> Tensor:
    """vmap without the warnings of torch about operators that have no batching rule."""
    with warnings.catch_warnings():
        if case.unbatched:
            warnings.filterwarnings("ignore", message=".*batching rule.*", category=UserWarning)
        return torch.func.vmap(function)(stack)


@every_case
def test_flatten_unflatten_and_load_round_trip(case: Case) -> None:
    model = case.model()
    layout = ll.ParamLayout(model)
    w = layout.flatten(model)
    assert w.shape == (layout.size,)
    assert w.dtype in (torch.float32, torch.float64)
    assert layout.size == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert torch.equal(w, layout.flatten(model.state_dict()))
    assert torch.equal(w, torch.cat([v.reshape(-1) for v in layout.unflatten(w).values()]))

    other = case.model()
    for parameter in other.parameters():
        if parameter.requires_grad:
            parameter.data.normal_()
    assert not torch.equal(layout.flatten(other), w)
    assert layout.load_(other, w) is other
    assert torch.equal(layout.flatten(other), w)
    expected = dict(other.named_parameters())
    assert all(torch.equal(p, expected[name]) for name, p in model.named_parameters())


@every_case
def test_materialised_tensors_have_the_parameters_dtypes(case: Case) -> None:
    model = case.model()
    layout = ll.ParamLayout(model)
    tensors_of_w = layout.materialise(layout.flatten(model))
    by_name = ll.core.names.named_parameters(model)
    for name, tensor in tensors_of_w.items():
        assert tensor.dtype == by_name[name].dtype
        assert torch.equal(tensor, by_name[name])


@every_case
def test_the_surface_equals_a_loop_over_the_loader(case: Case) -> None:
    surface = case.surface()
    for w in (surface.layout.flatten(case.model()), nearby(surface.layout.flatten(case.model()))):
        model = Pure(users_copy(case, w, surface.layout)).eval()
        total, items = plain_loss(case, model)
        total = total.detach()
        value = surface(w, batchnorm="frozen")
        assert value.dtype == torch.float64
        assert value.shape == ()
        torch.testing.assert_close(value, total / items, rtol=1e-6, atol=0)
        loglik = surface.log_likelihood(w, batchnorm="frozen")
        torch.testing.assert_close(loglik, -items * value, rtol=1e-12, atol=0)
        assert surface(w, batchnorm="frozen") == value  # calls are independent


@every_case
def test_the_gradient_of_a_batch_equals_that_of_a_training_step(case: Case) -> None:
    surface = case.surface()
    w = nearby(surface.layout.flatten(case.model()))
    batch = case.batches()[0]
    model = Pure(users_copy(case, w, surface.layout))
    task = case.task()
    args, kwargs, target = task.unpack(batch)
    torch.manual_seed(3)
    loss = task.nll(task.output(model(*args, **kwargs)), target).sum() / task.count(batch)
    loss.backward()
    grads = {n: p.grad for n, p in ll.core.names.named_parameters(model.model).items()}
    expected = torch.cat(
        [
            grads[surface.layout.aliases.get(n, n)].to(w.dtype).reshape(-1)
            for n in surface.layout.names
        ]
    )
    torch.manual_seed(3)
    value, gradient = surface.value_and_grad(w, batch)
    torch.testing.assert_close(value.double(), loss.double().detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected, rtol=2e-5, atol=1e-7)


@every_case
def test_the_gradient_of_the_loader_equals_that_of_a_loop(case: Case) -> None:
    surface = case.surface()
    w = nearby(surface.layout.flatten(case.model()))
    model = Pure(users_copy(case, w, surface.layout)).eval()
    total, items = plain_loss(case, model)
    (total / items).backward()
    grads = {n: p.grad for n, p in ll.core.names.named_parameters(model.model).items()}
    expected = torch.cat([grads[n].to(w.dtype).reshape(-1) for n in surface.layout.names])
    value, gradient = surface.value_and_grad(w, batchnorm="frozen")
    torch.testing.assert_close(value, (total / items).detach(), rtol=1e-6, atol=0)
    # bfloat16 layers sum gradients over batches in another order
    rtol, atol = (2e-2, 2e-3) if case.name == "mixed" else (2e-5, 1e-6)
    torch.testing.assert_close(gradient, expected, rtol=rtol, atol=atol)


@every_case
def test_the_users_model_is_never_changed(case: Case) -> None:
    model = case.model()
    for i, parameter in enumerate(model.parameters()):
        if i % 2 and parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    before = frozen_in_time(model)
    surface = case.surface(model)
    w = surface.layout.flatten(model)
    surface(nearby(w))
    surface(w, batchnorm="frozen")
    surface.log_likelihood(w)
    surface.refresh(nearby(w))
    surface.refresh(w, method="batch")
    surface.value_and_grad(nearby(w))
    for batch in case.batches():
        surface.value_and_grad(nearby(w), batch)
        surface.loss(w, batch)
    if "gradients" in case.maps:
        mapped(case, lambda u: surface.loss(u, batch), torch.stack([w, nearby(w)]))
    assert same(frozen_in_time(model), before)


@every_case
def test_vmap_over_weights(case: Case) -> None:
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    batch = case.batches()[-1]
    stack = torch.stack([nearby(w, seed) for seed in range(3)])
    loop = torch.stack([surface.loss(u, batch) for u in stack])
    if "gradients" not in case.maps:  # an error of torch or of the surface
        with pytest.raises((ll.ConfigError, RuntimeError), match=r"torch\.func|functorch"):
            mapped(case, lambda u: surface.loss(u, batch), stack)
        return
    together = mapped(case, lambda u: surface.loss(u, batch), stack)
    tolerance = 0.1 if case.name == "mixed" else 1e-5
    torch.testing.assert_close(together, loop, rtol=tolerance, atol=0)
    # later calls are unchanged
    torch.testing.assert_close(surface.loss(stack[0], batch), loop[0], rtol=0, atol=0)
    grads = mapped(case, torch.func.grad(lambda u: surface.loss(u, batch)), stack)
    leaf = stack[1].clone().requires_grad_()
    (alone,) = torch.autograd.grad(surface.loss(leaf, batch), leaf)
    assert alone.abs().max() > 1e-3
    torch.testing.assert_close(grads[1], alone, rtol=max(tolerance, 1e-4), atol=0.1 * tolerance)


@every_case
def test_vmap_over_weights_and_statistics(case: Case) -> None:
    surface = case.surface()
    if not surface.has_batchnorm:
        assert surface.refresh(surface.layout.flatten(case.model())) == {}
        return
    w = surface.layout.flatten(case.model())
    stack = torch.stack([nearby(w, seed) for seed in range(3)])
    batch = case.batches()[0]

    def refreshed(u: Tensor) -> Tensor:
        parameters = surface.layout.materialise(u)
        vectors = surface.template.spectral_vectors(parameters, {})
        buffers = surface.statistics.from_resident(parameters, vectors)
        return surface.loss(u, batch, buffers)

    together = torch.func.vmap(refreshed)(stack)
    loop = torch.stack([surface.loss(u, batch, surface.refresh(u)) for u in stack])
    torch.testing.assert_close(together, loop, rtol=1e-5, atol=0)


@every_case
def test_weights_travel_between_wrapped_and_bare_models(case: Case) -> None:
    model = case.model()
    layout = ll.ParamLayout(model)
    wrapped = ll.ParamLayout(nn.DataParallel(copy.copy(model)))
    assert wrapped.fingerprint == layout.fingerprint
    assert ll.ParamLayout.from_spec(layout.spec()).entries == layout.entries
    assert not any("module." in n or "_orig_mod" in n for n in layout.names)


def test_the_cases_cover_every_kind_of_model() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 15
