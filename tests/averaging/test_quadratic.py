"""SGD, SWA, EMA, SWAG and FGE on a quadratic with known noise, against their closed forms.

Independent chains lie side by side in one model, so that one training gives their statistics with
standard errors.
"""

import math

import pytest
import torch
from torch import nn

import lowland as ll
from tests.averaging.quadratic import NoisyQuadratic, exponential, uniform

CHAINS = 1500
LR = 0.2
STEPS, EVERY = 120, 4
DECAY = 0.9
CYCLE, HIGH, LOW = 10, 0.4, 0.02
Z = 4.0  # standard errors


def problem():
    """Three dimensions, H and C with different eigenvectors."""
    g = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64)).Q
    hessian = rotation @ torch.diag(torch.tensor([0.4, 1.0, 3.0]).double()) @ rotation.T
    root = torch.randn(3, 3, generator=g, dtype=torch.float64)
    return NoisyQuadratic(hessian, root @ root.T + 0.1 * torch.eye(3))


class Chains(nn.Module):
    """The sum of the losses of many chains, each with the noise of its gradient, (1, chains, d)."""

    def __init__(self, problem, start):
        super().__init__()
        self.w = nn.Parameter(start)
        self.register_buffer("hessian", problem.hessian)

    def forward(self, noise):
        return 0.5 * torch.einsum("ci,ij,cj->", self.w, self.hessian, self.w) + (
            noise * self.w
        ).sum((1, 2))


class Value(ll.Task):
    """The model returns the loss itself."""

    def nll(self, output, target):
        return output


def draws(covariance, *shape, seed):
    g = torch.Generator().manual_seed(seed)
    root = torch.linalg.cholesky(covariance)
    return torch.randn(*shape, len(root), generator=g, dtype=torch.float64) @ root.T


def train(problem, start, lr, schedule, steps, *collectors):
    """Trains all chains from their stationary distribution, by lowland's loop and collectors."""
    model = Chains(problem, draws(start, CHAINS, seed=1))
    noise = draws(problem.noise, steps, CHAINS, seed=2)
    data = ll.Batches((noise, torch.zeros(steps)), batch_size=1, shuffle=False)
    options = {"optimizer": lambda p: torch.optim.SGD(p, lr=lr), "schedule": schedule}
    layout = ll.ParamLayout(model)
    collectors = [ll.Collector(*targets(layout), when=when) for targets, when in collectors]
    ll.sgd(model, Value(), data, epochs=1, collectors=collectors, **options)
    return [collector.targets for collector in collectors]


def chains(weights):
    return weights.reshape(CHAINS, 3)


def standard_errors(samples, expected):  # (chains, ...) -> (...)
    """How many of their standard errors the means lie from what is expected."""
    return (samples.mean(0) - expected) / (samples.std(0) / math.sqrt(len(samples)))


def assert_covariance(problem, w, expected):
    """Every second moment, and the expected loss."""
    w = chains(w)
    assert standard_errors(w[:, :, None] * w[:, None], expected).abs().max() < Z
    losses = torch.einsum("ci,ij,cj->c", w, problem.hessian, w) / 2
    assert abs(standard_errors(losses, problem.loss(expected))) < Z
    return losses


# -- the closed forms themselves -------------------------------------------------------------------


def test_one_dimension_is_the_textbooks():
    """The stationary variance, and the variance of means of an autoregression."""
    h, c, n = 1.5, 0.7, 12
    one = NoisyQuadratic(torch.tensor([[h]]).double(), torch.tensor([[c]]).double())
    sigma = one.stationary([LR])
    assert float(sigma) == pytest.approx(LR * c / (h * (2 - LR * h)))
    rho = 1 - LR * h
    swa = (1 + rho) / (1 - rho) / n - 2 * rho * (1 - rho**n) / (n * (1 - rho)) ** 2
    average = one.of_average(sigma, [LR], uniform(n))
    assert float(average) == pytest.approx(swa * float(sigma))
    ema = (1 - DECAY) / (1 + DECAY) * (1 + DECAY * rho) / (1 - DECAY * rho)
    average = one.of_average(sigma, [LR], exponential(500, DECAY))
    assert float(average) == pytest.approx(ema * float(sigma))


def test_stationary_covariances_stay():
    oracle = problem()
    cycle = [0.4, 0.1, 0.2]
    for lrs in ([LR], cycle):
        sigma = oracle.stationary(lrs)
        torch.testing.assert_close(oracle.step_from(sigma, lrs), sigma)
        worse = oracle.step_from(2 * sigma, lrs * 100)
        torch.testing.assert_close(worse, sigma, rtol=1e-4, atol=1e-4)
    one = oracle.of_average(oracle.stationary(cycle), cycle, uniform(1))
    torch.testing.assert_close(one, oracle.stationary(cycle))


