"""Langevin noise of the right size: covariances of Gaussian targets in closed form."""

import copy
import io

import pytest
import torch
from torch import nn

from lowland import (
    Batches,
    Classification,
    Collector,
    ConfigError,
    CyclicalCosineSchedule,
    EndOfCycle,
    LangevinSGD,
    ParamLayout,
    Trajectory,
    sgd,
)
from lowland.train import langevin

CHAINS, N = 20_000, 40
H = torch.tensor([[2.0, 0.6], [0.6, 1.0]], dtype=torch.float64)  # of the mean loss w^T H w / 2


def sampled(steps=400, batch=None, **options):
    """Covariance of as many independent chains on the mean loss w^T H w / 2."""
    w = nn.Parameter(torch.zeros(CHAINS, 2, dtype=torch.float64))
    optimizer = LangevinSGD([w], num_examples=N, **options)
    for _ in range(steps):
        w.grad = w.detach() @ H
        optimizer.step()
    return w.detach().T.cov()


def stationary(lr, momentum=0.0, weight_decay=0.0, temperature=1.0, dampening=0.0):
    """T / N (H + wd I)^-1, with the error of a finite step in each eigendirection: the variance of
    w' = (1 + mu - a) w - mu w_before + noise, a = lr h, an autoregression of order two."""
    h, axes = torch.linalg.eigh(H + weight_decay * torch.eye(2, dtype=torch.float64))
    lr = lr * (1 - dampening) if momentum else lr
    variance = temperature / (N * h) / (1 - lr * h / (2 + 2 * momentum))
    return axes @ variance.diag() @ axes.T


CASES = {
    "dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.5},
    "momentum": {"lr": 0.02, "momentum": 0.9},
    "plain": {"lr": 0.05},
    "temperature": {"lr": 0.05, "momentum": 0.5, "temperature": 0.1},
    "weight decay": {"lr": 0.05, "momentum": 0.5, "weight_decay": 1.5},
}


@pytest.mark.parametrize("name", CASES)
def test_the_covariance_is_that_of_the_target(name):
    options = CASES[name]
    exact = stationary(**options)
    assert torch.allclose(sampled(**options), exact, atol=0.03 * float(exact.max()))
    target = (
        options.get("temperature", 1.0)
        / N
        * torch.linalg.inv(H + options.get("weight_decay", 0.0) * torch.eye(2, dtype=torch.float64))
    )
    assert torch.allclose(exact, target, atol=0.07 * float(target.max()))


def test_nesterov_momentum_has_the_same_target():
    covariance = sampled(lr=0.004, momentum=0.9, nesterov=True)
    target = torch.linalg.inv(H) / N
    assert torch.allclose(covariance, target, atol=0.04 * float(target.max()))


def test_the_check_fails_noise_without_the_momentum(monkeypatch):
    right = langevin.noise_std
    monkeypatch.setattr(langevin, "noise_std", lambda g: right(g | {"momentum": 0.0}))
    with pytest.raises(AssertionError):
        test_the_covariance_is_that_of_the_target("momentum")


def test_minibatches_of_a_gaussian_likelihood_sample_its_posterior():
    """y ~ N(w, 1) with the prior N(0, 1 / (N wd)): N(sum y / (N (1 + wd)), 1 / (N (1 + wd)))."""
    g = torch.Generator().manual_seed(0)
    y, decay, lr, mu = torch.randn(N, generator=g).double() + 1, 0.5, 0.004, 0.9
    w = nn.Parameter(torch.zeros(CHAINS, dtype=torch.float64))
    optimizer = LangevinSGD([w], lr, mu, decay, num_examples=N)
    for _ in range(300):
        batch = y[torch.randperm(N, generator=g)[: N // 2]]
        w.grad = w.detach() - batch.mean()
        optimizer.step()
    assert float(w.detach().var()) == pytest.approx(1 / (N * (1 + decay)), rel=0.05)
    # all chains share the minibatches, whose noise moves their mean
    assert float(w.detach().mean()) == pytest.approx(float(y.sum() / (N * (1 + decay))), abs=0.03)


def test_no_noise_at_temperature_0_while_exploring_and_at_a_learning_rate_of_0():
    def run(make, steps=4):
        w = nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = make([w])
        for _ in range(steps):
            w.grad = w.detach().clone()
            optimizer.step()
        return w.detach()

    plain = run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
    options = {"lr": 0.1, "momentum": 0.9, "num_examples": 10}
    assert torch.equal(run(lambda p: LangevinSGD(p, temperature=0, **options)), plain)
    cyclical = {"cycle": 5, "explore": 0.8}
    assert torch.equal(run(lambda p: LangevinSGD(p, **cyclical, **options)), plain)
    assert not torch.equal(run(lambda p: LangevinSGD(p, **options)), plain)
    noisy = run(lambda p: LangevinSGD(p, **cyclical, **options), steps=5)
    assert not torch.equal(noisy, run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), steps=5))
    still = run(lambda p: LangevinSGD(p, **options | {"lr": 0.0}))
    assert torch.equal(still, torch.tensor([1.0, -2.0]))


