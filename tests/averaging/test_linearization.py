"""The expansion around an average against exact derivatives, closed forms and known slopes."""

import importlib

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.data import map_tensors
from lowland.records.linearization import TERMS
from tests.models import (
    CASES,
    Checkpointed,
    Residual,
    TiedLM,
    blobs,
    conv_bn,
    generator,
    images,
    mlp,
    places,
    tokens,
)

SCALES = [2.0**-k for k in range(1, 6)]
# kinks: no slope is claimed. mixed: bfloat16 inside, whose rounding is larger than the terms
ROUGH = {"conv_dropout", "transformer", "mixed"}
WITHOUT = {"pinn", "checkpointed"}  # no forward derivative


def double(batches):
    return map_tensors(batches, lambda t: t.double() if t.is_floating_point() else t)


def smooth(make=mlp, batches=blobs, **options):
    torch.manual_seed(0)
    model = make().double()
    return ll.LossSurface(model, ll.Classification(), double(batches()), **options)


def around(surface, n=4, distance=0.05, seed=1):
    """Members around the model's weights, (n, P)."""
    w = surface.layout.flatten(surface.template.module)
    return w + distance * torch.randn(n, len(w), generator=generator(seed), dtype=w.dtype)


def user_outputs(surface, buffers):
    """The outputs of all examples as a function of weights, by torch's own functional_call."""

    def outputs(w):
        values = {**surface.layout.materialise(w), **buffers}
        model = surface.template.module.eval()
        each = [torch.func.functional_call(model, values, batch.args) for batch in surface.data]
        return torch.cat(each)

    return outputs


@pytest.mark.parametrize(("make", "batches"), [(mlp, blobs), (conv_bn, images)])
def test_terms_are_those_of_exact_derivatives(make, batches):
    """Jacobian and Hessian by torch.func; BatchNorm statistics are those of the average."""
    surface = smooth(make, lambda: batches((3, 2)))
    members = around(surface)
    center = members.mean(0)
    outputs = user_outputs(surface, surface.refresh(center))
    jacobian = torch.func.jacrev(outputs)(center)  # (N, C, P)
    hessian = torch.func.jacfwd(torch.func.jacrev(outputs))(center)  # (N, C, P, P)
    result = ll.linearization(surface, members)
    moves = members - center
    torch.testing.assert_close(result.distance, moves.norm(dim=1))
    expected = {
        "difference": torch.stack([outputs(w) - outputs(center) for w in members]),
        "first_order": torch.einsum("ncp,ip->inc", jacobian, moves),
        "second_order": torch.einsum("ip,ncpq,iq->inc", moves, hessian, moves) / 2,
    }
    expected["remainder"] = (
        expected["difference"] - expected["first_order"] - expected["second_order"]
    )
    for name, values in expected.items():
        close = {"rtol": 1e-7, "atol": 1e-12}
        torch.testing.assert_close(result.terms[name], values.norm(dim=2), **close)
        torch.testing.assert_close(result.mean_terms[name], values.mean(0).norm(dim=1), **close)
    assert result.terms["second_order"].min() > 1e-6
    assert result.batchnorm == ("refresh" if make is conv_bn else "none")


@pytest.mark.parametrize(("make", "batches"), [(mlp, blobs), (conv_bn, images)])
def test_predictions_are_the_users_own(make, batches):
    surface = smooth(make, batches)
    members = around(surface, distance=0.3)
    center = members.mean(0)
    outputs = user_outputs(surface, surface.refresh(center))
    result = ll.linearization(surface, members, scales=[0.5])
    assert result.scales.tolist() == [1.0, 0.5]
    for row, scale in enumerate((1.0, 0.5)):
        at_scale = [outputs(center + scale * (w - center)).softmax(1) for w in members]
        probs = torch.stack(at_scale)
        ensemble = (probs.mean(0) - outputs(center).softmax(1)).norm(dim=1)
        torch.testing.assert_close(result.ensemble[row], ensemble)
        consecutive = (probs[1:] - probs[:-1]).norm(dim=2).mean(0)
        torch.testing.assert_close(result.consecutive[row], consecutive)


def softplus():
    return nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.Softplus(), nn.Linear(9, 3))


@pytest.mark.parametrize(
    ("make", "batches"),
    [(mlp, blobs), (softplus, blobs), (conv_bn, images)],
    ids=["tanh", "sp", "bn"],
)
def test_the_ensemble_differs_by_second_order_and_members_by_first(make, batches):
    surface = smooth(make, batches)
    result = ll.linearization(surface, around(surface, n=6, distance=0.03), scales=SCALES)
    assert result.slopes["ensemble"] == pytest.approx(2.0, abs=0.1)
    assert result.slopes["consecutive"] == pytest.approx(1.0, abs=0.1)
    first = result.terms["first_order"].mean()
    assert result.mean_terms["first_order"].max() < 1e-13 * first  # the mean is exact to rounding
    twin = ll.linearization(surface, around(surface), average=around(surface)[0], scales=SCALES)
    assert twin.slopes["ensemble"] == pytest.approx(1.0, abs=0.1)  # around anything else


