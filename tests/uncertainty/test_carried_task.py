"""A prediction carries its task: every function of it counts the items that the task counts."""

import pytest
import torch
from torch import nn

import lowland as ll
from lowland.evaluate.slicing import slice_examples
from lowland.records import Predictive

C = 4


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 7)

    def forward(self, input_ids, attention_mask=None):
        return self.embed(input_ids)


def predict(kind, draws=3):
    """A prediction, and by hand the probabilities and labels of the items that count."""
    g = torch.Generator().manual_seed(0)
    if kind == "tokens":
        ids = torch.randint(7, (5, 9), generator=g)
        mask = (torch.arange(9) < torch.tensor([9, 4, 7, 2, 6])[:, None]).long()
        batch = {"input_ids": ids, "attention_mask": mask}
        surface = ll.LossSurface(Tokens(), ll.LanguageModeling(), [batch])
        pred = ll.predict(surface, torch.randn(draws, 49, generator=g))
        there = mask[:, 1:].bool().reshape(-1)
        return pred, pred.probs[there], ids[:, 1:].reshape(-1)[there]
    size = () if kind == "rows" else (5, 6)
    x = torch.randn(8, 3, *size, generator=g)
    y = torch.randint(C, (8, *size), generator=g)
    ignored = {"rows": 255, "pixels": 255, "background": 0}[kind]
    y[torch.rand(y.shape, generator=g) < 0.4] = ignored
    y[2] = ignored  # no item counts
    net = nn.Linear(3, C) if kind == "rows" else nn.Conv2d(3, C, 1)
    surface = ll.LossSurface(net, ll.Classification(ignore_index=ignored), [(x, y)])
    pred = ll.predict(surface, 2 * torch.randn(draws, 4 * C, generator=g))
    there = y.reshape(-1) != ignored
    return pred, pred.probs.movedim(1, -1).reshape(-1, C)[there], y.reshape(-1)[there]


KINDS = ("rows", "pixels", "background", "tokens")


@pytest.fixture(params=["memory", "npz", "json"])
def stored(request, tmp_path):
    """The prediction itself, or one that was saved and loaded."""

    def go(pred):
        if request.param == "memory":
            return pred
        return Predictive.load(pred.save(tmp_path / f"pred.{request.param}"))

    return go


@pytest.mark.parametrize("kind", KINDS)
def test_selective(kind, stored):
    pred, probs, labels = predict(kind)
    record = ll.selective(stored(pred))
    wrong = (probs.argmax(1) != labels).double()
    assert len(record.risk) == len(labels) < pred.targets.numel()
    assert float(record.risk[-1]) == pytest.approx(float(wrong.mean()))
    assert record.aurc == pytest.approx(
        ll.selective(Predictive("classification", 1, probs=probs, targets=labels)).aurc
    )
    # the broken twin: items that are ignored count as wrong
    rows = pred.probs.movedim(1, -1).reshape(-1, pred.probs.shape[1])
    twin = (rows.argmax(1) != pred.targets.reshape(-1)).double().mean()
    assert float(twin) > float(record.risk[-1]) + 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("score", ["entropy", "mutual information"])
def test_selective_by_other_scores(kind, score):
    pred, probs, labels = predict(kind)
    record = ll.selective(pred, score=score)
    assert len(record.risk) == len(labels)
    if score == "entropy":
        by_hand = Predictive("classification", 1, probs=probs, targets=labels)
        torch.testing.assert_close(record.risk, ll.selective(by_hand, score=score).risk)


@pytest.mark.filterwarnings("ignore:no temperature fits best")  # labels are random
@pytest.mark.parametrize("kind", KINDS)
def test_temperature(kind, stored):
    pred, probs, labels = predict(kind)
    loaded = stored(pred)
    log_probs = probs.double().log()

    def nll(t):
        return float(nn.functional.cross_entropy(log_probs / t, labels))

    by_hand = Predictive("classification", 1, probs=probs, targets=labels)
    assert ll.fit_temperature(loaded) == pytest.approx(ll.fit_temperature(by_hand), rel=1e-4)
    tempered = ll.temper(loaded, 2.0)
    assert tempered.metrics()["nll"] == pytest.approx(nll(2.0), rel=1e-5)
    assert tempered.metrics()["accuracy"] == pytest.approx(pred.metrics()["accuracy"])
    assert float(tempered.reliability["count"].sum()) == len(labels)
    assert ("perplexity" in tempered.metrics()) == (kind == "tokens")
    assert tempered.task == loaded.task


