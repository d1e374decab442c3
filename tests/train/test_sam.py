"""Sharpness-aware minimisation against closed forms and loops written out by hand."""

import copy
import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.tensor_files import same_tree
from tests.processes import call_in_processes
from tests.train.resuming import Boom, Count, Run, watched
from tests.train.test_closure import SAM as ClosureSAM

TASK = ll.Classification()
LR, RHO = 0.1, 0.3


def examples(n=24, seed=1):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g, dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=g)


def network():
    torch.manual_seed(0)
    # a bias before BatchNorm has a gradient of rounding errors alone, which Adam enlarges
    first = nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU()
    return nn.Sequential(*first, nn.Linear(8, 3)).double()


def sgd_of(model, **options):
    return torch.optim.SGD(model.parameters(), **{"lr": LR, "momentum": 0.9} | options)


def adam_of(model):
    return torch.optim.AdamW(model.parameters(), lr=0.01)


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def batches():
    return ll.Batches(examples(), batch_size=6, seed=2)


# -- steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_step_on_a_quadratic_is_the_closed_form(adaptive):
    a = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 1.0]], dtype=torch.float64)
    parts = [nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in ([1.0, -2.0], [0.5])]
    w = torch.cat([p.detach() for p in parts])
    optimizer = ll.SAM(torch.optim.SGD(parts, lr=LR), rho=RHO, adaptive=adaptive, eta=0.2)

    def closure():
        optimizer.zero_grad()
        x = torch.cat(parts)
        loss = x @ a @ x / 2
        loss.backward()
        return loss

    gradient, scale = a @ w, w.abs() + 0.2 if adaptive else torch.ones(3, dtype=torch.float64)
    perturbation = RHO * scale**2 * gradient / (scale * gradient).norm()
    torch.testing.assert_close(optimizer.step(closure).detach(), w @ a @ w / 2)
    expected = w - LR * a @ (w + perturbation)
    torch.testing.assert_close(torch.cat([p.detach() for p in parts]), expected)
    # a norm of each tensor alone, a common mistake, gives another step
    each = torch.cat([RHO * g / g.norm() for g in gradient.split([2, 1])])
    assert (w - LR * a @ (w + each) - expected).abs().max() > 1e-3


def train(form, *, accumulate=1, clip=None, make=sgd_of, **settings):
    """Two epochs by one of the three forms."""
    model = network().train()
    optimizer = ll.SAM(make(model), rho=RHO, model=model, **settings)

    def gradient(group):
        optimizer.zero_grad()
        losses = [loss_of(model, batch) / len(group) for batch in group]
        for loss in losses:
            loss.backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        return sum(loss.detach() for loss in losses)

    for epoch in range(2):
        parts = list(batches().epoch(epoch))
        for start in range(0, len(parts), accumulate):
            group = parts[start : start + accumulate]
            if form == "closure":
                optimizer.step(lambda group=group: gradient(group))
                continue
            gradient(group)
            if form == "two calls":
                optimizer.first_step(zero_grad=True)
                gradient(group)
                optimizer.second_step(zero_grad=True)
                assert all(p.grad is None for p in model.parameters())
            else:
                with optimizer.perturbed():
                    gradient(group)
                optimizer.base_optimizer.step()
    return model.state_dict()


def trained_by_sgd(*, make=sgd_of, **options):
    model = network()

    def optimizer(_):
        return make(model)

    ll.sgd(model, TASK, batches(), epochs=2, optimizer=optimizer, **options)
    return model.state_dict()


@pytest.mark.parametrize("make", [adam_of, sgd_of])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": 0.3}], ids=str)
def test_all_forms_are_one(options, make):
    expected = train("closure", make=make, **options)
    for form in ("context", "two calls"):
        assert same_tree(train(form, make=make, **options), expected), form
    by_sgd = trained_by_sgd(make=make, sam=RHO, **options)
    for name, value in by_sgd.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-10, atol=1e-12, msg=name)
    assert by_sgd["1.num_batches_tracked"] == 8  # one a batch, though two passes are taken


def test_an_optimizer_that_is_sam_is_taken_as_such():
    expected = trained_by_sgd(sam=RHO)
    wrapped = trained_by_sgd(make=lambda model: ll.SAM(sgd_of(model), rho=RHO, model=model))
    assert same_tree(wrapped, expected)
    assert not same_tree(trained_by_sgd(), expected)


