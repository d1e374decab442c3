"""Models of Hugging Face at their tasks: against the loss that they compute themselves."""

import warnings

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    T5Config,
    T5ForConditionalGeneration,
)

import lowland as ll

pytestmark = pytest.mark.integrations
T = 6
SMALL = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 16,
    "attn_implementation": "eager",  # which vmap maps over
}


def made(kind, **options):
    torch.manual_seed(0)
    return kind(BertConfig(**SMALL, **options)).eval()


def batch(labels, rows=5):
    g = torch.Generator().manual_seed(0)
    mask = (torch.arange(T) < torch.tensor([6, 4, 5, 6, 3])[:rows, None]).long()
    ids = torch.randint(1, 30, (rows, T), generator=g)
    y = torch.randint(labels, (rows, T), generator=g).masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": y}


def points(surface, model):
    w = surface.layout.flatten(model)
    g = torch.Generator().manual_seed(1)
    return w, torch.stack([w, w + 0.1 * torch.randn(len(w), generator=g)])


def uses(surface, weights, strategy):
    """What is made of a prediction counts the same items."""
    pred = ll.predict(surface, weights, strategy=strategy)
    items = len(pred.target_log_prob)
    assert len(ll.selective(pred).risk) == items == surface.data.items
    assert float(ll.reliability(pred).count.sum()) == items
    assert ll.temper(pred, 1.0).metrics()["nll"] == pytest.approx(pred.metrics()["nll"], rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of labels at random, which no temperature fits best
        assert ll.fit_temperature(pred) > 0
    return pred


@pytest.mark.parametrize("strategy", ["points", "vmap"])
@pytest.mark.parametrize("labels", [3, T])  # as many as tokens: both readings fit
def test_token_classification(labels, strategy):
    model, rows = made(BertForTokenClassification, num_labels=labels), batch(labels)
    surface = ll.LossSurface(model, ll.Classification(), [rows])
    w, weights = points(surface, model)
    with torch.no_grad():
        theirs = model(**rows)
    assert float(surface(w)) == pytest.approx(float(theirs.loss), rel=1e-5)
    pred = uses(surface, weights, strategy)
    assert pred.probs.shape == (5, labels, T)
    one = ll.predict(surface, w)
    torch.testing.assert_close(one.probs, theirs.logits.softmax(-1).movedim(-1, 1))
    there = rows["labels"] != -100
    right = (theirs.logits.argmax(-1) == rows["labels"])[there].double().mean()
    assert one.metrics()["accuracy"] == pytest.approx(float(right))


def test_token_classification_is_trained_and_averaged():
    model, rows = made(BertForTokenClassification, num_labels=T), batch(T)
    surface = ll.LossSurface(model, ll.Classification(), [rows])
    swag = ll.SWAG(surface.layout, rank=2)
    losses = []
    for _ in range(3):
        losses += ll.sgd(model, ll.Classification(), [rows], epochs=2).columns["loss"].tolist()
        swag.update(model)
    assert losses[-1] < losses[0]
    assert ll.predict(surface, swag, samples=3).metrics()["accuracy"] > 0


def test_masked_words():
    model, rows = made(BertForMaskedLM), batch(30)
    surface = ll.LossSurface(model, ll.Classification(), [rows])
    w = surface.layout.flatten(model)
    with torch.no_grad():
        assert float(surface(w)) == pytest.approx(float(model(**rows).loss), rel=1e-5)
    with pytest.raises(ll.ConfigError, match="LanguageModeling shifts labels"):
        ll.LossSurface(model, ll.LanguageModeling(), [rows])


class Spans(ll.Classification):
    def output(self, raw):
        return torch.stack([raw["start_logits"], raw["end_logits"]], 1)


def unpack(rows):
    inputs = dict(rows)
    span = inputs.pop("start_positions"), inputs.pop("end_positions")
    return (), inputs, torch.stack(span, 1)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_question_answering(strategy):
    model, rows = made(BertForQuestionAnswering), batch(1)
    del rows["labels"]
    rows |= {"start_positions": torch.tensor([0, 1, 2, 0, 1])}
    rows |= {"end_positions": torch.tensor([3, 2, 4, 5, 2])}
    surface = ll.LossSurface(model, Spans(class_dim=-1, unpack=unpack), [rows])
    w, weights = points(surface, model)
    with torch.no_grad():
        theirs = model(**rows)
    assert float(surface(w)) == pytest.approx(float(theirs.loss), rel=1e-5)  # start and end halved
    pred = uses(surface, weights, strategy)
    start, end = ll.predict(surface, w).probs.unbind(2)
    torch.testing.assert_close(start, theirs.start_logits.softmax(1))
    torch.testing.assert_close(end, theirs.end_logits.softmax(1))
    assert pred.probs.shape == (5, T, 2)


@pytest.mark.parametrize("strategy", ["points", "vmap"])
def test_sequence_to_sequence(strategy):
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    config = T5Config(vocab_size=30, decoder_start_token_id=0, attn_implementation="eager", **sizes)
    model, rows = T5ForConditionalGeneration(config).eval(), batch(30)
    task = ll.Classification(unpack=lambda rows: ((), dict(rows), rows["labels"]))
    surface = ll.LossSurface(model, task, [rows])
    w, weights = points(surface, model)
    with torch.no_grad():
        assert float(surface(w)) == pytest.approx(float(model(**rows).loss), rel=1e-5)
    pred = uses(surface, weights, strategy)
    assert pred.probs.shape == (5, 30, T)
    assert ll.predict(surface, weights, keep="nll").metrics()["nll"] == pytest.approx(
        pred.metrics()["nll"], rel=1e-5
    )
    with pytest.raises(ll.ConfigError, match="LanguageModeling shifts labels"):
        ll.LossSurface(model, ll.LanguageModeling(), [rows])


def test_a_model_that_is_wrapped_is_refused_rather_than_guessed():
    class Wrapped(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, **inputs):
            return self.model(**inputs)

    for labels, says in ((T, "class_dim=1"), (3, "class_dim=-1")):
        rows = batch(labels)
        model = Wrapped(made(BertForTokenClassification, num_labels=labels))
        surface = ll.LossSurface(model, ll.Classification(), [rows])
        w = surface.layout.flatten(model)
        with pytest.raises(ll.DataError, match=says):
            surface(w)
        last = ll.LossSurface(model, ll.Classification(class_dim=-1), [rows])
        with torch.no_grad():
            assert float(last(w)) == pytest.approx(float(model(**rows).loss), rel=1e-5)
