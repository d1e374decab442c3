"""Buffers belong to their weights: in moments, shapes, posteriors and files."""

import copy
import gc

import pytest
import torch
from torch import Tensor, nn

import lowland as ll
from lowland.core.buffers import BufferMean, interpolate_buffers, restack_buffers, stack_buffers
from tests.models import (
    Normaliser,
    conv_bn,
    images,
)


def shifted(n: int = 64, shift: float = 100.0) -> tuple[Tensor, Tensor]:
    """Inputs far from zero; the targets are inputs minus their mean."""
    y = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    y -= y.mean()
    return y + shift, y


def centred(shift: float = 100.0) -> nn.Module:
    """A network that has learned to subtract the mean of its inputs."""
    net = nn.Sequential(Normaliser(1), nn.Linear(1, 1))
    nn.init.ones_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    for _ in range(60):
        net.train()(shifted(shift=shift)[0])
    return net


def fresh_surface(**options) -> ll.LossSurface:
    """A surface made before training, from a network with initial buffers."""
    torch.manual_seed(0)
    net = nn.Sequential(Normaliser(1), nn.Linear(1, 1))
    return ll.LossSurface(net, ll.Regression(noise_variance=1.0), [shifted()], **options)


# -- moments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ll.SWA, ll.EMA, ll.SWAG])
def test_moments_carry_the_buffers_of_their_iterates(kind, tmp_path):
    surface, net = fresh_surface(), centred()
    moments = kind(surface.layout, **({"rank": 2} if kind is ll.SWAG else {}))
    for bias in (-0.01, 0.01):
        moments.update(varied_by(net, bias))
    for one in (moments, kind.load(moments.save(tmp_path / "m.safetensors"))):
        assert ll.predict(surface, one).metrics()["rmse"] < 0.02  # it was 100
    # a vector alone has none, so the surface's buffers are used
    assert ll.predict(surface, moments.mean).metrics()["rmse"] > 90


@pytest.mark.parametrize("kind", ["buffer", "mask"])
def test_a_flat_vector_has_the_buffers_of_the_surface(kind):
    """`swa.mean`, `traj.swa()` and `layout.flatten(model)` have no buffers."""
    net = nn.Sequential(Normaliser(1), nn.Linear(1, 1))
    net.register_buffer("mask", torch.tensor([True]))
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), [shifted()])
    w = surface.layout.flatten(net)
    name, tensor = ("0.mean", net[0].mean) if kind == "buffer" else ("mask", net.mask)
    surface(w)  # unchanged
    net[0].passes += 1  # a counter
    surface(w)
    tensor.copy_(tensor.logical_not() if kind == "mask" else tensor + 1)
    says = rf"{name} of the model changed after the surface was made.*surface.point\(model\)"
    for take in (
        lambda: surface(w),
        lambda: ll.predict(surface, w),
        lambda: ll.predict(surface, ll.Gaussian(w, w.abs()), samples=2),
        lambda: surface.evaluate([w] * 8, strategy="vmap"),
        lambda: surface.value_and_grad(w),
        lambda: ll.path(ll.Line(w, w + 1), surface, points=3),
    ):
        with pytest.warns(UserWarning, match=says):
            take()
    surface(surface.point(net))  # has its buffers
    copied = copy.deepcopy(surface)
    del net, tensor
    gc.collect()
    for one in (surface, copied):  # the model no longer exists
        one(w)


@pytest.mark.parametrize("source", ["model", "state_dict", "point", "trajectory"])
def test_every_source_of_iterates_brings_its_buffers(source, tmp_path):
    surface, net = fresh_surface(), centred()
    swa = ll.SWA(surface.layout)
    if source == "trajectory":
        store = ll.Trajectory.create(tmp_path / "store", surface.layout)
        store.append(net, step=1)
        store.append(net, step=2)
        store.into(swa)
        assert torch.equal(store.average().buffers["0.mean"], net[0].mean)
        assert torch.equal(
            ll.Subspace.pca(varied(store, net), rank=1).buffers["0.mean"][0], net[0].mean
        )
    else:
        sources = {"model": net, "state_dict": net.state_dict(), "point": surface.point(net)}
        swa.update(sources[source])
    assert torch.equal(swa.point.buffers["0.mean"], net[0].mean)
    assert swa.point.buffers["0.passes"] == 60