@pytest.mark.parametrize("make", [adam_of, sgd_of])
def test_a_radius_of_nearly_nothing_is_the_base_optimizer(make):
    plain, still = trained_by_sgd(make=make), trained_by_sgd(make=make, sam=1e-13)
    for name, value in still.items():
        torch.testing.assert_close(value, plain[name], rtol=1e-7, atol=1e-9, msg=name)


def perturbation(model, batch, **settings):
    """How a gradient moves the weights, by name."""
    optimizer = ll.SAM(sgd_of(model), rho=RHO, **settings)
    optimizer.zero_grad()
    loss_of(model, batch).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with optimizer.perturbed():
        return {name: p.detach() - before[name] for name, p in model.named_parameters()}


def test_asam_does_not_see_a_rescaling_of_layers_and_sam_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    other = copy.deepcopy(model)
    scales = {"0.weight": 4.0, "0.bias": 4.0, "2.weight": 0.25, "2.bias": 1.0}
    with torch.no_grad():
        for name, p in other.named_parameters():
            p.mul_(scales[name])
    batch = examples()
    torch.testing.assert_close(loss_of(other, batch), loss_of(model, batch))

    def differences(**settings):
        first, second = (perturbation(m, batch, **settings) for m in (model, other))
        return [float((second[n] / scales[n] - first[n]).abs().max()) for n in scales]

    assert max(differences(adaptive=True, eta=0.0)) < 1e-14
    assert max(differences(adaptive=True, eta=0.05)) > 1e-3
    assert max(differences()) > 1e-3


# -- buffers -----------------------------------------------------------------------------------