def test_a_warm_restart_goes_on_with_the_velocity():
    """v' = mu v - lr g + sqrt(2 lr (1 - mu) T / N) xi: small learning rates have noisy gradients,
    which a restart must not multiply by a large one."""
    lrs, mu = [0.1, 0.01, 1e-6, 0.1, 0.05], 0.9
    w, v = nn.Parameter(torch.ones(1000, dtype=torch.float64)), torch.zeros(1000).double()
    expected = w.detach().clone()
    optimizer = LangevinSGD([w], 0.1, mu, num_examples=20)
    for lr in lrs:
        (group,) = optimizer.param_groups
        group["lr"] = lr
        w.grad = w.detach().clone()
        before = w.grad.clone()
        optimizer.step()
        noise = w.grad - before
        assert float(noise.std()) == pytest.approx((2 * (1 - mu) / (20 * lr)) ** 0.5, rel=0.1)
        v = mu * v - lr * (before + noise)
        expected += v
        torch.testing.assert_close(w.detach(), expected)
    assert float((w - 1).detach().abs().max()) < 2


def test_the_noise_begins_where_the_first_member_may_lie():
    cycle, explore = 10.5, 0.6
    w = nn.Parameter(torch.zeros(1))
    optimizer = LangevinSGD([w], lr=0.1, num_examples=1, cycle=cycle, explore=explore)
    rule = EndOfCycle(cycle, members=3, explore=explore)
    quiet = []
    for step in range(1, 43):
        quiet.append(optimizer.explores())
        w.grad = torch.zeros(1)
        optimizer.step()
        assert not (rule.picks(step) and quiet[-1])
    assert quiet[:10] == [True] * 6 + [False] * 4


@pytest.mark.parametrize("at", [0, 3, 8])
def test_a_restored_optimizer_draws_the_same_noise(at):
    def make():
        torch.manual_seed(0)
        w = nn.Parameter(torch.randn(3))
        return w, LangevinSGD([w], 0.1, 0.9, num_examples=5, cycle=4, explore=0.5)

    def steps(w, optimizer, n):
        for _ in range(n):
            w.grad = w.detach().clone()
            optimizer.step()
        return w.detach().clone()

    straight = steps(*make(), 10)
    w, optimizer = make()
    steps(w, optimizer, at)
    file = io.BytesIO()
    torch.save((w.detach(), optimizer.state_dict()), file)
    file.seek(0)
    weights, state = torch.load(file, weights_only=True)
    resumed, other = make()
    resumed.data.copy_(weights)
    other.load_state_dict(state)
    assert torch.equal(steps(resumed, other, 10 - at), straight)
    pair = copy.deepcopy((w, optimizer))
    assert torch.equal(steps(*pair, 10 - at), straight)


def test_scaled_gradients_get_scaled_noise():
    """Gradients that torch's GradScaler has scaled, for a step that unscales them."""
    plain, scaled = (nn.Parameter(torch.ones(4)) for _ in range(2))
    for w, scale in ((plain, 1.0), (scaled, 1024.0)):
        optimizer = LangevinSGD([w], lr=0.1, num_examples=10, fused=True)
        w.grad = scale * torch.ones(4)
        if scale != 1:
            optimizer.grad_scale = torch.tensor(scale)
            optimizer.found_inf = torch.tensor(0.0)
        optimizer.step()
    assert torch.allclose(plain, scaled)


def test_a_closure_is_evaluated_once():
    w, calls = nn.Parameter(torch.ones(1)), []
    optimizer = LangevinSGD([w], lr=0.1, num_examples=10)

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = w.square().sum()
        loss.backward()
        return loss

    assert float(optimizer.step(closure).detach()) == 1.0
    assert len(calls) == 1


def test_csgld_in_the_training_loop_resumes_bit_by_bit(tmp_path):
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 3, generator=g), torch.randint(2, (48,), generator=g)
    cycle = 6 * 4 / 3  # of three cycles in four epochs of six steps

    class Stop(Exception):
        pass

    class Bomb:
        def __init__(self, at):
            self.count, self.at = 0, at

        def step(self, model):
            self.count += 1
            if self.count == self.at:
                raise Stop

        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            pass

    def train(folder, at=None):
        torch.manual_seed(1)
        model = nn.Linear(3, 2)
        if (folder / "checkpoint").is_file():
            store = Trajectory.open(folder / "iterates", layout=ParamLayout(model))
        else:
            store = Trajectory.create(folder / "iterates", ParamLayout(model))
        rule = EndOfCycle(cycle, members=2, explore=0.5)
        sgd(
            model,
            Classification(),
            Batches((x, y), batch_size=8),
            epochs=4,
            optimizer=lambda p: LangevinSGD(
                p, 0.1, 0.9, num_examples=48, cycle=cycle, explore=0.5, fused=True
            ),
            schedule=lambda o: CyclicalCosineSchedule(o, cycle=cycle),
            collectors=[Collector(store, when=rule), Bomb(at)],
            checkpoint=folder / "checkpoint",
            checkpoint_steps=5,
        )
        return store

    straight = train(tmp_path / "straight")
    for at in (3, 14, 20):
        with pytest.raises(Stop):
            train(tmp_path / f"at-{at}", at)
        resumed = train(tmp_path / f"at-{at}")
        assert resumed.steps == straight.steps == [6, 8, 14, 16, 22, 24]
        for a, b in zip(resumed, straight, strict=True):
            assert torch.equal(a.weights, b.weights)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_examples": 0}, "num_examples"),
        ({"temperature": -1.0}, "temperature"),
        ({"momentum": 1.0}, "momentum"),
        ({"cycle": 1}, "cycle"),
        ({"explore": 1.0}, "explore"),
    ],
)
def test_numbers_that_make_no_sense(options, text):
    with pytest.raises(ConfigError, match=text):
        LangevinSGD([nn.Parameter(torch.zeros(1))], 0.1, **{"num_examples": 3} | options)