# -- lowland's averages ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def constant():
    """Averages and iterates of SGD with a constant learning rate, and the oracle."""
    oracle = problem()
    sigma = oracle.stationary([LR])
    (swa, swag), (ema,), (last,) = train(
        oracle,
        sigma,
        LR,
        ll.ConstantSchedule,
        STEPS,
        (lambda layout: (ll.SWA(layout), ll.SWAG(layout, rank=2)), ll.Every(EVERY, total=STEPS)),
        (lambda layout: (ll.EMA(layout, decay=DECAY),), ll.Every(1)),
        (lambda layout: (ll.SWA(layout),), ll.Every(STEPS)),
    )
    return oracle, sigma, swa, swag, ema, last


def test_iterates_have_the_stationary_covariance(constant):
    oracle, sigma, *_, last = constant
    assert last.count == 1
    assert_covariance(oracle, last.mean, sigma)


def test_the_gain_of_swa(constant):
    oracle, sigma, swa, _, _, last = constant
    n = 8  # steps 92, 96, ..., 120
    assert swa.count == n
    expected = oracle.of_average(sigma, [LR] * EVERY, uniform(n))
    losses = assert_covariance(oracle, swa.mean, expected)
    gain = assert_covariance(oracle, last.mean, sigma) - losses
    expected_gain = oracle.loss(sigma) - oracle.loss(expected)
    assert abs(standard_errors(gain, expected_gain)) < Z
    assert expected_gain > 0.5 * oracle.loss(sigma)
    # as if iterates were independent
    assert abs(standard_errors(losses, oracle.loss(sigma / n))) > 2 * Z


def test_the_variance_of_swag_lacks_that_of_its_mean(constant):
    oracle, sigma, swa, swag, *_ = constant
    expected = sigma - oracle.of_average(sigma, [LR] * EVERY, uniform(swa.count))
    variance = chains(swag.variance)
    assert standard_errors(variance, expected.diagonal()).abs().max() < Z
    assert standard_errors(variance, sigma.diagonal()).abs().max() > 2 * Z
    assert torch.equal(swag.mean, swa.mean)


def test_an_ema_from_its_first_iterate_on(constant):
    oracle, sigma, _, _, ema, _ = constant
    assert ema.count == STEPS
    losses = assert_covariance(
        oracle, ema.mean, oracle.of_average(sigma, [LR], exponential(STEPS, DECAY))
    )
    biased = oracle.of_average(sigma, [LR], exponential(STEPS, DECAY - 0.05))
    assert abs(standard_errors(losses, oracle.loss(biased))) > Z


@pytest.fixture(scope="module")
def cyclical(tmp_path_factory):
    """Members of FGE, and the oracle: in mid-cycle, and the learning rates between two members."""
    oracle = problem()
    cycle = [HIGH + (LOW - HIGH) * min(2 * t, 2 - 2 * t) for t in (i / CYCLE for i in range(CYCLE))]
    start = oracle.stationary(cycle)
    (trajectory,) = train(
        oracle,
        start,
        HIGH,
        lambda optimizer: ll.CyclicalSchedule(optimizer, cycle=CYCLE, high=HIGH, low=LOW),
        8 * CYCLE,
        (
            lambda layout: (ll.Trajectory.create(tmp_path_factory.mktemp("fge") / "run", layout),),
            ll.MidCycle(CYCLE),
        ),
    )[0]
    half = CYCLE // 2 + 1  # steps up to the lowest learning rate
    return oracle, oracle.step_from(start, cycle[:half]), cycle[half:] + cycle[:half], trajectory


def test_members_of_fge_lie_lower_than_iterates_at_the_high_learning_rate(cyclical):
    oracle, middle, between, trajectory = cyclical
    assert trajectory.steps == list(range(6, 80, 10))
    for i in (0, 7):
        assert_covariance(oracle, trajectory[i].weights, middle)
    assert oracle.loss(middle) < 0.5 * oracle.loss(oracle.stationary([HIGH]))
    torch.testing.assert_close(oracle.step_from(middle, between), middle)


def test_the_average_of_fge_members_and_their_ensemble(cyclical):
    oracle, middle, between, trajectory = cyclical
    expected = oracle.of_average(middle, between, uniform(len(trajectory)))
    losses = assert_covariance(oracle, trajectory.swa(), expected)
    members = torch.stack([chains(point.weights) for point in trajectory])
    # a model whose outputs are linear in w: the ensemble predicts as the average does
    x = torch.linalg.cholesky(oracle.hessian).T * math.sqrt(3)  # xᵀx / 3 = H
    net = nn.Linear(3, 1, bias=False).double()
    task = ll.Regression(noise_variance=1.0)
    surface = ll.LossSurface(net, task, [(x, torch.zeros(3, 1).double())])
    for chain in range(3):
        pred = ll.predict(surface, ll.Ensemble(members[:, chain]))
        loss = pred.metrics()["rmse"] ** 2 / 2
        assert loss == pytest.approx(float(losses[chain]))
        assert float(surface(trajectory.swa().reshape(CHAINS, 3)[chain])) == pytest.approx(
            loss + math.log(2 * math.pi) / 2
        )
    expected_gain = 1 - oracle.loss(expected) / oracle.loss(middle)
    assert 0.3 < expected_gain < 1