@pytest.mark.parametrize("kind", KINDS)
def test_reliability(kind, stored):
    pred, probs, labels = predict(kind)
    record = ll.reliability(stored(pred), bins=10)
    expected = ll.reliability(probs, labels, bins=10)
    assert record.count.tolist() == expected.count.tolist()
    assert record.ece == pytest.approx(expected.ece)
    record.plot()


@pytest.mark.parametrize("kind", KINDS)
def test_pool(kind, stored):
    pred, *_ = predict(kind)
    loaded = stored(pred)
    pooled = ll.pool([loaded, loaded])
    assert pooled.metrics() == pytest.approx(pred.metrics(), rel=1e-5)
    assert pooled.task == loaded.task


@pytest.mark.parametrize("kind", KINDS)
def test_uncertainties(kind, stored):
    pred, *_ = predict(kind)
    result = ll.uncertainties(stored(pred))
    each = -torch.special.xlogy(pred.probs.double(), pred.probs.double()).sum(1)
    if kind in ("rows", "tokens"):
        ignored = {"rows": 255, "tokens": -100}[kind]
        expected = each[pred.targets != ignored]
    else:
        ignored = {"pixels": 255, "background": 0}[kind]
        rows = [e[t != ignored] for e, t in zip(each, pred.targets, strict=True)]
        expected = torch.stack([row.mean() for row in rows if len(row)])
    torch.testing.assert_close(result["entropy"], expected, rtol=1e-5, atol=1e-6)
    table = ll.ood(pred, stored(pred))
    assert bool((table.auroc == 0.5).all())


@pytest.mark.parametrize("kind", ["rows", "pixels", "background"])
def test_slices(kind, stored):
    pred, *_ = predict(kind)
    loaded = stored(pred)
    assert slice_examples(loaded, 0, 8).metrics() == pytest.approx(pred.metrics(), rel=1e-5)
    first, second = slice_examples(loaded, 0, 5), slice_examples(loaded, 5, 8)
    counts = [len(one.target_log_prob) for one in (first, second)]
    assert sum(counts) == len(pred.target_log_prob)
    nll = sum(n * p.metrics()["nll"] for n, p in zip(counts, (first, second), strict=True))
    assert nll / sum(counts) == pytest.approx(pred.metrics()["nll"], rel=1e-5)


# -- kinds of tasks --------------------------------------------------------------------------------


class Scaled(ll.Classification):
    """A custom task with a setting."""

    def __init__(self, scale, *, ignore_index=-100):
        super().__init__("multiclass", ignore_index=ignore_index)
        self.scale = scale

    def probs(self, output):
        return super().probs(self.scale * output)

    def metrics(self, averages, target):
        return {"scale": float(self.scale)}


def small(task, targets=(0, 1, 7, 1)):
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    surface = ll.LossSurface(nn.Linear(3, 2), task, [(x, torch.tensor(targets))])
    return ll.predict(surface, torch.linspace(-1, 1, 8))


def test_a_custom_task_is_carried(stored):
    pred = stored(small(Scaled(2.0, ignore_index=7)))
    assert pred.task["settings"] == {"scale": 2.0, "ignore_index": 7}
    assert len(ll.selective(pred).risk) == 3
    assert ll.temper(pred, 2.0).metrics()["scale"] == 2.0


class Renamed(Scaled):
    """Its argument is not an attribute."""

    def __init__(self, times, ignore_index=-100):
        super().__init__(times, ignore_index=ignore_index)


class WithSettings(Renamed):
    def settings(self):
        return {"times": self.scale, "ignore_index": self.ignore_index}


