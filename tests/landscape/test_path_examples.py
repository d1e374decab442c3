"""Examples of a path: the surface's own and a test set's, read once or again, all or fewer."""

import pytest
import torch

import lowland as ll
from lowland.core.data import ReplayableLoader
from tests.landscape.surfaces import STRATEGIES, network, normed
from tests.models import images, mlp


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_test_examples_are_evaluated_with_the_statistics_of_the_surface(strategy):
    surface, line = normed()
    test = [(x**3 + x.roll(1, 1), y) for x, y in images((6, 7))]
    result = ll.path(line, surface, points=5, loader=test, strategy=strategy, chunk=2)
    for i, w in enumerate(line.points(result.t)):
        own, other = surface.evaluate(w), surface.evaluate(w, test)
        assert result.loss[i].item() == pytest.approx(own.loss.item(), rel=1e-5)
        assert result.error[i].item() == pytest.approx(own.error.item())
        assert result.test_loss[i].item() == pytest.approx(other.loss.item(), rel=1e-5)
        assert result.test_error[i].item() == pytest.approx(other.error.item())
        assert result.metrics["ece"][i].item() == pytest.approx(own.ece.item(), abs=1e-5)
        assert result.metrics["test_ece"][i].item() == pytest.approx(other.ece.item(), abs=1e-5)
    own = {"nll", "ece", "brier"}
    assert set(result.metrics) == own | {f"test_{name}" for name in own}
    assert result.examples == 21
    # the broken twin: statistics of the test examples
    twin = ll.LossSurface(network(), ll.Classification(), test)
    assert abs(float(twin(line(0.5))) - float(result.test_loss[2])) > 1e-3


def test_statistics_are_estimated_once_a_point_and_examples_are_read_once(monkeypatch):
    class Counted(list):
        passes = 0

        def __iter__(self):
            type(self).passes += 1
            return super().__iter__()

    class Test(Counted):
        passes = 0

    net = network()
    own, test = Counted(images()), Test(images((4,)))
    surface = ll.LossSurface(net, ll.Classification(), own, bn_loader=images())
    refreshed = []
    exact = surface.statistics.exact
    monkeypatch.setattr(surface.statistics, "exact", lambda *a: refreshed.append(1) or exact(*a))
    w = surface.layout.flatten(net)
    ll.path(ll.Line(w, 2 * w), surface, points=7, loader=test, strategy="points")
    assert len(refreshed) == 7
    assert (Counted.passes, Test.passes) == (1, 1)


@pytest.mark.parametrize("loader_in_memory", ["neither", "own", "test"])
def test_examples_that_do_not_fit_in_memory_are_read_again_with_equal_results(
    monkeypatch, loader_in_memory
):
    test = [(x**3, y) for x, y in images((6, 7))]
    surface, line = normed()
    expected = ll.path(line, surface, points=5, loader=test)
    resident = ReplayableLoader.resident

    def fits(examples):
        mine = "own" if examples.loader is surface.data.loader else "test"
        result = resident(examples)  # a pass, as for too many examples
        return result if mine == loader_in_memory else None

    monkeypatch.setattr(ReplayableLoader, "resident", fits)
    for strategy in (None, "batches"):
        result = ll.path(line, surface, points=5, loader=test, strategy=strategy, chunk=2)
        torch.testing.assert_close(result.loss, expected.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(result.test_loss, expected.test_loss, rtol=1e-5, atol=0)


def test_fewer_examples():
    surface, line = normed()
    result = ll.path(line, surface, points=2, loader=images((9,)), count=8)
    assert result.examples == 8
    assert result.loss[0].item() == pytest.approx(
        float(surface(line(0.0), loader=images()[:1])), rel=1e-5
    )


def test_a_loader_that_changes_from_path_to_path_is_refused():
    class Noisy:
        def __iter__(self):
            yield torch.randn(8, 6), torch.arange(8) % 3

        def __len__(self):
            return 1

    model = mlp()
    surface = ll.LossSurface(model, ll.Classification(), Noisy())
    w = surface.layout.flatten(model)
    ll.path(ll.Line(w, w + 1), surface, points=3)
    with pytest.raises(ll.DataError, match="changed"):
        ll.path(ll.Line(w, w + 1), surface, points=3)


def test_count_does_not_limit_test_examples():
    model = mlp()
    examples = [(torch.randn(8, 6), torch.arange(8) % 3)]
    surface = ll.LossSurface(model, ll.Classification(), examples)
    w = surface.layout.flatten(model)
    line = ll.Line(w, w + 1)
    whole = ll.path(line, surface, points=3, loader=examples)
    some = ll.path(line, surface, points=3, loader=examples, count=3)
    assert torch.allclose(some.test_loss, whole.test_loss)
    assert some.examples == 3
    assert not torch.allclose(some.loss, whole.loss)
    fewer = ll.path(line, surface, points=3, loader=examples, test_count=3)
    assert torch.allclose(fewer.test_loss, some.loss)
