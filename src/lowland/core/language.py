"""The likelihood of the next token."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lowland import checks
from lowland.core.model_copy import unwrap
from lowland.core.task import Batch, Task, Unpack, at_least_float32, require_labels
from lowland.errors import ConfigError, DataError


class LanguageModeling(Task):
    """Next-token likelihood: logits (B, T, V) against labels (B, T), shifted once, here.

    Items are the tokens whose label is not -100, the first of each row excepted. A batch without
    labels is its own target: `input_ids`, where `attention_mask` (if there is one) is not 0.

    >>> import torch
    >>> ids = torch.tensor([[1, 2, 3]])
    >>> LanguageModeling().nll(torch.zeros(1, 3, 8), ids)  # two tokens to predict, log 8
    tensor([2.0794, 2.0794])
    """

    kind = "language"
    tensor_targets = True

    def __init__(self, *, ignore_index: int = -100, unpack: Unpack | None = None) -> None:
        super().__init__(unpack=unpack)
        self.ignore_index = checks.whole("ignore_index", ignore_index)

    def unpack(self, batch: Any) -> Batch:
        parts = super().unpack(batch)
        if parts.target is not None or self._unpack is not None:
            return parts
        ids = parts.kwargs.get("input_ids") if parts.kwargs else parts.args[0]
        if not isinstance(ids, Tensor):
            raise DataError("language modelling: expected labels or input_ids in the batch.")
        mask = parts.kwargs.get("attention_mask")
        labels = ids if mask is None else ids.long().masked_fill(mask == 0, self.ignore_index)
        return parts._replace(target=labels)

    def for_model(self, model: nn.Module) -> LanguageModeling:
        """Itself; raises `ConfigError` for Hugging Face models that predict no next token."""
        model = unwrap(model)
        both = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        if both or type(model).__name__.endswith("ForMaskedLM"):
            raise ConfigError(
                f"LanguageModeling shifts labels, and those of {type(model).__name__} are words at "
                "their own places: take Classification(), and unpack= for sequence to sequence."
            )
        return self

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        if output.ndim != 3 or output.shape[:2] != target.shape:
            raise DataError(
                f"language modelling: expected logits (B, T, V) and labels (B, T), got "
                f"{tuple(output.shape)} and {tuple(target.shape)}."
            )
        logits = at_least_float32(output[:, :-1])
        return F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            next_tokens(target).long(),
            ignore_index=self.ignore_index,
            reduction="none",
        )

    def valid(self, target: Tensor) -> Tensor:
        """Of labels (B, T), or of what `next_tokens` makes of them: a token that is to predict."""
        tokens = target if target.ndim == 1 else next_tokens(target)
        return tokens.long() != self.ignore_index

    def check(self, output: Tensor, target: Tensor) -> None:
        advice = "take the tokenizer of the model"
        ignore_index = self.ignore_index
        require_labels(target.long(), output.shape[-1], ignore_index=ignore_index, advice=advice)

    def log_probs(self, output: Tensor) -> Tensor:
        """Logarithms of probabilities, which do not underflow, a row a token."""
        logits = at_least_float32(output[:, :-1])
        return logits.reshape(-1, logits.shape[-1]).log_softmax(1)

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        logits = at_least_float32(output[:, :-1])
        probs = logits.reshape(-1, logits.shape[-1]).softmax(1)
        return {"probs": probs, "expected_entropy": self.entropy(probs)}


def next_tokens(labels: Tensor) -> Tensor:  # (B, T) -> (B * (T - 1),)
    """The tokens that a language model predicts, as its probabilities are: a row a token."""
    return labels[:, 1:].reshape(-1)