class Counter(nn.Module):
    """A layer with a statistic of its own."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        self.mean += x.detach().mean()
        return x


@pytest.mark.parametrize("momentum", [0.1, None])
def test_statistics_are_those_of_one_forward_pass(momentum):
    model = network()
    model[1].momentum = momentum
    model.append(Counter())
    batch = examples()
    once = copy.deepcopy(model)
    loss_of(once, batch)
    twice = copy.deepcopy(model)
    for each, given in ((model, model), (twice, None)):
        optimizer = ll.SAM(sgd_of(each), model=given)

        def closure(each=each, optimizer=optimizer):
            optimizer.zero_grad()
            loss = loss_of(each, batch)
            loss.backward()
            return loss

        optimizer.step(closure)
    assert same_tree(dict(model.named_buffers()), dict(once.named_buffers()))
    assert twice[1].num_batches_tracked == 2
    assert not torch.equal(twice[1].running_mean, once[1].running_mean)


def test_buffers_and_weights_are_restored_where_the_second_pass_fails():
    model = network()
    optimizer = ll.SAM(adam_of(model), rho=RHO, model=model)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = loss_of(model, examples())
        if len(calls) == 2:
            raise Boom
        loss.backward()
        return loss

    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(Boom):
        optimizer.step(closure)
    assert same_tree({n: p.detach() for n, p in model.named_parameters()}, weights)
    assert model[1].num_batches_tracked == 1
    optimizer.step(closure)
    assert not torch.equal(model[0].weight, weights["0.weight"])


# -- an optimizer of torch -----------------------------------------------------------------------


@pytest.mark.parametrize("schedule_of", ["base", "sam"])
def test_schedules_act_on_the_groups_that_both_share(schedule_of):
    model = network()
    optimizer = ll.SAM(sgd_of(model))
    assert optimizer.param_groups is optimizer.base_optimizer.param_groups
    target = optimizer if schedule_of == "sam" else optimizer.base_optimizer
    schedule = torch.optim.lr_scheduler.OneCycleLR(target, max_lr=1.0, total_steps=10)
    reference = sgd_of(network())
    expected = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=1.0, total_steps=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as that of a schedule before the first step
        for _ in range(3):
            loss_of(model, examples()).backward()
            optimizer.first_step(zero_grad=True)
            loss_of(model, examples()).backward()
            optimizer.second_step(zero_grad=True)
            schedule.step()
            reference.step()
            expected.step()
    for name in ("lr", "momentum"):
        assert optimizer.base_optimizer.param_groups[0][name] == reference.param_groups[0][name]


def steps(model, optimizer, count):
    for _ in range(count):
        optimizer.zero_grad()
        loss_of(model, examples()).backward()
        with optimizer.perturbed():
            loss_of(model, examples()).backward()
        optimizer.base_optimizer.step()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def restored(model, optimizer):
    """The same through a state dict."""
    again = network()
    again.load_state_dict(model.state_dict())
    fresh = ll.SAM(adam_of(again), rho=1.0)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert fresh.param_groups[0]["rho"] == RHO
    return again, fresh


def copied(model, optimizer):
    """The same as a copy of both objects."""
    return copy.deepcopy((model, optimizer))


def pickled(model, optimizer):
    """The same through a file."""
    file = io.BytesIO()
    torch.save((model, optimizer), file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("move", [copied, pickled, restored])
def test_training_goes_on_from_a_state(move):
    model = network()
    optimizer = ll.SAM(adam_of(model), rho=RHO, model=model)
    steps(model, optimizer, 2)
    other, moved = move(model, optimizer)
    assert moved.state is moved.base_optimizer.state
    assert moved.param_groups is moved.base_optimizer.param_groups
    assert same_tree(steps(other, moved, 2), steps(model, optimizer, 2))


def test_the_state_of_a_base_optimizer_alone_is_loaded():
    model = network()
    optimizer = ll.SAM(adam_of(model), rho=RHO)
    optimizer.load_state_dict(adam_of(network()).state_dict())
    assert optimizer.param_groups[0]["rho"] == RHO


def test_groups_may_have_radii_of_their_own_and_parameters_no_gradient():
    a, b, c = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    optimizer = ll.SAM(torch.optim.SGD([{"params": [a], "rho": 1.0}], lr=LR), rho=2.0)
    optimizer.add_param_group({"params": [b, c]})
    a.grad, b.grad = torch.full((2,), 3.0).double(), torch.full((2,), 4.0).double()
    norm = 50**0.5
    with optimizer.perturbed():
        assert a.grad is None
        torch.testing.assert_close(a.detach(), torch.full((2,), 1 + 3 / norm).double())
        torch.testing.assert_close(b.detach(), torch.full((2,), 1 + 2 * 4 / norm).double())
        assert torch.equal(c.detach(), torch.ones(2).double())
    assert optimizer.param_groups[1]["lr"] == LR


def test_the_norm_of_half_precision_is_that_of_float32():
    w = nn.Parameter(torch.ones(4096, dtype=torch.float16))
    v = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = ll.SAM(torch.optim.SGD([w, v], lr=LR), rho=64.0)
    w.grad, v.grad = torch.full_like(w, 2000.0), torch.full_like(v, 0.0)  # the norm is 128,000
    with optimizer.perturbed():
        assert torch.equal(w.detach(), torch.full_like(w, 2.0))


def test_a_gradient_of_zeros_moves_nothing():
    w = nn.Parameter(torch.ones(3))
    optimizer = ll.SAM(torch.optim.SGD([w], lr=LR))
    w.grad = torch.zeros(3)
    with optimizer.perturbed():
        assert torch.equal(w.detach(), torch.ones(3))


# -- precision and devices -----------------------------------------------------------------------


def scaled_steps(scaler, losses=loss_of, count=3):
    model = network()
    optimizer = ll.SAM(sgd_of(model), rho=RHO, model=model)
    for _ in range(count):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, examples())).backward()
        with optimizer.perturbed():
            scaler.scale(losses(model, examples())).backward()
        scaler.unscale_(optimizer.base_optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(optimizer.base_optimizer)
        scaler.update()
    return model.state_dict()


def test_scaled_gradients_take_the_same_steps():
    plain = scaled_steps(torch.amp.GradScaler("cpu", enabled=False))
    scaled = scaled_steps(torch.amp.GradScaler("cpu", init_scale=2.0**12))
    assert same_tree(scaled, plain)


def test_a_step_that_overflows_is_left_out():
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    before = dict(network().named_parameters())
    after = scaled_steps(scaler, lambda *batch: loss_of(*batch) * torch.inf, count=1)
    for name, value in before.items():
        assert torch.equal(after[name], value), name
    assert scaler.get_scale() == 2.0**11


def test_autocast_covers_both_passes():
    def trained(**options):
        model = network().float()
        x, y = examples()
        data = ll.Batches((x.float(), y), batch_size=6, seed=2)
        types = set()
        model[3].register_forward_hook(lambda *args: types.add(args[2].dtype))
        ll.sgd(model, TASK, data, epochs=2, sam=RHO, **options)
        return torch.cat([p.detach().flatten() for p in model.parameters()]), types

    (half, types), (single, _) = trained(autocast="bfloat16"), trained()
    assert types == {torch.bfloat16}
    assert 0 < (half - single).norm() < 0.1 * single.norm()


def ddp_step(rank, file):
    """Weights of a rank after a step, each rank with half of the examples."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(file, 2)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    try:
        torch.manual_seed(0)
        model = nn.Linear(6, 3).double()
        ddp = nn.parallel.DistributedDataParallel(model)
        x, y = examples()
        batch = x[rank::2], y[rank::2]
        optimizer = ll.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO)
        with ddp.no_sync():
            loss_of(ddp, batch).backward()
        with optimizer.perturbed():
            loss_of(ddp, batch).backward()
        optimizer.base_optimizer.step()
        w = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
        # a process group whose last owner is DDP joins its threads while it holds the interpreter's
        # lock, which they may wait for
        del ddp
        return w
    finally:
        torch.distributed.destroy_process_group()


