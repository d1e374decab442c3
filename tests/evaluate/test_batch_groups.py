"""Averages of which nothing is held but what each item gives: a few batches at a time."""

import math
import sys

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.predictive_builder import PredictiveBuilder
from tests.evaluate.test_predict import dense, live_bytes, scattered
from tests.models import TiedLM, blobs, conv_bn, images, mlp, tokens

FIELDS = ("target_log_prob", "entropy", "mutual_information", "nll_by_samples", "error_by_samples")


def language():
    batches = [tokens((n,), length=t)[0] for n, t in ((4, 6), (3, 4), (2, 9), (2, 6))]
    return ll.LossSurface(TiedLM(), ll.LanguageModeling(), batches)


def batchnorm():
    return ll.LossSurface(conv_bn(), ll.Classification(), images())


def multilabel():
    g = torch.Generator().manual_seed(0)
    rows = [(x, torch.randint(2, (len(x), 3), generator=g).float()) for x, _ in blobs()]
    return ll.LossSurface(mlp(), ll.Classification(), rows)


def pixels(sizes=((4, 4), (4, 6), (5, 4))):
    return ll.LossSurface(
        nn.Conv2d(2, 4, 3, padding=1), ll.Classification(class_dim=1), dense(sizes)
    )


SURFACES = [language, batchnorm, multilabel, pixels]


@pytest.fixture
def batch_by_batch(monkeypatch):
    module = sys.modules["lowland.evaluate.batch_groups"]
    monkeypatch.setattr(module, "MAX_BYTES", 0)
    monkeypatch.setattr(sys.modules["lowland.evaluate.table"], "MAX_BYTES", 0)


def assert_same(pred, whole):
    assert pred.probs is pred.targets is None
    assert pred.metrics() == pytest.approx(whole.metrics(), rel=1e-6, abs=1e-7)
    assert set(pred.metrics()) == set(whole.metrics())
    assert pred.samples == whole.samples
    for name in FIELDS:
        ours, theirs = getattr(pred, name), getattr(whole, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=2e-6, msg=name)
    if whole.reliability is not None:
        assert torch.equal(pred.reliability["count"], whole.reliability["count"])


@pytest.mark.parametrize("make", SURFACES)
@pytest.mark.parametrize("plan", [("points", 1), ("batches", 2), ("vmap", 3), (None, None)])
def test_batch_by_batch_gives_what_all_at_once_give(make, plan, batch_by_batch):
    surface = make()
    strategy, chunk = plan
    weights = scattered(surface.layout, 5, 0.5)
    whole = ll.predict(surface, weights, strategy=strategy, chunk=chunk)
    pred = ll.predict(surface, weights, strategy=strategy, chunk=chunk, keep="target")
    assert_same(pred, whole)
    none = ll.predict(surface, weights, strategy=strategy, chunk=chunk, keep="none")
    assert none.metrics() == pred.metrics()
    assert none.entropy is none.target_log_prob is None


def test_tokens_against_averages_by_hand(batch_by_batch):
    """Log probability, entropy and mutual information of every token, in float64."""
    surface = language()
    weights = scattered(surface.layout, 6, 1.0)
    pred = ll.predict(surface, weights, keep="target")
    log_prob, entropy, information = [], [], []
    for batch in surface.data:
        p = []
        for w in weights:
            output = surface.forward(surface.layout.materialise(w), {}, batch.args, batch.kwargs)
            p.append(output[:, :-1].double().softmax(2).detach())
        p, y = torch.stack(p), batch.target[:, 1:]
        mean = p.mean(0)
        mine = -(mean * mean.log()).sum(2)
        entropy.append(mine.flatten())
        information.append((mine + (p * p.log()).sum(3).mean(0)).flatten())
        hit = mean.gather(2, y.clamp_min(0)[..., None])[..., 0].log()
        log_prob.append(hit[y != -100])
    torch.testing.assert_close(pred.target_log_prob, torch.cat(log_prob), atol=1e-5, rtol=0)
    torch.testing.assert_close(pred.entropy.double(), torch.cat(entropy), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        pred.mutual_information.double(), torch.cat(information), atol=1e-5, rtol=0
    )


def test_examples_without_targets(batch_by_batch):
    surface = batchnorm()
    weights = scattered(surface.layout, 3, 0.3)
    rows = [x for x, _ in images()]
    whole = ll.predict(surface, weights, rows)
    pred = ll.predict(surface, weights, rows, keep="target")
    torch.testing.assert_close(pred.entropy, whole.entropy)
    assert pred.metrics() == {}
    assert pred.target_log_prob is pred.nll_by_samples is None
    mixed = [*images()[:1], *rows[1:]]
    with pytest.raises(ll.DataError, match="some batches have targets"):
        ll.predict(surface, weights, mixed, keep="target")


def test_statistics_are_estimated_once_a_draw(batch_by_batch, monkeypatch):
    surface = batchnorm()
    post = ll.Gaussian(surface.layout.flatten(conv_bn()), torch.full((surface.layout.size,), 0.01))
    calls = []
    estimate = surface.statistics.estimate
    counted = lambda *a, **k: calls.append(1) or estimate(*a, **k)  # noqa: E731
    monkeypatch.setattr(surface.statistics, "estimate", counted)
    pred = ll.predict(surface, post, samples=4, keep="none", strategy="points")
    assert len(list(surface.data)) > 1
    assert len(calls) == 4
    whole = ll.predict(surface, post, samples=4, strategy="points")
    assert pred.metrics() == pytest.approx(whole.metrics(), abs=1e-9)