def varied(store: ll.Trajectory, net: nn.Module) -> ll.Trajectory:
    for step in (3, 4, 5):
        other = copy.deepcopy(net)
        nn.init.constant_(other[1].bias, step)
        store.append(other, step=step)
    return store


def test_averages_of_each_kind_of_buffer():
    mean = BufferMean()
    masks = [torch.tensor([True]), torch.tensor([False])]
    for i, share in enumerate((1.0, 0.5)):
        mean.update(
            {
                "mu": torch.tensor([1.0 + i], dtype=torch.bfloat16),
                "bound": torch.tensor([-torch.inf, 0.1]),
                "steps": torch.tensor(10 + i),
                "mask": masks[i],
            },
            share,
        )
    values = mean.values()
    assert values["mu"].dtype == torch.bfloat16
    assert values["mu"].item() == 1.5
    assert torch.equal(values["bound"], torch.tensor([-torch.inf, 0.1]))  # bit by bit
    assert values["steps"] == 11
    assert values["mask"].item() is False


def test_a_running_mean_of_buffers_equals_the_offline_mean():
    g = torch.Generator().manual_seed(1)
    iterates = [1000 + torch.randn(3, generator=g) for _ in range(500)]
    mean = BufferMean()
    for i, value in enumerate(iterates):
        mean.update({"mu": value}, 1 / (i + 1))
    torch.testing.assert_close(mean.values()["mu"], torch.stack(iterates).double().mean(0).float())


def test_updates_refresh_and_resume():
    case = conv_bn()
    surface = ll.LossSurface(case, ll.Classification(), images())
    swa = ll.SWA(surface.layout)
    swa.update(case)
    assert not swa.point.estimated
    swa.refresh(surface)
    assert swa.point.estimated
    expected = surface.refresh(swa.mean)
    assert all(torch.equal(swa.buffers[name], value) for name, value in expected.items())
    again = ll.SWA(surface.layout)
    again.load_state_dict(swa.state_dict())
    assert again.point.estimated
    again.update(case)  # statistics of another mean are dropped
    assert not again.point.estimated


def test_members_have_separate_buffers():
    nets = [centred(100.0), centred(50.0)]
    members = ll.Members(nets)
    swa = ll.SWA(ll.ParamLayout(members))
    swa.update(members)
    for net, one in zip(nets, members.split(swa), strict=True):
        assert torch.equal(one.point.buffers["0.mean"], net[0].mean)


# -- shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_ends_of_a_path_have_separate_buffers(strategy):
    surface = fresh_surface()
    a, b = surface.point(centred()), surface.point(varied_by(centred(99.0), 0.5))
    line = ll.Line(a, b)
    found = ll.path(line, surface, points=3, strategy=strategy, chunk=2)
    ends = [float(surface(a)), float(surface(b))]
    assert found.loss[[0, -1]].tolist() == pytest.approx(ends, rel=1e-6)
    middle = ll.Point((a.weights + b.weights) / 2, {"0.mean": torch.tensor([99.5])})
    assert float(found.loss[1]) == pytest.approx(float(surface(middle)), rel=1e-4)


def varied_by(net: nn.Module, bias: float) -> nn.Module:
    nn.init.constant_(net[1].bias, bias)
    return net


