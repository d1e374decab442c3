"""Categorical and Bernoulli likelihoods."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowland import checks
from lowland.core.axes import axis_of, require_axis
from lowland.core.model_copy import unwrap
from lowland.core.task import Task, Unpack, at_least_float32, require_labels
from lowland.errors import DataError

#: how models of Hugging Face, and of peft, are called that give logits (N, T, C)
_CLASSES_LAST = ("ForTokenClassification", "ForMaskedLM", "ForConditionalGeneration")


class Classification(Task):
    """Categorical or Bernoulli likelihood on logits.

    Shapes determine the form; `form` sets it where there is no target, or to be strict:

    - multiclass: output (N, C), target (N,) integers in [0, C);
    - dense multiclass: output (N, C, ...), target (N, ...), items are positions; with
      `class_dim=-1` output (N, ..., C), as sequence models give it;
    - binary: output (N,) or (N, 1), target of N zeros and ones;
    - multilabel: output (N, C), target (N, C) floating-point zeros and ones (integers where
      `form` says so); an item is an example, and its likelihood the product over labels.

    Probabilities are (N, C, ...); binary ones (N, 2).

    Args:
        form: "multiclass", "binary", "multilabel"; None: determined by the shapes.
        ignore_index: the label of multiclass items that do not count.
        class_dim: the axis of a multiclass output that the classes lie on, such as 1 or -1. None:
            axis 1, and of sequences whose last axis fits the targets as well, (N, C, C), an error;
            of Hugging Face models for token classification, masked words and sequence to sequence
            the last.
        unpack: see `Task`.

    Raises:
        DataError: shapes that fit no form, or more than one reading; labels out of range.

    >>> Classification().nll(torch.zeros(2, 4), torch.tensor([0, 3]))  # log 4
    tensor([1.3863, 1.3863])
    """

    kind = "classification"
    tensor_targets = True

    def __init__(
        self,
        form: str | None = None,
        *,
        ignore_index: int = -100,
        class_dim: int | None = None,
        unpack: Unpack | None = None,
    ) -> None:
        super().__init__(unpack=unpack)
        checks.choice("form", form, (None, "multiclass", "binary", "multilabel"))
        self.form = form
        self.ignore_index = checks.whole("ignore_index", ignore_index)
        self.class_dim = require_axis("class_dim", class_dim)

    def for_model(self, model: nn.Module) -> Classification:
        """With `class_dim=-1` for Hugging Face models that give a class, or a word, a token."""
        names = (cls.__name__ for cls in type(unwrap(model)).__mro__)
        if self.class_dim is not None or not any(name.endswith(_CLASSES_LAST) for name in names):
            return self
        return self.replace(class_dim=-1)

    def logits(self, output: Tensor) -> Tensor:
        """A multiclass output with the classes on axis 1: (N, C, ...).

        >>> Classification(class_dim=-1).logits(torch.zeros(2, 7, 3)).shape
        torch.Size([2, 3, 7])
        """
        if output.ndim < 2:
            return output
        return output.movedim(self._axis(output.shape), 1)

    def _axis(self, shape: Sequence[int]) -> int:
        """The axis of the classes, counted from the first."""
        return axis_of("class_dim", 1 if self.class_dim is None else self.class_dim, shape)

    def form_of(self, output: Tensor, target: Tensor | None) -> str:
        """The form that these shapes have."""
        shape = tuple(output.shape)
        if self.form is not None:
            form = self.form
        elif output.ndim == 1 or (output.ndim == 2 and shape[1] == 1):
            form = "binary"
        elif target is not None and tuple(target.shape) == shape and target.is_floating_point():
            form = "multilabel"
        else:
            form = "multiclass"
        if form == "multiclass" and self.class_dim is None and _two_readings(shape, target):
            raise DataError(
                f"multiclass classification: outputs {shape} can be read with the classes on axis "
                "1 or on the last one; say which: Classification(class_dim=1) or class_dim=-1."
            )
        if target is None:
            return form
        if form == "binary" and self.form is None and 0 <= self.ignore_index <= 1:
            raise DataError(
                f"binary classification: ignore_index={self.ignore_index} is one of the labels; "
                "say form='binary', which ignores none."
            )
        if form == "multiclass":
            expected = _without(shape, self._axis(shape)) if output.ndim >= 2 else ()
            fits = tuple(target.shape) == expected
        elif form == "binary":
            expected = shape
            fits = (
                tuple(target.shape) in ((shape[0],), (shape[0], 1)) and output.numel() == shape[0]
            )
        else:
            expected = shape
            fits = tuple(target.shape) == shape
        if form == "multiclass":
            self._require_labels(target, expected)
        if not fits:
            raise DataError(
                f"{form} classification: for outputs {shape} expected targets {expected}, got "
                f"{tuple(target.shape)}; {_advice(form, shape, tuple(target.shape))}."
            )
        return form

    @staticmethod
    def _require_labels(target: Tensor, expected: tuple[int, ...]) -> None:
        """Raises `DataError` where only dtype or a last dimension of one is in the way: floats in a
        file are read as a regression's targets, (N, 1)."""
        column = tuple(target.shape) == (*expected, 1)
        wrong = [".squeeze(-1)"] * column + [".long()"] * target.dtype.is_floating_point
        if wrong and (column or tuple(target.shape) == expected):
            dtype = str(target.dtype).removeprefix("torch.")
            raise DataError(
                f"multiclass classification: expected integer labels {expected}, got {dtype} "
                f"{tuple(target.shape)}; use target{''.join(wrong)}, and store labels in a file as "
                "whole numbers (N,): y.astype('int64')."
            )

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        form = self.form_of(output, target)
        output = at_least_float32(output)
        if form == "multiclass":
            # long() because labels are often stored in fewer bytes
            items = F.cross_entropy(
                self.logits(output),
                target.long(),
                ignore_index=self.ignore_index,
                reduction="none",
            )
            return items.reshape(-1)
        loss: Tensor = F.binary_cross_entropy_with_logits(
            output, target.reshape(output.shape).to(output.dtype), reduction="none"
        )
        return loss.reshape(-1) if form == "binary" else loss.flatten(1).sum(1)

    def valid(self, target: Tensor) -> Tensor | None:
        # zeros and ones of binary and multilabel targets never equal a negative index
        if target.dtype.is_floating_point or self.form in ("binary", "multilabel"):
            return None
        # long(): in fewer bits -100 is a label, 156
        return target.reshape(-1).long() != self.ignore_index

    def check(self, output: Tensor, target: Tensor) -> None:
        form = self.form_of(output, target)
        if form == "multilabel" and self.form is None and bool((target.sum(1) == 1).all()):
            raise DataError(
                "every row of the floating-point targets sums to 1: for one-hot labels give "
                "integers, target.argmax(1); for independent labels say form='multilabel'."
            )
        if form != "multiclass":
            bad = target[(target != 0) & (target != 1)]
            if bad.numel():
                raise DataError(
                    f"{form} classification: expected labels 0 or 1, got {bad[0].item():g}; "
                    "for soft labels write a Task of your own."
                )
            return
        require_labels(
            target.long(),
            output.shape[self._axis(output.shape)],
            ignore_index=self.ignore_index,
            advice="give the model as many outputs as there are classes, or mark examples to skip "
            f"with {self.ignore_index}",
        )

    def probs(self, output: Tensor) -> Tensor:
        """Probabilities, (N, C, ...)."""
        form = self.form_of(output, None)
        output = at_least_float32(output)
        if form == "multiclass":
            return self.logits(output).softmax(1)
        if form == "multilabel":
            return output.sigmoid()
        # both by sigmoid: 1 - p would lose the small one
        column = output.reshape(-1, 1)
        return torch.cat([(-column).sigmoid(), column.sigmoid()], 1)

    def log_probs(self, output: Tensor) -> Tensor:
        """Their logarithms, which do not underflow, (N, C, ...); of independent labels those of no
        and yes, (N, 2, C)."""
        form = self.form_of(output, None)
        output = at_least_float32(output)
        if form == "multiclass":
            return self.logits(output).log_softmax(1)
        logits = output if form == "multilabel" else output.reshape(-1)
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], 1)

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        probs = self.probs(output)
        return {"probs": probs, "expected_entropy": self.entropy(probs)}

    def entropy(self, probs: Tensor) -> Tensor:  # probs: (N, C, ...) -> (N, ...)
        """Entropy in nats; of independent labels, the sum of theirs."""
        entropy = super().entropy(probs)
        if self.form == "multilabel":
            entropy = entropy - torch.special.xlogy(1 - probs, 1 - probs).sum(1)
        return entropy


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return shape[:axis] + shape[axis + 1 :]


def _two_readings(shape: tuple[int, ...], target: Tensor | None) -> bool:
    """Whether targets that fit classes on axis 1 fit classes on the last axis, too."""
    both = len(shape) > 2 and _without(shape, 1) == shape[:-1]
    return both and (target is None or tuple(target.shape) == shape[:-1])


def _advice(form: str, shape: tuple[int, ...], target: tuple[int, ...]) -> str:
    """What to do about targets that do not fit the outputs."""
    if form == "multiclass" and len(shape) > 2:
        if target == shape[:-1]:
            return (
                "the classes seem to lie on the last axis: say Classification(class_dim=-1), or "
                "let the model give output.movedim(-1, 1)"
            )
        if target == _without(shape, 1):
            return "the classes seem to lie on axis 1: say class_dim=1"
    return "reshape the one that is wrong, or name another form="