def test_each_rank_perturbs_by_its_own_examples(tmp_path):
    file = str(tmp_path / "store")
    first, second = call_in_processes(ddp_step, [(rank, file) for rank in range(2)])
    assert first == second
    torch.manual_seed(0)
    model = nn.Linear(6, 3).double()
    x, y = examples()
    gradients = []
    for rank in range(2):
        batch = x[rank::2], y[rank::2]
        optimizer = ll.SAM(torch.optim.SGD(model.parameters(), lr=LR), rho=RHO)
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        with optimizer.perturbed():
            loss_of(model, batch).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    w = torch.cat([p.detach().flatten() for p in model.parameters()])
    expected = w - LR * (gradients[0] + gradients[1]) / 2
    torch.testing.assert_close(torch.tensor(first, dtype=torch.float64), expected)


# -- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_stopped_run_ends_with_the_same_bits(tmp_path, accumulate):
    event = Count()
    with watched(event):
        whole = Run(tmp_path / "whole", accumulate=accumulate, sam=RHO)(event).state()
    assert not same_tree(Run(tmp_path / "plain", accumulate=accumulate)().state(), whole)
    for at in range(3, event.count, 29):

        def stop():
            raise Boom

        with watched(stopped := Count(at, stop)), pytest.raises(Boom):
            Run(tmp_path / str(at), accumulate=accumulate, sam=RHO)(stopped)
        again = Run(tmp_path / str(at), accumulate=accumulate, sam=RHO)()
        assert same_tree(again.state(), whole), f"stopped at event {at} of {event.count}"


def test_a_checkpoint_of_another_radius_is_refused(tmp_path):
    file = tmp_path / "run.safetensors"
    trained_by_sgd(sam=RHO, checkpoint=file)
    with pytest.raises(ll.ConfigError, match=r"rho=0\.1"):
        trained_by_sgd(sam=0.1, checkpoint=file)


def test_a_run_that_is_stopped_in_the_second_pass_leaves_the_weights_before():
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    passes = []

    def stop(*_):
        passes.append(1)
        if len(passes) == 2:
            raise KeyboardInterrupt

    model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        ll.sgd(model, TASK, batches(), epochs=1, sam=RHO)
    assert same_tree({n: p.detach() for n, p in model.named_parameters()}, before)


def test_an_infinite_loss_at_the_perturbed_weights_is_an_error():
    class Wall(nn.Module):
        """A loss that is infinite behind w = 1.5."""

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.w * x / (self.w < 1.5)

    net = Wall()
    data = [(torch.ones(1, 1), torch.zeros(1, 1))]
    with pytest.raises(ll.NonFiniteError, match=r"the loss is inf at step 1 \(epoch 1, batch 1\)"):
        ll.sgd(net, ll.Regression(noise_variance=1.0), data, epochs=1, sam=1.0)
    assert net.w.item() == 1.0


def test_an_expected_loss_over_a_shape_is_perturbed_at_the_same_t():
    surface = ll.LossSurface(network().float(), TASK, ll.Batches(single(), batch_size=6))
    torch.manual_seed(1)
    w = surface.layout.flatten(network().float())
    curve = ll.Bezier.between(w, w + 0.3 * torch.randn(len(w)))

    def fitted(make, **options):
        return ll.fit(curve, surface, epochs=3, optimizer=make, samples=2, **options).anchors

    closure = fitted(lambda p: ClosureSAM(p, lr=LR, radius=RHO), strategy="accumulate")
    make = lambda p: torch.optim.SGD(p, lr=LR)  # noqa: E731
    torch.testing.assert_close(fitted(make, sam=RHO, strategy="accumulate"), closure)
    assert (fitted(make, strategy="accumulate") - closure).abs().max() > 1e-3