def test_points_of_every_shape_have_its_buffers(tmp_path):
    surface = fresh_surface()
    a = surface.point(centred(100.0))
    b = surface.point(varied_by(centred(99.0), 0.5))
    c = surface.point(varied_by(centred(101.0), -0.5))
    third = ll.Point(c.weights + torch.tensor([0.5, 0.0]), c.buffers)
    at = lambda shape, z: float(shape.point(torch.tensor(z)).buffers["0.mean"])  # noqa: E731
    curve = ll.Bezier.between(a, b)
    assert at(curve, [0.0]) == pytest.approx(100.0, abs=1e-4)
    assert at(curve, [0.5]) == pytest.approx(99.5, abs=1e-4)
    assert at(ll.Line(a, b), [2.0]) == pytest.approx(99.0, abs=1e-4)  # outside: as at the end
    plane = ll.Plane.through(a, b, third)
    for point, mark in zip((a, b, third), plane.marks, strict=True):
        assert at(plane, mark.tolist()) == pytest.approx(float(point.buffers["0.mean"]), abs=1e-4)
    simplex = ll.Simplex([a, b, third])
    assert at(simplex, [0.0, 0.0, 1.0]) == pytest.approx(101.0, abs=1e-4)
    assert at(ll.Simplex([a, b]).grow(), [0.0, 0.0, 1.0]) == pytest.approx(99.5, abs=1e-3)
    both = ll.SimplicialComplex([ll.Simplex([a, b]), ll.Simplex([b, third])])
    assert at(both, [0.0, 0.0, 1.0]) == pytest.approx(101.0, abs=1e-4)
    for shape in (curve, plane, simplex, both, ll.Subspace.from_curve(bent(curve))):
        shape.save(tmp_path / "shape.safetensors")
        same = type(shape).load(tmp_path / "shape.safetensors")
        z = shape.sample_coords(1, generator=torch.Generator().manual_seed(0))
        assert torch.equal(same.buffers_at(z)["0.mean"], shape.buffers_at(z)["0.mean"])
    sample = ll.Uniform(simplex).point(0)
    assert 99 <= float(sample.buffers["0.mean"]) <= 101


def bent(curve: ll.Bezier) -> ll.Bezier:
    anchors = curve.anchors.clone()
    anchors[1, 0] += 1
    return curve.with_anchors(anchors)


def test_a_subspace_density_has_the_buffers_of_the_center():
    surface = fresh_surface()
    point = surface.point(centred())
    sub = ll.Subspace(point, torch.eye(2))
    z = torch.tensor([[0.0, 0.0], [0.1, 0.2]])
    expected = [-64 * float(surface(ll.Point(sub(row[None])[0], point.buffers))) for row in z]
    for strategy in ("points", "vmap"):
        density = ll.LogLikelihood(surface, strategy=strategy, chunk=2)
        assert density.along(sub, z).tolist() == pytest.approx(expected, rel=1e-5)
        values, gradient = density.value_and_grad(sub, z)
        assert values.tolist() == pytest.approx(expected, rel=1e-5)
        by_hand = surface.value_and_grad(ll.Point(sub(z[1:])[0], point.buffers))[1]
        torch.testing.assert_close(gradient[1].float(), -64 * by_hand, rtol=1e-4, atol=1e-4)


def test_training_on_a_shape_trains_its_buffers():
    surface = fresh_surface()
    a, b = surface.point(centred()), surface.point(varied_by(centred(99.0), 0.5))
    curve = ll.fit(ll.Bezier.between(a, b), surface, epochs=30)
    means = curve.buffers["0.mean"].flatten()
    assert means[[0, 2]].tolist() == [float(a.buffers["0.mean"]), float(b.buffers["0.mean"])]
    assert float(means[1]) == pytest.approx(100.0, abs=0.5)  # that of the data, as in training


def test_buffers_between_anchors():
    bound = torch.tensor([-torch.inf])
    one = {"v": torch.tensor([1.0]), "n": torch.tensor(1), "c": bound, "s": torch.tensor(1.0)}
    other = {"v": torch.tensor([3.0]), "n": torch.tensor(2), "c": bound, "s": torch.tensor(3.0)}
    stacked = stack_buffers([one, other, None])
    assert stacked["c"].shape == (1, 1)  # a constant is stored once
    at = interpolate_buffers(torch.tensor([[0.25, 0.75, 0.0], [3.0, -2.0, 0.0]]), stacked)
    assert at["v"].flatten().tolist() == [2.5, 1.0]
    assert at["s"].tolist() == [2.5, 1.0]  # a scalar too
    assert at["n"].tolist() == [2, 1]
    assert at["c"].flatten().tolist() == [-torch.inf] * 2
    assert restack_buffers(torch.ones(2, 3), stacked)["c"].shape == (1, 1)
    assert stack_buffers([None, None]) is None


