"""Optimizers that evaluate the loss again within a step, against loops written out by hand."""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.tensor_files import same_tree
from tests.train.resuming import rows

TASK = ll.Classification()
LR, RADIUS = 0.1, 0.05


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021) on plain SGD, as its users write it."""

    def __init__(self, params, lr=LR, radius=RADIUS):
        super().__init__(params, {"lr": lr, "radius": radius})

    @torch.no_grad()
    def step(self, closure):
        group = self.param_groups[0]
        norm = torch.stack([p.grad.norm() for p in group["params"]]).norm()
        for p in group["params"]:
            self.state[p]["old"] = p.data.clone()
            p.add_(p.grad, alpha=float(group["radius"] / (norm + 1e-12)))
        with torch.enable_grad():
            loss = closure()
        for p in group["params"]:
            p.data = self.state[p]["old"]  # another tensor: one common way to go back
            p.sub_(p.grad, alpha=group["lr"])
        return loss


class AsksFirst(SAM):
    def step(self, closure=None):
        assert closure is not None, "SAM needs a closure"
        return super().step(closure)


class FailsHalfway(SAM):
    """Its weights are perturbed already when the closure turns out to be missing."""

    def step(self, closure=None):
        return super().step(closure)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def batches():
    return ll.Batches(rows(), batch_size=5, seed=2)


def by_hand(*, epochs=2, accumulate=1, clip=None):
    model = network().train()
    parameters = list(model.parameters())
    norm = model[1]

    def gradient(group):
        model.zero_grad()
        for x, y in group:
            (F.cross_entropy(model(x), y) / len(group)).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        return [p.grad.clone() for p in parameters]

    for epoch in range(epochs):
        parts = list(batches().epoch(epoch))
        for start in range(0, len(parts), accumulate):
            group = parts[start : start + accumulate]
            first = gradient(group)
            total = torch.stack([g.norm() for g in first]).norm()
            old = [p.detach().clone() for p in parameters]
            with torch.no_grad():
                for p, g in zip(parameters, first, strict=True):
                    p.add_(g, alpha=float(RADIUS / (total + 1e-12)))
            norm.track_running_stats = False  # the second pass normalises by the batch alone
            mean, var, count = norm.running_mean, norm.running_var, norm.num_batches_tracked
            norm.running_mean = norm.running_var = norm.num_batches_tracked = None
            second = gradient(group)
            norm.track_running_stats = True
            norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, var, count
            with torch.no_grad():
                for p, w, g in zip(parameters, old, second, strict=True):
                    p.copy_(w - LR * g)
    return model


@pytest.mark.parametrize("kind", [SAM, AsksFirst, FailsHalfway])
@pytest.mark.parametrize("options", [{}, {"clip": 0.3}, {"accumulate": 2}], ids=str)
def test_sam_equals_the_loop_by_hand(kind, options):
    model = network()
    ll.sgd(model, TASK, batches(), epochs=2, optimizer=kind, **options)
    expected = by_hand(**options).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    assert model[1].num_batches_tracked == 10


def test_lbfgs_finds_the_least_squares_solution():
    torch.manual_seed(0)
    x = torch.randn(50, 3, dtype=torch.float64)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]], dtype=torch.float64) + 0.1 * torch.randn(50, 1)
    net = nn.Linear(3, 1, bias=False).double()
    ll.sgd(
        net,
        ll.Regression(noise_variance=1.0),
        [(x, y)],
        epochs=5,
        optimizer=lambda p: torch.optim.LBFGS(p, lr=1.0, line_search_fn="strong_wolfe"),
    )
    torch.testing.assert_close(net.weight.detach(), torch.linalg.lstsq(x, y).solution.T)


@pytest.mark.parametrize("kind", [AsksFirst, FailsHalfway])
def test_a_run_with_a_closure_is_resumed_to_the_same_bits(tmp_path, kind):
    def run(file, epochs_seen=10**9):
        model = network()
        model.append(nn.Dropout(0.3))  # noise that the extra passes must not shift
        seen = []

        def validate(_):
            seen.append(1)
            if len(seen) == epochs_seen:
                raise KeyboardInterrupt
            return {}

        options = {"optimizer": kind, "checkpoint": file, "checkpoint_steps": 3}
        ll.sgd(model, TASK, batches(), epochs=3, validate=validate, **options)
        return dict(model.state_dict())

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", epochs_seen=2)
    assert same_tree(run(tmp_path / "stopped"), whole)


class Twice(torch.optim.SGD):
    """SGD that evaluates the closure again where it is: gradient and loss must be the same."""

    gradients: ClassVar[list[torch.Tensor]] = []

    def step(self, closure):
        before = [p.grad for p in self.param_groups[0]["params"]]
        values = [g.clone() for g in before]
        losses = {float(closure()), float(closure())}
        assert len(losses) == 1
        for p, held, value in zip(self.param_groups[0]["params"], before, values, strict=True):
            assert torch.equal(p.grad, value)
            assert torch.equal(held, value)  # nobody wrote into what the optimizer holds
        self.gradients.append(values[0])
        return super().step()


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("samples", [1, 3])
def test_a_shape_is_evaluated_again_at_the_same_t(samples, accumulate):
    surface = ll.LossSurface(network(), TASK, batches())
    torch.manual_seed(1)
    ends = [surface.layout.flatten(network()) + 0.1 * torch.randn(surface.layout.size)] * 2
    curve = ll.Bezier.between(ends[0], ends[1] + 0.5)

    def fitted(kind):
        options = {"strategy": "accumulate", "samples": samples, "accumulate": accumulate}
        make = lambda p: kind(p, lr=0.1, momentum=0.9)  # noqa: E731
        return ll.fit(curve, surface, epochs=3, optimizer=make, **options)

    plain, again = fitted(torch.optim.SGD), fitted(Twice)
    assert torch.equal(plain.anchors, again.anchors)
    assert plain.log.columns["loss"].tolist() == again.log.columns["loss"].tolist()
    assert Twice.gradients


def test_sam_trains_a_curve_though_it_replaces_the_data_of_parameters():
    surface = ll.LossSurface(network(), TASK, batches())
    ends = [surface.layout.flatten(network()) + shift for shift in (0.0, 0.2)]
    curve = ll.Bezier.between(*ends)

    def fitted(make):
        return ll.fit(curve, surface, epochs=3, optimizer=make).anchors

    plain = fitted(lambda p: torch.optim.SGD(p, lr=LR))
    still = fitted(lambda p: SAM(p, radius=0.0))
    torch.testing.assert_close(still, plain)
    assert (fitted(SAM)[1] - plain[1]).norm() > 1e-3
    assert torch.equal(still[0], ends[0])


def test_another_failure_of_an_optimizer_is_its_own():
    class Broken(torch.optim.Optimizer):
        def __init__(self, params):
            super().__init__(params, {})

        def step(self, closure=None):
            with torch.no_grad():
                self.param_groups[0]["params"][0].add_(1.0)
            raise ValueError("sparse gradients are not supported")

    model = network()
    before = model[0].weight.detach().clone()
    with pytest.raises(ValueError, match="sparse gradients"):
        ll.sgd(model, TASK, batches(), epochs=1, optimizer=Broken)
    assert not torch.equal(model[0].weight, before)  # as the second attempt left it


@pytest.mark.parametrize("optimizer", [SAM, AsksFirst, FailsHalfway])
def test_networks_side_by_side_refuse_what_looks_at_all_of_them(optimizer):
    members = ll.Members(network() for _ in range(2))
    words = rf"{optimizer.__name__} evaluates the loss again .* one by one"
    with pytest.raises(ll.ConfigError, match=words):
        ll.sgd_members(members, TASK, [batches(), batches()], epochs=1, optimizer=optimizer)