def test_settings_that_cannot_be_read_are_an_error(stored):
    pred = stored(small(Renamed(2.0, ignore_index=7)))
    with pytest.raises(ll.ConfigError, match=r"Renamed, cannot be made again .* Task.settings"):
        ll.selective(pred)
    assert len(ll.selective(pred, task=Renamed(2.0, ignore_index=7)).risk) == 3
    assert len(ll.selective(stored(small(WithSettings(2.0, ignore_index=7)))).risk) == 3


def test_a_class_that_is_not_imported_is_not_imported():
    pred = small(ll.Classification(ignore_index=7))
    pred.task["name"] = "antigravity:Task"
    with pytest.raises(ll.ConfigError, match="antigravity:Task, which is not imported"):
        ll.selective(pred)


def test_a_prediction_without_a_task_is_refused():
    with pytest.raises(ll.ConfigError, match="pass task="):
        ll.selective(Predictive("custom", 1, probs=torch.rand(2, 2), targets=torch.zeros(2)))


def test_labels_that_are_no_class_are_refused():
    probs, labels = torch.rand(3, 2).softmax(1), torch.tensor([0, 1, 255])
    pred = Predictive("classification", 1, probs=probs, targets=labels)
    for function in (ll.selective, ll.fit_temperature, lambda p: ll.temper(p, 2.0), ll.reliability):
        with pytest.raises(ll.DataError, match="labels out of range: expected 0 to 1, got 255"):
            function(pred)
    with pytest.raises(ll.DataError, match="labels out of range"):
        ll.reliability(probs, labels)


def test_predictions_of_different_tasks_are_not_pooled():
    a, b = (small(ll.Classification(ignore_index=i)) for i in (7, 7))
    ll.pool([a, b])
    b.task["settings"]["ignore_index"] = 1
    with pytest.raises(ll.DataError, match="different examples or tasks"):
        ll.pool([a, b])


def test_maps_of_independent_labels():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(8, 2, 4, 5, generator=g), torch.randint(2, (8, 3, 4, 5), generator=g).float()
    surface = ll.LossSurface(nn.Conv2d(2, 3, 1), ll.Classification(), [(x, y)])
    pred = ll.predict(surface, torch.randn(3, 9, generator=g))
    assert pred.form == "multilabel"
    wrong = ((pred.probs > 0.5) != y.bool()).double().mean()
    brier = (pred.probs.double() - y).square().sum((1, 2, 3)).mean()
    assert pred.metrics()["accuracy"] == pytest.approx(1 - float(wrong))
    assert pred.metrics()["brier"] == pytest.approx(float(brier))
    assert float(ll.selective(pred).risk[-1]) == pytest.approx(float(wrong))
    assert ll.temper(pred, 1.0).metrics() == pytest.approx(pred.metrics(), rel=1e-5)
    assert ll.pool([pred, pred]).metrics() == pytest.approx(pred.metrics(), rel=1e-5)


def multilabel(integers):
    g = torch.Generator().manual_seed(0)
    y = (torch.rand(30, 4, generator=g) < 0.4).float()
    task = ll.Classification("multilabel") if integers else ll.Classification()
    data = [(torch.randn(30, 3, generator=g), y.long() if integers else y)]
    surface = ll.LossSurface(nn.Linear(3, 4), task, data)
    return surface, torch.randn(5, 16, generator=g), data


def test_a_prediction_carries_that_its_labels_are_independent():
    surface, w, data = multilabel(integers=False)
    pred = ll.predict(surface, w, [data[0][0]])  # rows without labels
    assert pred.form == "multilabel"
    same = ll.temper(pred, 1.0, task=surface.task)
    torch.testing.assert_close(same.probs, pred.probs, rtol=1e-5, atol=1e-6)
    certain = torch.maximum(pred.probs, 1 - pred.probs)
    result = ll.uncertainties(pred, task=surface.task)["max probability"]
    torch.testing.assert_close(result, 1 - certain.double().mean(1))
    surface, w, _ = multilabel(integers=True)
    pred = ll.predict(surface, w[:1])
    assert ll.fit_temperature(pred) > 0
    assert ll.temper(pred, 1.0).metrics()["nll"] == pytest.approx(pred.metrics()["nll"], rel=1e-4)
    ll.selective(pred)
    assert ll.pool([pred, pred]).form == "multilabel"
