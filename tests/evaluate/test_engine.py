"""The loop that evaluations share: every sink sees every point on every batch, once."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.core.options import STRATEGIES, Plan
from lowland.evaluate.engine import Evaluation
from lowland.evaluate.weights import Block
from tests.models import CASES, Case, blobs, every_case

N = 5


class Outputs:
    """A sink that keeps what it is given."""

    holds_examples = False

    def __init__(self):
        self.chunks = []
        self.parts = []
        self.ends = []

    def add(self, index, outputs, target):
        assert index == len(self.parts)
        self.parts.append(outputs)

    def end(self, first, n):
        self.ends.append((first, n))
        self.chunks.append([part.clone() for part in self.parts])
        self.parts = []

    def batch(self, index):
        return torch.cat([chunk[index] for chunk in self.chunks])


def setting(case):
    surface = case.surface()
    w = surface.layout.flatten(case.model())
    noise = torch.randn(N, len(w), generator=torch.Generator().manual_seed(1))
    return surface, w + 0.05 * noise.to(w)


@pytest.mark.filterwarnings("ignore:.*batching rule")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("batchnorm", ["refresh", "frozen"])
@every_case
def test_outputs_are_those_of_each_network_alone(case: Case, batchnorm: str, strategy: str) -> None:
    if strategy == "vmap" and not case.maps:
        return
    surface, weights = setting(case)
    options = ll.EvalOptions(strategy=strategy, chunk=2, batchnorm=batchnorm, threads=1)
    sink = Outputs()
    Evaluation(surface, [(None, sink)], options, total=N).run(weights)
    assert sink.ends == [(0, 2), (2, 2), (4, 1)]
    for index, batch in enumerate(surface.data):
        args, kwargs, _ = batch
        with torch.no_grad():
            expected = [
                surface.forward(
                    surface.layout.materialise(w),
                    surface.buffers_for(ll.Point(w), options),
                    args,
                    kwargs,
                )
                for w in weights
            ]
        result = sink.batch(index)
        tolerance = 2e-2 if case.name == "mixed" else 1e-4  # of bfloat16
        torch.testing.assert_close(result, torch.stack(expected), rtol=tolerance, atol=tolerance)


MLP = next(case for case in CASES if case.name == "mlp")


def test_several_loaders_share_a_chunk():
    """Statistics and weights are made once, and each chunk is told of when all sinks have it."""
    surface, weights = setting(MLP)
    sinks = [Outputs(), Outputs()]
    seen = []
    options = ll.EvalOptions(strategy="batches", chunk=3)
    evaluation = Evaluation(surface, [(None, sinks[0]), (blobs((4,)), sinks[1])], options)
    rows = evaluation.run(
        weights, after=lambda first, n: seen.append((first, n, len(sinks[1].chunks)))
    )
    assert seen == [(0, 3, 1), (3, 2, 2)]
    assert rows is surface.data
    assert [len(sink.chunks[0]) for sink in sinks] == [3, 1]


def test_blocks_are_chunks_whatever_the_plan_says():
    surface, weights = setting(MLP)
    sink = Outputs()
    blocks = [Block(weights[:4]), Block(weights[4:])]
    Evaluation(surface, [(None, sink)], ll.EvalOptions()).run(blocks, plan=Plan("vmap", 2, 1))
    assert sink.ends == [(0, 4), (4, 1)]


def test_the_number_of_examples():
    surface, _ = setting(MLP)
    assert surface.replayable(None, count=None) is surface.data
    few = surface.replayable(None, count=9)
    assert sum(len(batch.target) for batch in few) == 9
    assert surface.replayable(few, count=9) is few  # it stays in memory
    assert surface.replayable(few, count=10) is few
    assert sum(len(batch.target) for batch in surface.replayable(few, count=2)) == 2
    assert sum(len(batch.target) for batch in surface.replayable(blobs((30,)), count=7)) == 7


def test_what_is_not_finite_is_named_by_its_number():
    surface, weights = setting(MLP)
    weights[3, 1] = torch.nan
    options = ll.EvalOptions(strategy="points")
    for points in (weights, [Block(weights[:2]), Block(weights[2:])]):
        with pytest.raises(ll.NonFiniteError, match="draw 3"):
            Evaluation(surface, [(None, Outputs())], options).run(points)
    with pytest.raises(ll.DataError, match="no weight vector"):
        Evaluation(surface, [(None, Outputs())], options).run([])


class Scales(nn.Module):
    """Writes into its inputs, as in-place preprocessing in a forward pass does."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.norm = nn.BatchNorm1d(3) if norm else nn.Identity()
        self.last = nn.Linear(3, 1)

    def forward(self, x):
        return self.last(self.norm(x.sub_(0.5).div_(0.2)))


def in_place_surface(norm=False):
    torch.manual_seed(0)
    dataset = torch.utils.data.TensorDataset(torch.randn(8, 3), torch.randn(8, 1))
    loader = torch.utils.data.DataLoader(dataset, batch_size=4)
    surface = ll.LossSurface(Scales(norm), ll.Regression(noise_variance=1.0), loader)
    return surface, surface.layout.flatten(surface.template.module)


@pytest.mark.parametrize(
    "evaluate",
    [
        lambda surface, w: surface(w),
        lambda surface, w: surface.evaluate(w.expand(4, -1)),
        lambda surface, w: ll.predict(surface, w.expand(4, -1), strategy="vmap"),
        lambda surface, w: ll.path(ll.Line(w, w + 1), surface, points=3),
        lambda surface, w: ll.LogLikelihood(surface),
    ],
)
def test_a_model_that_writes_into_its_inputs_is_refused(evaluate):
    surface, w = in_place_surface()
    with pytest.raises(ll.DataError, match="writes into its inputs"):
        evaluate(surface, w)


def test_batchnorm_statistics_leave_the_users_examples_unchanged():
    x = torch.randn(8, 3)
    before = x.clone()
    task = ll.Regression(noise_variance=1.0)
    surface = ll.LossSurface(Scales(norm=True), task, [(x, torch.randn(8, 1))])
    w = surface.layout.flatten(surface.template.module)
    with pytest.raises(ll.DataError, match="writes into its inputs"):
        surface.refresh(w)
    assert torch.equal(x, before)


def test_in_place_operations_that_change_no_input_are_fine():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 1))
    data = [(torch.randn(8, 3), torch.randn(8, 1))]
    surface = ll.LossSurface(net, ll.Regression(noise_variance=1.0), data)
    w = surface.layout.flatten(net)
    loss = surface.evaluate(w.expand(3, -1)).loss
    assert torch.equal(loss, loss[:1].expand(3))
