"""Networks trained side by side end where they end one by one."""

import copy
import math

import pytest
import torch
from torch import nn

import lowland as ll
from tests.models import every_case
from tests.train.side_by_side import (
    REGRESSION,
    M,
    batches,
    convnet,
    head,
    mlp,
    pictures,
    seeded,
    table,
)


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


CASES = {
    "mlp": (mlp, REGRESSION, table, {}),
    "head": (head, ll.Regression("learned"), table, {}),
    "decay": (
        head, ll.Regression("learned"), table,
        {"optimizer": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1)},
    ),
    "adam": (mlp, REGRESSION, table, {"optimizer": lambda p: torch.optim.Adam(p, lr=0.01)}),
    "schedule": (
        mlp, REGRESSION, table, {"schedule": lambda o: ll.DecaySchedule(o, total=15)},
    ),
    "clip": (mlp, REGRESSION, table, {"clip": 0.05}),
    "sam": (convnet, ll.Classification(), pictures, {"sam": 0.05}),
    "asam": (
        mlp, REGRESSION, table, {"sam": 0.5, "sam_adaptive": True, "accumulate": 2, "clip": 0.5},
    ),
    "batchnorm": (convnet, ll.Classification(), pictures, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_side_by_side_is_one_by_one(case):
    make, task, rows, options = CASES[case]
    models = seeded(make)
    members = ll.Members(models)
    data = batches(rows)
    layout = ll.ParamLayout(models[0])
    singles = [ll.SWAG(layout, rank=3) for _ in models]
    expected = [
        ll.sgd(
            model, task, data[m], epochs=3,
            collectors=[ll.Collector(singles[m], when=ll.Every(2))], **options,
        )
        for m, model in enumerate(models)
    ]  # fmt: skip
    swag = ll.SWAG(ll.ParamLayout(members), rank=3)
    logs = ll.sgd_members(
        members, task, data, epochs=3, collectors=[ll.Collector(swag, when=ll.Every(2))], **options
    )
    tight = {"rtol": 1e-4, "atol": 1e-5}
    for m, model in enumerate(models):
        torch.testing.assert_close(members.weights[m], layout.flatten(model), **tight)
        for name in ("epoch", "loss", "lr"):
            torch.testing.assert_close(logs[m].columns[name], expected[m].columns[name], **tight)
    # networks differ by far more than rounding
    assert (members.weights[0] - members.weights[1]).abs().max() > 1e-2
    for one, single in zip(members.split(swag), singles, strict=True):
        assert one.count == single.count >= 4
        torch.testing.assert_close(one.mean, single.mean, **tight)
        torch.testing.assert_close(one.variance, single.variance, **tight)
        torch.testing.assert_close(one.deviations, single.deviations, **tight)
        torch.testing.assert_close(
            one.posterior().draw(3, seed=1), single.posterior().draw(3, seed=1), **tight
        )


def test_each_network_its_own_rate_and_decay():
    rates, decays = [0.1, 0.03, 0.01, 0.0], [0.0, 0.1, 0.01, 1.0]
    models = seeded(mlp)
    members = ll.Members(models)
    data = batches()
    schedule = lambda o: ll.DecaySchedule(o, total=15)  # noqa: E731
    ll.sgd_members(
        members, REGRESSION, data, epochs=3, schedule=schedule,
        optimizer=lambda p: ll.MemberSGD(p, lr=rates, weight_decay=decays),
    )  # fmt: skip
    for m in range(3):
        make = lambda p, m=m: torch.optim.SGD(  # noqa: E731
            p, lr=rates[m], momentum=0.9, weight_decay=decays[m]
        )
        ll.sgd(models[m], REGRESSION, data[m], epochs=3, optimizer=make, schedule=schedule)
        torch.testing.assert_close(
            members.weights[m], members.layout.flatten(models[m]), rtol=1e-4, atol=1e-5
        )
    assert torch.equal(members.weights[3], members.layout.flatten(models[3]))
    with pytest.raises(ll.ConfigError, match="lr: expected a number for each of 4"):
        ll.MemberSGD(members.parameters(), lr=[0.1])
    with pytest.raises(ll.ConfigError, match="weight_decay"):
        ll.MemberSGD(members.parameters(), lr=0.1, weight_decay=-1.0)


def test_one_loss_for_all_is_another_run():
    """The broken twin: the mean over networks makes every step M times too small."""
    models = seeded(mlp)
    members, twin = ll.Members(models), ll.Members(models)
    data = batches()
    ll.sgd_members(members, REGRESSION, data, epochs=1)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for parts in zip(*(d.epoch(0) for d in data), strict=True):
        optimizer.zero_grad()
        batch = tuple(torch.stack(column) for column in zip(*parts, strict=True))
        twin.losses(REGRESSION, batch)[0].mean().backward()
        optimizer.step()
    assert (members.weights - twin.weights).abs().max() > 1e-3


def test_shared_examples_are_held_once():
    rows = table()
    data = [ll.Batches(rows, batch_size=5, seed=m) for m in range(M)]
    members = ll.Members(seeded(mlp))
    ll.sgd_members(members, REGRESSION, data, epochs=2)
    models = seeded(mlp)
    for m, model in enumerate(models):
        ll.sgd(model, REGRESSION, data[m], epochs=2)
        torch.testing.assert_close(
            members.weights[m], members.layout.flatten(model), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("kind", ["transform", "dataset", "dict"])
def test_other_forms_of_batches(kind):
    def jitter(batch, generator):
        x, y = batch
        return x + torch.randn(x.shape, generator=generator), y

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, *, features):
            return self.net(features)

    make = Named if kind == "dict" else mlp
    data = []
    for m in range(M):
        x, y = table(m)
        if kind == "transform":
            data.append(ll.Batches((x, y), batch_size=5, seed=m, transform=jitter))
        elif kind == "dataset":
            held = torch.utils.data.TensorDataset(x, y)
            data.append(ll.Batches(held, batch_size=5, seed=m))
        else:
            data.append(ll.Batches({"features": x, "y": y}, batch_size=5, seed=m))
    models = seeded(make)
    members = ll.Members(models)
    ll.sgd_members(members, REGRESSION, data, epochs=2)
    for m, model in enumerate(models):
        ll.sgd(model, REGRESSION, data[m], epochs=2)
        torch.testing.assert_close(
            members.weights[m], members.layout.flatten(model), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("drop_last", [False, True])
def test_splits_that_differ_by_some_examples(drop_last):
    """As in cross-validation. The broken twin lets the examples that fill a batch up count."""
    data = [
        ll.Batches(table(m, rows=21 + m), batch_size=5, seed=m, drop_last=drop_last)
        for m in range(M)
    ]
    members, twin, models = ll.Members(seeded(mlp)), ll.Members(seeded(mlp)), seeded(mlp)
    keep = ll.Members.losses
    logs = ll.sgd_members(members, REGRESSION, data, epochs=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ll.Members, "losses", lambda self, task, batch, _: keep(self, task, batch))
        ll.sgd_members(twin, REGRESSION, data, epochs=3)
    for m, model in enumerate(models):
        log = ll.sgd(model, REGRESSION, data[m], epochs=3)
        w = members.layout.flatten(model)
        torch.testing.assert_close(members.weights[m], w, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(logs[m].columns["loss"], log.columns["loss"], rtol=1e-4, atol=0)
        assert drop_last or m == M - 1 or (twin.weights[m] - w).abs().max() > 1e-4


def test_examples_that_fill_up_must_not_reach_batchnorm_or_count_as_items():
    data = batches(pictures)
    x, y = pictures(1)
    data[1] = ll.Batches((x[:21], y[:21]), batch_size=5)
    with pytest.raises(ll.DataError, match="21 to 22 examples, and BatchNorm"):
        ll.sgd_members(ll.Members(seeded(convnet)), ll.Classification(), data, epochs=1)

    def dense():
        return nn.Conv2d(1, 3, 3, padding=1)

    labels = torch.zeros(22, 4, 4, dtype=torch.long)
    data = [ll.Batches((x[:n], labels[:n]), batch_size=5) for n in (22, 22, 21, 22)]
    with pytest.raises(ll.DataError, match="one item an example"):
        ll.sgd_members(ll.Members(seeded(dense)), ll.Classification(), data, epochs=1)


def test_what_cannot_be_stacked():
    members = ll.Members(seeded(mlp))
    data = batches()
    run = lambda data, **o: ll.sgd_members(members, REGRESSION, data, epochs=1, **o)  # noqa: E731
    with pytest.raises(ll.DataError, match="for each of 4 networks, got 3"):
        run(data[:3])
    with pytest.raises(
        ll.DataError, match=r"network 1 has 20 examples in 4 batches of 5, network 0 2"
    ):
        run([data[0], ll.Batches(table(1, rows=20), batch_size=5), *data[2:]])
    held = torch.utils.data.TensorDataset(*table(1, rows=21))
    with pytest.raises(ll.DataError, match="splits of 21 to 22 examples"):
        run([data[0], ll.Batches(held, batch_size=5), *data[2:]])
    with pytest.raises(ll.DataError, match="expected a Batches, got list"):
        run([[data[0]], *data[1:]])
    x, y = table(1)
    with pytest.raises(ll.DataError, match="same shapes"):
        run([data[0], ll.Batches((x.double(), y), batch_size=5), *data[2:]])
    with pytest.raises(ll.ConfigError, match="diverged"):
        run(data, diverged="ignore")
    with pytest.raises(ll.ConfigError, match="epochs"):
        ll.sgd_members(members, REGRESSION, data, epochs=0)
    bad = copy.copy(data)
    x, y = table(2)
    bad[2] = ll.Batches((x, y * math.nan), batch_size=5)
    with pytest.raises(ll.DataError, match="NaN"):
        run(bad)


def test_operations_that_vmap_does_not_know():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 1)

        def forward(self, x):
            return self.head(self.body(x[..., None])[0][:, -1])

    class Looking(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if x.sum() > 0 else 1)

    for make in (Recurrent, lambda: Looking(3, 1)):
        members = ll.Members(seeded(make))
        with pytest.raises(ll.ConfigError, match="one by one, with"):
            ll.sgd_members(members, REGRESSION, batches(), epochs=1)
    with pytest.raises(RuntimeError, match="size"):  # an error of the user's stays what it is
        ll.Members(seeded(mlp))(torch.zeros(M, 2, 4))


def test_a_trajectory_holds_all_networks(tmp_path):
    members = ll.Members(seeded(mlp))
    layout = ll.ParamLayout(members)
    store = ll.Trajectory.create(tmp_path / "t", layout)
    swag = ll.SWAG(layout, rank=3)
    ll.sgd_members(
        members, REGRESSION, batches(), epochs=2,
        collectors=[ll.Collector(store, swag, when=ll.Every(2))],
    )  # fmt: skip
    read = ll.Trajectory.open(tmp_path / "t").swag(rank=3)
    for one, other in zip(members.split(read), members.split(swag), strict=True):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.deviations, other.deviations)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@every_case
def test_any_model_goes_where_sgd_takes_it(case):
    if case.name == "lazy":
        pytest.skip("its buffers change at each call, and side by side calls are pure")
    models = [case.model() for _ in range(2)]
    for model in models:
        for module in model.modules():  # dropout draws other noise
            if isinstance(module, nn.Dropout | nn.Dropout2d):
                module.p = 0.0
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
    if case.name in ("mixed", "double"):
        with pytest.raises(ll.ConfigError, match="one by one"):
            ll.Members(models)
        return
    rows = case.batches()
    if isinstance(rows[0], dict):
        rows = [{k: v if v.ndim else v.expand(8, 1) for k, v in one.items()} for one in rows[:2]]
    members, task = ll.Members(models), case.task()
    before = members.weights.detach().clone()
    data = [ll.Batches(rows[m], batch_size=3, seed=m) for m in range(2)]
    if case.name in ("spectral", "spectral_by_hook", "own_statistics"):
        torch.manual_seed(1)  # buffers of their own: mapped calls wrote to them in silence
        for some in (members, ll.Members([models[0], case.build()])):
            with pytest.raises(ll.ConfigError, match=r"one by one, with ll.sgd"):
                ll.sgd_members(some, task, data, epochs=2)
            loaded = some.load_(case.build(), 1)
            for name, buffer in some.point(1).buffers.items() if some.per_member else ():
                assert torch.equal(dict(loaded.named_buffers())[name], buffer)
        return
    if "gradients" not in case.maps:
        with pytest.raises(ll.ConfigError, match="one by one"):
            ll.sgd_members(members, task, data, epochs=2)
        return
    ll.sgd_members(members, task, data, epochs=2)
    assert not torch.allclose(before, members.weights)
    for m, model in enumerate(models):
        ll.sgd(model, task, data[m], epochs=2)
        torch.testing.assert_close(
            members.weights[m], members.layout.flatten(model), rtol=1e-4, atol=1e-5
        )