def single():
    x, y = examples()
    return x.float(), y


def test_a_simplex_grows_with_sam():
    torch.manual_seed(0)
    net = nn.Linear(6, 3)
    surface = ll.LossSurface(net, TASK, ll.Batches(single(), batch_size=6))
    w = surface.layout.flatten(net)
    options = {"vertices": 2, "epochs": 2, "rise": float("inf")}
    plain, sharp = (ll.spro(surface, w, **options, **more) for more in ({}, {"sam": RHO}))
    assert sharp.anchors.shape == plain.anchors.shape
    assert not torch.equal(sharp.anchors, plain.anchors)


# -- what is refused -----------------------------------------------------------------------------


def weight():
    return [nn.Parameter(torch.ones(2))]


REFUSED = {
    "another class": (lambda: ll.SAM(weight()), "expected an optimizer, got list; write ll.SAM"),
    "closure": (lambda: ll.SAM(torch.optim.LBFGS(weight())), "LBFGS evaluates the loss itself"),
    "infinite": (
        lambda: ll.SAM(torch.optim.SGD(weight()), rho=float("inf")),
        "rho: expected .* got inf",
    ),
    "negative": (lambda: ll.SAM(torch.optim.SGD(weight()), rho=-0.1), "rho: .* got -0.1"),
    "of a group": (
        lambda: ll.SAM(torch.optim.SGD([{"params": weight(), "rho": 0.0}])),
        "rho: .* got 0",
    ),
    "option": (lambda: ll.TrainOptions(sam=0.0), "sam: expected .* above 0, got 0"),
    "twice": (
        lambda: ll.SAM(ll.SAM(torch.optim.SGD(weight()))),
        "SAM evaluates the loss itself",
    ),
    "zero": (lambda: ll.SAM(torch.optim.SGD(weight()), rho=0), "rho: expected .* above 0, got 0"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused(name):
    make, words = REFUSED[name]
    with pytest.raises(ll.ConfigError, match=words):
        make()


def test_sparse_gradients_are_refused_before_anything_moves():
    layer, first = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 2)
    both = nn.ModuleList([first, layer])
    optimizer = ll.SAM(torch.optim.SGD(both.parameters(), lr=LR))
    before = first.weight.detach().clone()
    first(layer(torch.tensor([1, 3]))).sum().backward()
    with pytest.raises(ll.ConfigError, match="sparse=False"):
        optimizer.first_step()
    assert torch.equal(first.weight, before)


def test_a_second_perturbation_is_refused_and_restoring_allows_it():
    (w,) = weight()
    optimizer = ll.SAM(torch.optim.SGD([w], lr=LR))
    w.grad = torch.ones(2)
    optimizer.first_step()
    with pytest.raises(ll.ConfigError, match="call second_step, or restore"):
        optimizer.first_step()
    optimizer.restore()
    assert torch.equal(w.detach(), torch.ones(2))
    optimizer.first_step()
    assert not torch.equal(w.detach(), torch.ones(2))


def test_networks_side_by_side_take_it_as_an_option_or_an_optimizer():
    def trained(**options):
        torch.manual_seed(0)
        members = ll.Members(nn.Linear(6, 3) for _ in range(2))
        data = [ll.Batches(single(), batch_size=6)] * 2
        ll.sgd_members(members, TASK, data, epochs=1, **options)
        return members.weights.detach()

    def sgd_of(parameters):
        return torch.optim.SGD(parameters, lr=LR)

    option = trained(optimizer=sgd_of, sam=RHO)
    assert torch.equal(option, trained(optimizer=lambda p: ll.SAM(sgd_of(p), rho=RHO)))
    assert not torch.equal(option, trained(optimizer=sgd_of))


def test_asam_is_an_option():
    wrapped = trained_by_sgd(
        make=lambda model: ll.SAM(sgd_of(model), rho=0.5, adaptive=True, model=model)
    )
    assert same_tree(trained_by_sgd(sam=0.5, sam_adaptive=True), wrapped)
    assert not same_tree(trained_by_sgd(sam=0.5), wrapped)
    with pytest.raises(ll.ConfigError, match="sam_adaptive: expected a radius"):
        ll.TrainOptions(sam_adaptive=True)
