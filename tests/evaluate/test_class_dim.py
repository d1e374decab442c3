"""The class axis: classes on the last axis give the same as classes on axis 1, everywhere."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lowland as ll
from lowland.evaluate import LogLikelihood
from lowland.train import best_threads
from lowland.uncertainty.dropout import mc_dropout
from tests.models import generator

T = 6


class Tagger(nn.Module):
    """Logits (N, T, C), or (N, C, T): the same network."""

    def __init__(self, classes, last=True):
        super().__init__()
        self.embed = nn.Embedding(9, 5)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(5, classes)
        self.last = last

    def forward(self, ids):
        out = self.head(self.drop(self.embed(ids)))
        return out if self.last else out.movedim(-1, 1)


def data(classes, ignored=True):
    g = generator()
    ids, y = torch.randint(9, (8, T), generator=g), torch.randint(classes, (8, T), generator=g)
    if ignored:
        y[torch.rand(8, T, generator=g) < 0.3] = -100
    return [(ids[:5], y[:5]), (ids[5:], y[5:])]


def both(classes):
    """The same loss, with classes last and with classes on axis 1; weights."""
    torch.manual_seed(0)
    rows = data(classes)
    last, first = (
        ll.LossSurface(Tagger(classes, last), ll.Classification(class_dim=dim), rows)
        for last, dim in ((True, -1), (False, 1))
    )
    weights = torch.randn(5, last.layout.size, generator=generator())
    return last, first, weights


SIZES = pytest.mark.parametrize("classes", [3, T])


@SIZES
def test_the_loss_and_its_gradient(classes):
    last, first, weights = both(classes)
    w = weights[0]
    assert float(last(w)) == pytest.approx(float(first(w)), rel=1e-6)
    torch.testing.assert_close(last.value_and_grad(w)[1], first.value_and_grad(w)[1])
    rows = data(classes)
    net = Tagger(classes).eval()
    last.layout.load_(net, w)
    logits = torch.cat([net(x) for x, _ in rows])
    labels = torch.cat([y for _, y in rows])
    by_hand = F.cross_entropy(logits.reshape(-1, classes).double(), labels.reshape(-1))
    assert float(last(w)) == pytest.approx(by_hand.item(), rel=1e-5)


@SIZES
@pytest.mark.parametrize("strategy", ["points", "batches", "vmap"])
def test_predictions(classes, strategy):
    last, first, weights = both(classes)
    options = {"strategy": strategy, "chunk": None if strategy == "points" else 2}
    a, b = (ll.predict(surface, weights, **options) for surface in (last, first))
    assert a.probs.shape == (8, classes, T)
    for name in ("probs", "entropy", "mutual_information", "target_log_prob", "error_by_samples"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), msg=name)
    assert a.metrics() == pytest.approx(b.metrics(), rel=1e-5)
    assert ll.selective(a).aurc == pytest.approx(ll.selective(b).aurc)
    assert ll.fit_temperature(a) == pytest.approx(ll.fit_temperature(b), rel=1e-4)
    assert ll.temper(a, 2.0).metrics() == pytest.approx(ll.temper(b, 2.0).metrics(), rel=1e-4)
    assert ll.pool([a, a]).metrics() == pytest.approx(a.metrics(), rel=1e-5)
    assert bool((ll.ood(a, b).auroc == 0.5).all())
    torch.testing.assert_close(
        last.evaluate(weights, **options).nll, first.evaluate(weights, **options).nll
    )
    unlabelled = [x for x, _ in data(classes)]
    torch.testing.assert_close(ll.predict(last, weights, unlabelled).probs, a.probs)


@SIZES
def test_other_consumers(classes):
    last, first, weights = both(classes)
    torch.testing.assert_close(LogLikelihood(last)(weights), LogLikelihood(first)(weights))
    a, b = (mc_dropout(surface, weights[0], samples=3) for surface in (last, first))
    torch.testing.assert_close(a.probs, b.probs)
    line = ll.Line(weights[0], weights[1])
    a, b = (ll.path(line, surface, points=3) for surface in (last, first))
    torch.testing.assert_close(a.loss, b.loss)
    torch.testing.assert_close(a.error, b.error)
    a, b = (ll.scan(ll.Plane.through(*weights[:3]), s, resolution=3) for s in (last, first))
    torch.testing.assert_close(a.loss, b.loss)
    torch.testing.assert_close(a.error, b.error)


@SIZES
def test_training(classes):
    losses = []
    for last, dim in ((True, -1), (False, 1)):
        torch.manual_seed(0)
        net = Tagger(classes, last).eval()
        net.drop.p = 0.0
        log = ll.sgd(net, ll.Classification(class_dim=dim), data(classes), epochs=3)
        losses.append(log.columns["loss"])
    torch.testing.assert_close(*losses)


# -- without class_dim -----------------------------------------------------------------------------


def tagged(classes):
    """A tagger that is right everywhere."""
    ids = torch.randint(classes, (6, 6), generator=generator())
    net = Tagger(classes)
    with torch.no_grad():
        net.embed.weight.copy_(torch.eye(9)[:, :5])
        net.head.weight.copy_(10 * torch.eye(9)[:classes, :5])
        net.head.bias.copy_(torch.tensor([0.0] * 5 + [1.0] * (classes - 5)))
    return net, [(ids, ids)]


def test_an_ambiguous_class_axis_is_refused():
    net, rows = tagged(6)
    surface = ll.LossSurface(net, ll.Classification(), rows)
    w = surface.layout.flatten(net)
    says = r"outputs \(6, 6, 6\) can be read .*Classification\(class_dim=1\) or class_dim=-1"
    for call in (
        lambda: surface(w),
        lambda: ll.predict(surface, w),
        lambda: ll.predict(surface, w, [rows[0][0]]),  # nor where there are no labels
        lambda: LogLikelihood(surface),
        lambda: ll.sgd(net, ll.Classification(), rows, epochs=1),
        lambda: ll.Classification().probs(torch.zeros(2, 4, 4)),
    ):
        with pytest.raises(ll.DataError, match=says.replace("6, 6, 6", r"\d, \d, \d")):
            call()
    accuracy = {}
    for dim in (-1, 1, 2):
        surface = ll.LossSurface(net, ll.Classification(class_dim=dim), rows)
        accuracy[dim] = ll.predict(surface, w).metrics()["accuracy"]
    assert accuracy[-1] == accuracy[2] == 1
    assert accuracy[1] < 0.5  # the broken twin


def test_only_the_last_axis_fits():
    net, rows = tagged(5)
    surface = ll.LossSurface(net, ll.Classification(), rows)
    w = surface.layout.flatten(net)
    hint = r"expected targets \(6, 5\), got \(6, 6\); .*class_dim=-1.*movedim\(-1, 1\)"
    with pytest.raises(ll.DataError, match=hint):
        surface(w)
    with pytest.raises(ll.DataError, match="class_dim=-1"):  # by an example of the labels
        ll.predict(surface, w, [rows[0][0]])
    with pytest.raises(ll.DataError, match="seem to lie on axis 1: say class_dim=1"):
        ll.Classification(class_dim=-1).nll(torch.zeros(2, 3, 4), torch.zeros(2, 4).long())


def test_images_of_any_size_without_labels():
    net = nn.Conv2d(2, 3, 1)
    rows = [(torch.randn(4, 2, 5, 6), torch.randint(3, (4, 5, 6)))]
    surface = ll.LossSurface(net, ll.Classification(), rows)
    pred = ll.predict(surface, surface.layout.flatten(net), [torch.randn(2, 2, 7, 8)])
    assert pred.probs.shape == (2, 3, 7, 8)


@pytest.mark.parametrize("dims", [2, 3])
def test_images_with_as_many_pixels_a_side_as_classes(dims):
    """Classes on axis 1 and on the last axis both fit (N, C, C, C)."""
    shape = (2, *[3] * (dims + 1))
    logits, labels = torch.randn(shape), torch.randint(3, shape[:-1])
    for call in (
        lambda: ll.Classification().nll(logits, labels),
        lambda: ll.Classification().probs(logits),
    ):
        with pytest.raises(ll.DataError, match=r"can be read with the classes on axis 1 or on the"):
            call()
    for dim in (1, -1):
        expected = F.cross_entropy(logits.movedim(dim, 1), labels, reduction="none").reshape(-1)
        torch.testing.assert_close(ll.Classification(class_dim=dim).nll(logits, labels), expected)


def test_images_with_classes_last():
    g = generator()
    logits, labels = torch.randn(2, 4, 5, 3, generator=g), torch.randint(3, (2, 4, 5), generator=g)
    expected = F.cross_entropy(logits.movedim(-1, 1), labels, reduction="none").reshape(-1)
    for dim in (-1, 3):
        task = ll.Classification(class_dim=dim)
        torch.testing.assert_close(task.nll(logits, labels), expected)
        assert task.probs(logits).shape == (2, 3, 4, 5)


def test_class_dim_where_only_one_axis_fits():
    task = ll.Classification(class_dim=-1)
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, -100])
    torch.testing.assert_close(task.nll(logits, labels), ll.Classification().nll(logits, labels))
    assert task.probs(torch.zeros(4)).shape == task.probs(torch.zeros(4, 1)).shape == (4, 2)
    with pytest.raises(ll.DataError, match=r"class_dim=2: outputs .* have no such axis"):
        ll.Classification(class_dim=2).nll(logits, labels)
    for wrong in (0, "last", 1.5):
        with pytest.raises(ll.ConfigError, match="class_dim: expected"):
            ll.Classification(class_dim=wrong)


def test_independent_labels_have_no_class_axis():
    output, target = torch.randn(4, 3, 3), torch.randint(2, (4, 3, 3)).float()
    task = ll.Classification()
    assert task.nll(output, target).shape == (4,)
    torch.testing.assert_close(ll.Classification("multilabel").probs(output), output.sigmoid())


# -- models with a known class axis ----------------------------------------------------------------


class TinyForTokenClassification(Tagger):
    """Named as such models of Hugging Face are."""

    def forward(self, ids):
        return type("TokenClassifierOutput", (), {"logits": super().forward(ids)})()


class Derived(TinyForTokenClassification):
    pass


@SIZES
def test_token_classification_models_have_classes_last(classes):
    last, _, weights = both(classes)
    for kind in (TinyForTokenClassification, Derived):
        surface = ll.LossSurface(kind(classes), ll.Classification(), data(classes))
        assert surface.task.class_dim == -1
        a, b = ll.predict(surface, weights), ll.predict(last, weights)
        torch.testing.assert_close(a.probs, b.probs)
        assert a.task == b.task
        ll.sgd(kind(classes), ll.Classification(), data(classes), epochs=1)
        assert best_threads(kind(classes), ll.Classification(), data(classes)[0]) >= 1
        rows = tuple(torch.cat(parts) for parts in zip(*data(classes), strict=True))
        side_by_side = ll.Members([kind(classes), kind(classes)])
        batches = [ll.Batches(rows, batch_size=4, seed=seed) for seed in (0, 1)]
        ll.sgd_members(side_by_side, ll.Classification(), batches, epochs=1)
    explicit = ll.LossSurface(Derived(classes), ll.Classification(class_dim=1), data(classes))
    assert explicit.task.class_dim == 1


class TinyForMaskedLM(nn.Linear):
    pass


def test_models_that_predict_no_next_token():
    ids = torch.zeros(2, 3).long()
    seq2seq = nn.Linear(1, 1)
    seq2seq.config = type("Config", (), {"is_encoder_decoder": True})()
    for net in (TinyForMaskedLM(1, 1), seq2seq):
        with pytest.raises(ll.ConfigError, match="LanguageModeling shifts labels"):
            ll.LossSurface(net, ll.LanguageModeling(), [{"input_ids": ids}])
    assert ll.Classification().for_model(TinyForMaskedLM(1, 1)).class_dim == -1


# -- classes that are positions in a text ----------------------------------------------------------


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(9, 2)

    def forward(self, input_ids):
        start, end = self.embed(input_ids).unbind(-1)
        return {"start_logits": start, "end_logits": end}


class Spans(ll.Classification):
    def output(self, raw):
        return torch.stack([raw["start_logits"], raw["end_logits"]], 1)


def answers(lengths):
    g = generator()
    out = []
    for n in lengths:
        ids = torch.randint(9, (3, n), generator=g)
        out.append((ids, torch.randint(n, (3, 2), generator=g)))
    out[0][1][0, 1] = -100  # an answer whose end is cut off
    return out


@pytest.mark.filterwarnings("ignore:no temperature fits best")  # of a network that knows nothing
@pytest.mark.parametrize("lengths", [(5, 5), (2, 7), (2, 2)])
def test_spans_in_texts_of_several_lengths(lengths):
    rows = answers(lengths)
    surface = ll.LossSurface(Reader(), Spans(class_dim=-1), rows)
    weights = torch.randn(4, 18, generator=generator())
    pred = ll.predict(surface, weights)
    assert pred.probs.shape == (6, max(lengths), 2)
    torch.testing.assert_close(pred.probs.sum(1), torch.ones(6, 2))
    expected = []
    for ids, span in rows:
        logits = weights.view(4, 9, 2)[:, ids].double()  # (S, N, T, 2)
        probs = logits.softmax(2).mean(0)
        each = probs.gather(1, span.clamp_min(0)[:, None]).squeeze(1).log()
        expected.append(each[span >= 0])
    expected = torch.cat(expected)
    torch.testing.assert_close(pred.target_log_prob.double(), expected, rtol=1e-5, atol=1e-6)
    assert pred.metrics()["nll"] == pytest.approx(-float(expected.mean()), rel=1e-5)
    assert len(ll.selective(pred).risk) == 11
    assert ll.temper(pred, 1.0).metrics()["nll"] == pytest.approx(pred.metrics()["nll"], rel=1e-4)
    assert ll.fit_temperature(pred) > 0
    assert pred.task["name"].endswith(":Spans")
    assert bool((ll.ood(pred, pred).auroc == 0.5).all())
