"""The likelihood of the next token, one token at a time."""

import pytest
import torch
import torch.nn.functional as F

import lowland as ll
from tests.core.random_data import labels, randn


def oracle(logits, ids, counts) -> tuple[float, int]:
    """-log p of token t+1 at position t, one by one."""
    total, n = 0.0, 0
    for b in range(ids.shape[0]):
        for t in range(ids.shape[1] - 1):
            if counts[b, t + 1]:
                total -= float(logits[b, t].double().log_softmax(0)[ids[b, t + 1]])
                n += 1
    return total, n


@pytest.mark.parametrize("kind", ["labels", "mask", "bare", "tensor", "bytes"])
def test_language_modelling_shifts_once(kind) -> None:
    ids = labels(200, 3, 6)
    logits = randn(3, 6, 200)
    counts = torch.ones_like(ids, dtype=torch.bool)
    counts[1, 3:] = False
    task = ll.LanguageModeling()
    if kind == "labels":
        batch = {"input_ids": ids, "labels": ids.masked_fill(~counts, -100)}
    elif kind == "mask":
        batch = {"input_ids": ids, "attention_mask": counts.long()}
    elif kind == "bytes":  # small integers, in which -100 is a token
        ids[0, 1] = 156
        batch = {"input_ids": ids.to(torch.uint8), "attention_mask": counts.long()}
    else:
        counts[:] = True
        batch = {"input_ids": ids} if kind == "bare" else ids
    _, kwargs, target = task.unpack(batch)
    assert "labels" not in kwargs  # the model would compute a loss of its own
    total, n = oracle(logits, ids, counts)
    task.check(logits, target)
    assert task.count(batch) == n
    assert float(task.nll(logits, target).sum()) == pytest.approx(total, rel=1e-5)
    # broken twins: not shifted, shifted twice
    flat = F.cross_entropy(logits.reshape(-1, 200), target.reshape(-1).long(), reduction="sum")
    assert float(flat) != pytest.approx(total, rel=1e-3)


def test_language_modelling_refuses_what_does_not_fit() -> None:
    task = ll.LanguageModeling()
    with pytest.raises(ll.DataError, match=r"expected logits \(B, T, V\)"):
        task.nll(torch.zeros(2, 3, 5), torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ll.DataError, match="tokenizer"):
        task.check(torch.zeros(1, 2, 5), torch.tensor([[1, 5]]))
    with pytest.raises(ll.DataError, match="labels or input_ids"):
        task.unpack({"inputs_embeds": torch.zeros(1, 2, 3)})