def test_every_loader_is_read_once(batch_by_batch):
    surface = batchnorm()
    reads = []

    class Counted(list):
        def __iter__(self):
            for batch in super().__iter__():
                reads.append(1)
                yield batch

    ll.predict(surface, scattered(surface.layout, 3, 0.3), Counted(images()), keep="target")
    assert len(reads) == len(images())


def test_an_iterator_of_weights_is_read_once(batch_by_batch):
    surface = batchnorm()
    weights = scattered(surface.layout, 3, 0.3)
    whole = ll.predict(surface, weights)
    assert_same(ll.predict(surface, (w for w in weights), keep="target"), whole)
    assert_same(ll.predict(surface, iter(weights), keep="target", samples=3), whole)
    assert_same(ll.predict(surface, list(weights), keep="target", samples=3), whole)


def test_weights_that_change_between_iterations_are_refused(batch_by_batch):
    surface = batchnorm()

    class Fresh:
        def __iter__(self):
            return iter(torch.randn(3, surface.layout.size))

    with pytest.raises(ll.ConfigError, match="vector 0 is another one in each iteration"):
        ll.predict(surface, Fresh(), keep="target")


@pytest.mark.parametrize("make", SURFACES)
def test_tables_hold_no_probabilities(make, monkeypatch):
    surface = make()
    weights = scattered(surface.layout, 4, 0.5)
    whole = surface.evaluate(weights)
    monkeypatch.setattr(sys.modules["lowland.evaluate.table"], "MAX_BYTES", 0)
    parts = surface.evaluate(weights)
    for name, column in whole.columns.items():
        torch.testing.assert_close(parts.columns[name], column, rtol=1e-9, atol=1e-12)


def test_dropout_masks_do_not_depend_on_the_groups(monkeypatch):
    net = nn.Sequential(nn.Linear(6, 20), nn.Dropout(0.5), nn.Linear(20, 3))
    surface = ll.LossSurface(net, ll.Classification(), blobs())
    w = surface.layout.flatten(net)
    whole = ll.mc_dropout(surface, w, samples=5)
    monkeypatch.setattr(sys.modules["lowland.evaluate.batch_groups"], "MAX_BYTES", 0)
    assert_same(ll.mc_dropout(surface, w, samples=5, keep="target"), whole)


def test_progress_counts_over_the_groups(batch_by_batch):
    surface = batchnorm()
    seen = []
    ll.predict(
        surface,
        scattered(surface.layout, 3, 0.3),
        keep="target",
        strategy="points",
        progress=lambda done, total: seen.append((done, total)),
    )
    batches = len(images())
    assert [done for done, _ in seen] == list(range(1, 3 * batches + 1))


def test_a_task_whose_metrics_need_all_examples_holds_them(batch_by_batch):
    class Counted(ll.Classification):
        def metrics(self, averages, target):
            return {"rows": float(len(averages["probs"])), "targets": float(len(target))}

    surface = ll.LossSurface(mlp(), Counted(), blobs())
    result = ll.predict(surface, scattered(surface.layout, 3), keep="none").metrics()
    assert result["rows"] == result["targets"] == sum(len(y) for _, y in blobs())


def test_equal_samples_average_to_one_of_them():
    """In float32 the sum of a thousand equal likelihoods of e^-500 is off by 1e-5 and more."""
    net = nn.Linear(1, 2, bias=False)
    surface = ll.LossSurface(net, ll.Classification(), [(torch.ones(1, 1), torch.tensor([0]))])
    w = torch.tensor([-500.3, 0.0])
    sums = ModelAverage(surface.task)
    output = surface.forward(surface.layout.materialise(w), {}, (torch.ones(1, 1),), {})
    for i in range(3000):
        sums.add(0, output[None], torch.tensor([0]))
        sums.end(i, 1)
    builder = PredictiveBuilder("target")
    builder.add(sums)
    pred = builder.predictive()
    assert float(pred.target_log_prob) == pytest.approx(-500.3, abs=1e-4)
    one = -float(nn.functional.cross_entropy(output, torch.tensor([0])))
    assert float(pred.target_log_prob) == pytest.approx(one, abs=1e-9)
    assert math.isclose(float(pred.nll_by_samples[-1]), -one, abs_tol=1e-9)


class LM(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 4), nn.Linear(4, vocabulary)

    def forward(self, input_ids):
        return self.head(self.embed(input_ids))


@pytest.mark.usefixtures("new_objects")
def test_memory_does_not_grow_with_tokens(batch_by_batch, monkeypatch):
    """The averages of one batch of 128 tokens and 2,000 words take 1 MB; only one is held."""
    peaks = []
    add = ModelAverage.add

    def watched(self, index, outputs, target):
        add(self, index, outputs, target)
        peaks.append(live_bytes())

    monkeypatch.setattr(ModelAverage, "add", watched)

    def peak(batches, keep):
        peaks.clear()
        data = [{"input_ids": torch.randint(2000, (4, 33))} for _ in range(batches)]
        surface = ll.LossSurface(LM(2000), ll.LanguageModeling(), data)
        ll.predict(surface, scattered(surface.layout, 2), keep=keep)
        return max(peaks)

    average = 4 * 32 * 2000 * 4  # bytes
    assert peak(6, "target") - peak(1, "target") < average
    assert peak(6, "probs") - peak(1, "probs") > 4 * average  # the broken twin holds all
