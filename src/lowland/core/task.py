"""Likelihoods: what the model's output says about the target, and how a batch is taken apart.

To bring your own, subclass `Task` and write `nll`; override `unpack` for batches of another form,
`statistics` for what a model average keeps beside the likelihood, `metrics` for figures of your
own. A batch format alone needs no subclass: every task takes `unpack=`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lowland.errors import ConfigError, DataError

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
VARIANCE_FLOOR = 1e-6


class Batch(NamedTuple):
    """A batch taken apart: the model is called as `model(*args, **kwargs)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any  # None: rows without labels


Unpack = Callable[[Any], tuple[tuple[Any, ...], dict[str, Any], Any]]


def unpack(batch: Any) -> Batch:
    """The usual batch formats.

    A tuple or list: the last is the target, those before it are the model's inputs (one alone is
    an input without target); a dict: `labels`, `label`, `targets`, `target` or `y` is the target,
    all else goes to the model by name; a tensor: an input without target.

    >>> unpack((torch.zeros(2, 3), torch.zeros(2))).target.shape
    torch.Size([2])
    """
    if isinstance(batch, Mapping):
        inputs = dict(batch)
        key = next((key for key in TARGET_KEYS if key in inputs), None)
        target = inputs.pop(key) if key is not None else None
        return Batch((), inputs, target)
    if isinstance(batch, tuple | list):
        if not batch:
            raise DataError("the batch is an empty tuple; give (inputs, target).")
        if len(batch) == 1:
            return unpack(batch[0])._replace(target=None)
        inner = unpack(batch[0]) if isinstance(batch[0], Mapping) else Batch((batch[0],), {}, None)
        return Batch(inner.args + tuple(batch[1:-1]), inner.kwargs, batch[-1])
    return Batch((batch,), {}, None)


class Task(ABC):
    """A likelihood p(target | output), as its negative logarithm an item.

    Items are what the loss averages over: rows for most tasks, pixels for dense labels, unmasked
    tokens for language models. `nll` gives one value an item, constants included, natural
    logarithm, and 0 for items that `valid` leaves out; it must be made of torch operations alone,
    so that it can be differentiated and vmapped.

    Args:
        unpack: turns a batch of your loader into (args, kwargs, target); see
            `lowland.core.task.unpack` for the formats that need none.

    >>> class Poisson(Task):
    ...     def nll(self, output, target):
    ...         log_rate = output.squeeze(-1)
    ...         return log_rate.exp() - target * log_rate + torch.lgamma(target + 1)
    >>> Poisson().nll(torch.zeros(2, 1), torch.tensor([0.0, 1.0]))
    tensor([1., 1.])
    """

    kind: ClassVar[str] = "custom"

    def __init__(self, *, unpack: Unpack | None = None) -> None:
        self._unpack = unpack

    def unpack(self, batch: Any) -> Batch:
        """Takes a batch of the loader apart."""
        return unpack(batch) if self._unpack is None else Batch(*self._unpack(batch))

    def parts(self, batch: Any) -> Batch:
        """The batch taken apart, if it is not yet: what library code calls."""
        return batch if isinstance(batch, Batch) else self.unpack(batch)

    def output(self, raw: Any) -> Tensor:
        """The tensor that matters in what the model returned: `.logits`, or a tuple's first."""
        if isinstance(raw, Tensor):
            return raw
        logits = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
        if logits is None and isinstance(raw, tuple | list) and raw:
            logits = raw[0]
        if not isinstance(logits, Tensor):
            raise DataError(
                f"the model returned {type(raw).__name__}: expected a tensor, something with "
                ".logits, or a tuple that starts with a tensor; override Task.output."
            )
        return logits

    @abstractmethod
    def nll(self, output: Tensor, target: Any) -> Tensor:
        """Negative log-likelihood of each item, (items,)."""

    def valid(self, target: Any) -> Tensor | None:
        """Which items count, (items,) bool; None: all of them."""
        return None

    def count(self, batch: Any) -> int:
        """How many items the loss of this batch is a sum over."""
        args, kwargs, target = self.parts(batch)
        if target is None:
            return rows((args, kwargs))
        mask = self.valid(target)
        return rows(target) if mask is None else int(mask.sum())

    def check(self, output: Tensor, target: Any) -> None:  # noqa: B027 - nothing to check is fine
        """Raises `DataError` for values of the target that cannot be meant, as labels out of range.

        Called on data once, outside of vmap; shapes are checked by `nll` itself.
        """

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        """What a model average keeps the mean of, over samples; first dimension: rows."""
        return {}

    def metrics(self, averages: dict[str, Tensor], target: Tensor | None) -> dict[str, float]:
        """Figures of your own from the averaged `statistics`, beside the usual ones."""
        return {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Classification(Task):
    """Categorical or Bernoulli likelihood on logits.

    What is meant shows in the shapes; `form` says it where the target is not there to tell, or to
    be strict:

    - multiclass: output (N, C), target (N,) integers in [0, C);
    - dense multiclass: output (N, C, ...), target (N, ...), items are positions;
    - binary: output (N,) or (N, 1), target of N zeros and ones;
    - multilabel: output (N, C), target (N, C) floating-point zeros and ones (integers where
      `form` says so); an item is a row, and its likelihood the product over labels.

    Probabilities are (N, C, ...); binary ones (N, 2).

    Args:
        form: "multiclass", "binary", "multilabel" or None, to go by shapes.
        ignore_index: integer labels that do not count.
        unpack: see `Task`.

    Raises:
        DataError: shapes that fit no form, labels out of range.

    >>> Classification().nll(torch.zeros(2, 4), torch.tensor([0, 3]))  # log 4
    tensor([1.3863, 1.3863])
    """

    kind = "classification"

    def __init__(
        self, form: str | None = None, *, ignore_index: int = -100, unpack: Unpack | None = None
    ) -> None:
        super().__init__(unpack=unpack)
        if form not in (None, "multiclass", "binary", "multilabel"):
            raise ConfigError(
                f"form: expected 'multiclass', 'binary', 'multilabel' or None, got {form!r}."
            )
        self.form = form
        self.ignore_index = ignore_index

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
        if target is None:
            return form
        if form == "multiclass":
            expected: tuple[int, ...] = shape[:1] + shape[2:]
            fits = tuple(target.shape) == expected and output.ndim >= 2
        elif form == "binary":
            expected = shape
            fits = (
                tuple(target.shape) in ((shape[0],), (shape[0], 1)) and output.numel() == shape[0]
            )
        else:
            expected = shape
            fits = tuple(target.shape) == shape
        if not fits:
            raise DataError(
                f"{form} classification: for outputs {shape} expected targets {expected}, got "
                f"{tuple(target.shape)}; reshape the one that is wrong, or name another form=."
            )
        if form == "multiclass" and target.dtype.is_floating_point:
            raise DataError(
                f"multiclass classification: expected integer labels, got {target.dtype}; "
                "convert them with .long()."
            )
        return form

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        form = self.form_of(output, target)
        output = _wide(output)
        if form == "multiclass":
            # long() because labels are often stored in fewer bytes
            items = F.cross_entropy(
                output, target.long(), ignore_index=self.ignore_index, reduction="none"
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
        if form != "multiclass":
            bad = target[(target != 0) & (target != 1)]
            if bad.numel():
                raise DataError(
                    f"{form} classification: expected labels 0 or 1, got {bad[0].item():g}; "
                    "for soft labels write a Task of your own."
                )
            return
        classes = output.shape[1]
        target = target.long()
        bad = target[((target < 0) | (target >= classes)) & (target != self.ignore_index)]
        if bad.numel():
            raise DataError(
                f"labels out of range: expected 0 to {classes - 1}, got {int(bad[0])}; give the "
                f"model as many outputs as there are classes, or mark rows to skip with "
                f"{self.ignore_index}."
            )

    def probs(self, output: Tensor) -> Tensor:
        """Probabilities, (N, C, ...)."""
        form = self.form_of(output, None)
        output = _wide(output)
        if form == "multiclass":
            return output.softmax(1)
        if form == "multilabel":
            return output.sigmoid()
        # both by sigmoid: 1 - p would lose the small one
        column = output.reshape(-1, 1)
        return torch.cat([(-column).sigmoid(), column.sigmoid()], 1)

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        probs = self.probs(output)
        return {"probs": probs, "expected_entropy": self.entropy(probs)}

    def entropy(self, probs: Tensor) -> Tensor:  # probs: (N, C, ...) -> (N, ...)
        """Entropy in nats; of independent labels, the sum of theirs."""
        entropy: Tensor = -torch.special.xlogy(probs, probs).sum(1)
        if self.form == "multilabel":
            entropy = entropy - torch.special.xlogy(1 - probs, 1 - probs).sum(1)
        return entropy


class Regression(Task):
    r"""Gaussian likelihood: targets (N, D), an item is a row.

    \(-\log N(y; m, v) = \tfrac12 \sum_d [\log 2\pi v_d + (y_d - m_d)^2 / v_d]\)

    Args:
        noise_variance: None: the model has 2 D outputs (means, then raw variances) and
            v = softplus(raw) + 1e-6; a number: v is that, and the model has D outputs; "learned":
            the model is a `GaussianHead`, whose 2 D outputs are means and variances.
        target_mean, target_std: what targets were standardised with: predictions and metrics are
            given in the target's own units; L(w) is that of the standardised targets.
        unpack: see `Task`.

    Raises:
        DataError: shapes of output and target that do not match; they are never broadcast.

    >>> Regression(noise_variance=1.0).nll(torch.zeros(1, 1), torch.zeros(1, 1))  # log(2 pi) / 2
    tensor([0.9189])
    """

    kind = "regression"

    def __init__(
        self,
        noise_variance: float | str | None = None,
        *,
        target_mean: float | Tensor = 0.0,
        target_std: float | Tensor = 1.0,
        unpack: Unpack | None = None,
    ) -> None:
        super().__init__(unpack=unpack)
        named = isinstance(noise_variance, str) and noise_variance == "learned"
        number = isinstance(noise_variance, int | float) and 0 < noise_variance < math.inf
        if not (noise_variance is None or named or number):
            raise ConfigError(
                "noise_variance: expected None, a positive number or 'learned', "
                f"got {noise_variance!r}."
            )
        self.noise_variance = noise_variance
        self.target_mean = torch.as_tensor(target_mean, dtype=torch.float64).reshape(-1)
        self.target_std = torch.as_tensor(target_std, dtype=torch.float64).reshape(-1)
        if not bool((self.target_std > 0).all()):
            raise ConfigError(
                "target_std: expected positive numbers; a constant target has nothing to predict."
            )

    def moments(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, (N, D) each, of the standardised target."""
        output = _wide(output)
        if output.ndim != 2:
            raise DataError(
                f"regression: expected outputs (N, D), got {tuple(output.shape)}; D = 1 keeps its "
                "dimension."
            )
        if isinstance(self.noise_variance, int | float):
            return output, torch.full_like(output, self.noise_variance)
        if output.shape[1] % 2:
            raise DataError(
                f"regression: expected 2 outputs a target (mean and variance), got "
                f"{tuple(output.shape)}; give the model twice as many outputs, or fix "
                "noise_variance=, or wrap the model in GaussianHead with noise_variance='learned'."
            )
        mean, variance = output.chunk(2, 1)
        if self.noise_variance is None:
            variance = F.softplus(variance) + VARIANCE_FLOOR
        return mean, variance

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        mean, variance = self.moments(output)
        if mean.shape != target.shape:
            raise DataError(
                f"regression: expected targets {tuple(mean.shape)} for outputs "
                f"{tuple(output.shape)}, got {tuple(target.shape)}; targets are (N, D), D = 1 "
                "included: use y[:, None]."
            )
        error = target.to(mean.dtype) - mean
        return 0.5 * (math.log(2 * math.pi) + variance.log() + error**2 / variance).sum(1)

    def check(self, output: Tensor, target: Tensor) -> None:
        if not bool(torch.isfinite(target).all()):
            raise DataError("regression: the targets hold NaN or infinity; drop those rows.")
        if self.noise_variance == "learned" and not bool((self.moments(output)[1] > 0).all()):
            raise DataError(
                "regression: noise_variance='learned' takes the second half of the outputs for "
                "variances, and some are not positive; wrap the model in GaussianHead."
            )

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        mean, variance = (part.double() for part in self.moments(output))
        # float64 so that second - mean^2 does not cancel
        return {"mean": mean, "second": variance + mean**2}


class GaussianHead(nn.Module):
    r"""Adds one learned noise variance, softplus(rho), to the variance that a network predicts.

    The forward pass gives (N, 2 D): means, then variances, for `Regression("learned")`. A network
    with 2 D outputs predicts mean and raw variance: v = softplus(raw) + 1e-6 + softplus(rho), as
    Izmailov et al. 2019 do; one with D outputs the mean alone: v = softplus(rho) + 1e-6. An odd
    number of outputs can only be the second; `homoscedastic` says so where it is even.

    `rho` is an ordinary parameter, so it is part of w.

    >>> head = GaussianHead(nn.Linear(3, 2))
    >>> mean, variance = head(torch.zeros(5, 3)).chunk(2, 1)
    >>> mean.shape, bool((variance > 0).all())
    (torch.Size([5, 1]), True)
    """

    def __init__(
        self, net: nn.Module, *, homoscedastic: bool = False, noise_variance: float = 0.1
    ) -> None:
        super().__init__()
        self.net = net
        self.homoscedastic = homoscedastic
        self.rho = nn.Parameter(torch.tensor(math.log(math.expm1(noise_variance))))

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        output: Tensor = self.net(*args, **kwargs)
        shared = F.softplus(self.rho) + VARIANCE_FLOOR
        if self.homoscedastic or output.shape[-1] % 2:
            return torch.cat([output, shared.to(output.dtype).expand_as(output)], -1)
        mean, raw = output.chunk(2, -1)
        return torch.cat([mean, F.softplus(raw) + shared.to(raw.dtype)], -1)


class LanguageModeling(Task):
    """Next-token likelihood: logits (B, T, V) against labels (B, T), shifted once, here.

    Items are the tokens whose label is not -100, the first of each row excepted. A batch without
    labels is its own target: `input_ids`, where `attention_mask` (if there is one) is not 0.

    >>> ids = torch.tensor([[1, 2, 3]])
    >>> LanguageModeling().nll(torch.zeros(1, 3, 8), ids)  # two tokens to predict, log 8
    tensor([2.0794, 2.0794])
    """

    kind = "language"

    def __init__(self, *, ignore_index: int = -100, unpack: Unpack | None = None) -> None:
        super().__init__(unpack=unpack)
        self.ignore_index = ignore_index

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

    def nll(self, output: Tensor, target: Tensor) -> Tensor:
        if output.ndim != 3 or output.shape[:2] != target.shape:
            raise DataError(
                f"language modelling: expected logits (B, T, V) and labels (B, T), got "
                f"{tuple(output.shape)} and {tuple(target.shape)}."
            )
        logits = _wide(output[:, :-1])
        return F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            target[:, 1:].reshape(-1).long(),
            ignore_index=self.ignore_index,
            reduction="none",
        )

    def valid(self, target: Tensor) -> Tensor:
        return target[:, 1:].reshape(-1).long() != self.ignore_index

    def check(self, output: Tensor, target: Tensor) -> None:
        words = output.shape[-1]
        target = target.long()
        bad = target[((target < 0) | (target >= words)) & (target != self.ignore_index)]
        if bad.numel():
            raise DataError(
                f"labels out of range: expected 0 to {words - 1}, got {int(bad[0])}; is the "
                "tokenizer the model's?"
            )

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        logits = _wide(output[:, :-1])
        probs = logits.reshape(-1, logits.shape[-1]).softmax(1)
        return {"probs": probs, "expected_entropy": -torch.special.xlogy(probs, probs).sum(1)}


def rows(data: Any) -> int:
    """The first dimension of the first tensor in a nesting."""
    size = _rows(data)
    if size is None:
        raise DataError(
            "the batch holds no tensor with rows; give tensors, or write unpack= for the task."
        )
    return size


def _rows(data: Any) -> int | None:
    if isinstance(data, Tensor):
        return data.shape[0] if data.ndim else None
    if not isinstance(data, Mapping | tuple | list):
        return None
    parts = data.values() if isinstance(data, Mapping) else data
    return next((size for size in map(_rows, parts) if size is not None), None)


def _wide(output: Tensor) -> Tensor:
    """Half precision made float32: losses are never computed in fewer bits."""
    return output if output.dtype in (torch.float32, torch.float64) else output.float()