# -- what follows from the weights ---------------------------------------------------------------


def test_statistics_of_a_custom_layer_are_estimated_on_request():
    surface = fresh_surface(reestimate=r"\.mean$")
    net = centred()
    w = surface.layout.flatten(net)
    half = surface.refresh(w)["0.mean"]  # one pass, half of the way from the new network's 0
    torch.testing.assert_close(half, shifted()[0].mean(0) / 2)
    other = surface.point(net)
    torch.testing.assert_close(surface.refresh(other)["0.mean"], shifted()[0].mean(0))
    assert float(surface(other)) < 1
    table = surface.evaluate([other, ll.Point(w)], strategy="vmap", chunk=2)
    assert table.loss.tolist() == pytest.approx([float(surface(other)), float(surface(w))])
    with pytest.raises(ll.ConfigError, match=r"fits no buffer .* 0.mean"):
        fresh_surface(reestimate="running")


# -- serving -----------------------------------------------------------------------------------


def trained_bn() -> tuple[ll.LossSurface, ll.SWAG]:
    torch.manual_seed(0)
    net = conv_bn()
    surface = ll.LossSurface(net, ll.Classification(), images((40, 40)))
    swag = ll.SWAG(surface.layout, rank=2)
    for seed in range(3):
        w = surface.layout.flatten(net)
        noise = torch.randn(len(w), generator=torch.Generator().manual_seed(seed))
        swag.update(surface.layout.load_(copy.deepcopy(net), w + 0.1 * noise))
    return surface, swag


def test_a_frozen_posterior_predicts_without_training_examples(tmp_path):
    surface, swag = trained_bn()
    request = torch.randn(8, 2, 5, 5)
    right = ll.predict(surface, swag.posterior(), [request], samples=4).probs
    path = swag.posterior().freeze(surface, samples=4).save(tmp_path / "post.safetensors")
    served = ll.Ensemble.load(path, layout=surface.layout)
    server = ll.LossSurface(conv_bn(), ll.Classification())
    for one in (request, request[:1]):
        found = ll.predict(server, served, [one]).probs
        torch.testing.assert_close(found, right[: len(one)], rtol=1e-4, atol=1e-5)
    # a surface made from the request uses the members' statistics as well
    by_request = ll.LossSurface(conv_bn(), ll.Classification(), [(request, torch.zeros(8).long())])
    torch.testing.assert_close(
        ll.predict(by_request, served, [request]).probs, right, rtol=1e-4, atol=1e-5
    )
    point = swag.posterior(scale=0).freeze(surface, samples=1).point(0)
    assert torch.equal(point.weights, swag.mean)


def test_a_saved_average_predicts_with_its_statistics(tmp_path):
    surface, swag = trained_bn()
    swa = ll.SWA(surface.layout)
    swa.update(surface.layout.load_(conv_bn(), swag.mean))
    right = ll.predict(surface, swa, [torch.ones(1, 2, 5, 5)]).probs
    loaded = ll.SWA.load(swa.refresh(surface).save(tmp_path / "swa.safetensors"))
    server = ll.LossSurface(conv_bn(), ll.Classification())
    found = ll.predict(server, loaded, [torch.ones(1, 2, 5, 5)]).probs
    torch.testing.assert_close(found, right)