def test_around_another_point_first_order_terms_stay():
    surface = smooth()
    members = around(surface)
    result = ll.linearization(surface, members, average=members[0])
    assert result.distance[0] == 0
    assert result.terms["difference"][0].max() == 0
    assert result.mean_terms["first_order"].mean() > 0.2 * result.terms["first_order"].mean()


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_a_network_that_is_linear_in_its_weights_has_no_second_order(scale):
    net = nn.Linear(4, 2).double()
    x = torch.randn(9, 4, generator=generator(), dtype=torch.float64)
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), [(x, torch.zeros(9, 2))])
    members = scale * torch.randn(5, surface.layout.size, generator=generator()).double()
    result = ll.linearization(surface, members)
    assert result.terms["second_order"].max() == 0
    assert result.terms["first_order"].min() > 0
    for values in (result.terms["remainder"], result.ensemble):
        assert values.max() < 1e-13 * result.terms["difference"].max()


def test_binary_classification_with_one_output_an_example():
    torch.manual_seed(0)
    x, y = torch.randn(9, 4).double(), (torch.arange(9) % 2).double()
    net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1), nn.Flatten(0)).double()
    surface = ll.LossSurface(net, ll.Classification(form="binary"), [(x, y)])
    members = around(surface)
    result = ll.linearization(surface, members)
    outputs = user_outputs(surface, {})
    expected = torch.stack([outputs(w) - outputs(members.mean(0)) for w in members]).abs()
    torch.testing.assert_close(result.terms["difference"], expected)