def test_statistics_never_come_from_the_predicted_examples():
    _, swag = trained_bn()
    request = [(torch.randn(8, 2, 5, 5), torch.zeros(8).long())]
    surface = ll.LossSurface(conv_bn(), ll.Classification(), request)
    copied = [(request[0][0].clone(), request[0][1])]  # a new copy, as from a server's parser
    for loader in (request, list(request), [request[0][0]], copied):
        with pytest.raises(ll.DataError, match=r"examples that are being predicted.*freeze"):
            ll.predict(surface, swag.posterior(), loader, samples=2)
    by_name = [{"input": request[0][0], "labels": request[0][1]}]
    surface_by_name = ll.LossSurface(conv_bn(), ll.Classification(), by_name)
    with pytest.raises(ll.DataError, match="examples that are being predicted"):
        ll.predict(surface_by_name, swag.posterior(), [dict(by_name[0])], samples=2)
    with_loader = ll.LossSurface(conv_bn(), ll.Classification(), request, bn_loader=request)
    assert ll.predict(with_loader, swag.posterior(), request, samples=2).probs.shape == (8, 3)
    assert ll.predict(surface, swag.posterior(), samples=2).probs.shape == (8, 3)
    server = ll.LossSurface(conv_bn(), ll.Classification())
    with pytest.raises(ll.DataError, match=r"no examples .* freeze"):
        ll.predict(server, swag.posterior(), request, samples=2)


def test_statistics_that_were_never_estimated_are_an_error():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(50), nn.Linear(50, 3))
    server = ll.LossSurface(net, ll.Classification())
    w = server.layout.flatten(net)
    with pytest.raises(ll.DataError, match=r"statistics of 1 were never estimated"):
        ll.predict(server, w, [torch.ones(1, 2, 5, 5)], batchnorm="frozen")
    net.train()(torch.randn(9, 2, 5, 5))
    assert ll.predict(server, net, [torch.ones(1, 2, 5, 5)], batchnorm="frozen").probs.shape == (
        1,
        3,
    )


def test_frozen_parameters_that_differ_from_the_surface_are_an_error(tmp_path):
    net = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 1))
    net[0].requires_grad_(False)
    data = [(torch.ones(2, 2), torch.zeros(2, 1))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), data)
    swag = ll.SWAG(surface.layout, rank=2)
    for step in range(2):
        nn.init.constant_(net[1].bias, step)
        swag.update(net)
    ll.predict(surface, swag)  # equal, so no error
    nn.init.ones_(net[0].weight)  # as a backbone loaded after the surface was made
    swag.update(net)
    swag.save(tmp_path / "swag.safetensors")
    for one in (swag, swag.posterior(scale=0.5), ll.SWAG.load(tmp_path / "swag.safetensors")):
        with pytest.warns(UserWarning, match=r"frozen parameters .* 0.weight.* after its frozen"):
            ll.predict(surface, one, samples=2)
    with pytest.warns(UserWarning, match="frozen parameters"):
        surface.evaluate(ll.Mixture([swag.posterior(), swag.posterior()]), samples=2)


def features(seed: int) -> nn.Module:
    """A head on frozen random features, different for each network."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Flatten(), nn.Linear(50, 9), nn.Tanh(), nn.Linear(9, 3))
    net[1].requires_grad_(False)
    return net


@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_networks_may_differ_in_frozen_parameters(strategy):
    nets = [features(seed) for seed in range(3)]
    surface = ll.LossSurface(nets[0], ll.Classification(), images())
    points = [surface.point(net) for net in nets]
    assert not points[0].buffers
    found = ll.predict(surface, ll.Ensemble(points), strategy=strategy, chunk=2).probs
    x = torch.cat([x for x, _ in images()])
    with torch.no_grad():
        expected = torch.stack([net(x).softmax(1) for net in nets]).mean(0)
    torch.testing.assert_close(found, expected)
    frozen = ll.Ensemble(points).freeze(surface)
    torch.testing.assert_close(ll.predict(surface, frozen, strategy=strategy).probs, expected)
    # a shape through such networks is trained and evaluated with their features
    simplex = ll.Simplex([points[1]])
    loss = float(surface(simplex.point([1.0])))
    alone = ll.LossSurface(nets[1], ll.Classification(), images())
    assert loss == pytest.approx(float(alone(points[1].weights)), rel=1e-6)
    near = ll.Point(points[1].weights + 0.5, points[1].buffers)
    curve = ll.fit(ll.Bezier.between(points[1], near), surface, epochs=2)
    twin = ll.fit(ll.Bezier.between(points[1].weights, near.weights), alone, epochs=2)
    torch.testing.assert_close(curve.anchors, twin.anchors)