class Shifts(nn.Module):
    """Writes into its inputs."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(x.add_(1))


def test_a_model_that_writes_into_its_inputs_raises():
    surface = ll.LossSurface(Shifts(), ll.Classification(), blobs())
    with pytest.raises(ll.DataError, match="writes into its inputs"):
        ll.linearization(surface, around(surface))


class Quadratic(nn.Module):
    """f(x, w) = wᵀ A(x) w + bᵀ w with A(x) = x_0 A_0 + x_1 A_1, symmetric."""

    def __init__(self):
        super().__init__()
        g = generator()
        self.weights = nn.Parameter(torch.zeros(3, dtype=torch.float64))
        a = torch.randn(2, 3, 3, generator=g, dtype=torch.float64)
        self.register_buffer("a", a + a.mT)
        self.register_buffer("b", torch.randn(3, generator=g, dtype=torch.float64))

    def forward(self, x):
        w = self.weights
        return torch.einsum("i,nk,kij,j->n", w, x, self.a, w)[:, None] + self.b @ w


def test_a_quadratic_function_of_the_weights_in_closed_form():
    net, x = Quadratic(), torch.randn(7, 2, generator=generator(3), dtype=torch.float64)
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), [(x, torch.zeros(7, 1))])
    members = torch.randn(4, 3, generator=generator(4), dtype=torch.float64)
    result = ll.linearization(surface, members, scales=SCALES)
    center = members.mean(0)
    moves = members - center
    a = torch.einsum("nk,kij->nij", x, net.a)
    first = torch.einsum("nij,j,mi->mn", 2 * a, center, moves) + (moves @ net.b)[:, None]
    second = torch.einsum("mi,nij,mj->mn", moves, a, moves)
    torch.testing.assert_close(result.terms["first_order"], first.abs())
    torch.testing.assert_close(result.terms["second_order"], second.abs())
    assert result.terms["remainder"].max() < 1e-12
    # the ensemble differs from f(w) by the trace of A times the members' covariance
    covariance = moves.T @ moves / len(moves)
    trace = torch.einsum("nij,ji->n", a, covariance).abs()
    torch.testing.assert_close(result.ensemble, result.scales[:, None] ** 2 * trace)
    torch.testing.assert_close(result.mean_terms["second_order"], trace)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_any_model(case):
    """What is left after two terms is of third order."""
    mixed = case.name == "mixed"
    model = case.model() if mixed else case.model().double()
    batches = case.batches() if mixed else double(case.batches())
    surface = ll.LossSurface(model, case.task(), batches)
    if case.name in WITHOUT:
        with pytest.raises(ll.ConfigError, match=r"forward derivative|checkpoint"):
            ll.linearization(surface, around(surface))
        return
    left = []
    for distance in (0.01, 0.005):
        result = ll.linearization(surface, around(surface, n=3, distance=distance))
        left.append(float(result.terms["remainder"].mean()))
        assert all(bool(torch.isfinite(values).all()) for values in result.terms.values())
    if case.name not in ROUGH:
        assert 6 < left[0] / left[1] < 11  # 2³


def relu():
    return nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 3))


def test_slopes_of_networks_with_kinks_are_measured():
    surface = smooth(relu)
    result = ll.linearization(surface, around(surface, distance=0.3), scales=SCALES)
    assert 1 < result.slopes["ensemble"] < 3
    assert "Slopes: ensemble" in str(result)


def test_statistics_are_of_the_average_for_all_members():
    surface = smooth(conv_bn, images)
    w = around(surface)
    members = [ll.Point(each, {**surface.buffers, **surface.refresh(3 * each)}) for each in w]
    with_buffers = ll.linearization(surface, members)
    torch.testing.assert_close(with_buffers.ensemble, ll.linearization(surface, w).ensemble)
    center = w.mean(0)
    frozen = ll.linearization(surface, w, batchnorm="frozen")  # those of the model
    outputs = user_outputs(surface, surface.buffers)
    change = torch.stack([outputs(each) for each in w]) - outputs(center)
    torch.testing.assert_close(frozen.terms["difference"], change.norm(dim=2))
    assert frozen.batchnorm == "frozen"
    estimated = surface.estimated(center)
    taken = ll.linearization(surface, w, average=estimated, batchnorm="frozen")
    torch.testing.assert_close(taken.ensemble, ll.linearization(surface, w).ensemble)


def test_statistics_that_were_never_estimated_raise():
    surface = smooth(softplus)
    with pytest.raises(ll.DataError, match="never estimated"):
        ll.linearization(surface, around(surface), batchnorm="frozen")


def test_members_in_every_form(tmp_path):
    surface = smooth()
    members = around(surface)
    expected = ll.linearization(surface, members)
    trajectory = ll.Trajectory.create(tmp_path / "run", surface.layout)
    files = []
    for step, w in enumerate(members):
        model = surface.layout.load_(mlp().double(), w)
        trajectory.append(model, step=step)
        files.append(tmp_path / f"epoch-{step}.pt")
        torch.save(model.state_dict(), files[-1])
    swa = ll.SWA(surface.layout)
    for w in members:
        swa.update(w)
    for argument, average in (
        (list(members), None),
        (iter(members), swa),
        (ll.Ensemble(members), swa.point),
        (trajectory, swa.mean),
        (tmp_path / "run", None),
        ([str(tmp_path / "run")], None),
        (files, None),
        (str(tmp_path / "epoch-*.pt"), None),
        ({f"epoch {i}": w for i, w in enumerate(members)}, None),
    ):
        result = ll.linearization(surface, argument, average=average)
        for name in TERMS:
            torch.testing.assert_close(result.terms[name], expected.terms[name], atol=1e-13, rtol=0)
        torch.testing.assert_close(result.ensemble, expected.ensemble)
        named = isinstance(argument, dict)
        assert result.names == ([f"epoch {i}" for i in range(4)] if named else None)


def test_parts_of_a_batch_change_nothing(monkeypatch):
    surface = smooth()
    expected = ll.linearization(surface, around(surface), scales=[0.5])
    module = importlib.import_module("lowland.averaging.linearization")  # not the function
    monkeypatch.setattr(module, "_EXAMPLES", 3)
    calls = []
    result = ll.linearization(
        surface, around(surface), scales=[0.5], progress=lambda *at: calls.append(at)
    )
    torch.testing.assert_close(result.ensemble, expected.ensemble)
    torch.testing.assert_close(result.terms["second_order"], expected.terms["second_order"])
    assert result.examples == expected.examples == 21
    assert calls == [(3, None), (6, None), (8, None)]


def test_examples_without_targets_and_tokens_that_do_not_count():
    surface = smooth()
    expected = ll.linearization(surface, around(surface))
    inputs = [x for x, _ in double(blobs())]
    bare = ll.linearization(surface, around(surface), loader=inputs)
    torch.testing.assert_close(bare.ensemble, expected.ensemble)
    torch.manual_seed(0)
    language = ll.LossSurface(TiedLM().double(), ll.LanguageModeling(), tokens())
    result = ll.linearization(language, around(language), count=16)
    masked = sum(int((batch["attention_mask"][:, 1:] == 1).sum()) for batch in tokens()[:2])
    assert result.ensemble.shape == (1, masked)
    assert result.examples == 16


def test_the_users_settings_stay():
    surface = smooth()
    ll.linearization(surface, around(surface), threads=1)
    assert torch.backends.mha.get_fastpath_enabled()
    assert not any(p.requires_grad for p in surface.template.module.parameters())


def test_what_cannot_be_expanded_raises():
    surface = smooth()
    members = around(surface)
    with pytest.raises(ll.ConfigError, match="at least 2 vectors to compare, got 1"):
        ll.linearization(surface, members[:1])
    with pytest.raises(ll.ConfigError, match=r"scales: expected a number above 0 and below 1"):
        ll.linearization(surface, members, scales=[1.5])
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.linearization(surface, members[:, 1:])
    with pytest.raises(ll.LayoutError, match="another model"):
        ll.linearization(surface, members, average=members[0][1:])
    with pytest.raises(ll.NonFiniteError, match="vector 1 hold NaN"):
        ll.linearization(surface, [members[0], members[0] * torch.nan])
    for net, task, batches in (
        (Residual(), ll.Regression(noise_variance=1.0), places()),
        (Checkpointed(), ll.Classification(), blobs()),
    ):
        other = ll.LossSurface(net, task, batches)
        with pytest.raises(ll.ConfigError, match=r"forward derivative|checkpoint"):
            ll.linearization(other, around(other))
