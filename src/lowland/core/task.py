"""The contract of likelihoods: what an output says about its target, and how batches come apart.

To bring your own, subclass `Task` and write `nll`; override `unpack` for batches of another form,
`statistics` for what a model average keeps beside the likelihood, `metrics` for metrics of your
own. A batch format alone needs no subclass: every task takes `unpack=`.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from lowland.errors import ConfigError, DataError

TARGET_KEYS = ("labels", "label", "targets", "target", "y")


class Batch(NamedTuple):
    """A batch taken apart: the model is called as `model(*args, **kwargs)`."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any  # None: examples without labels


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
    """A likelihood p(target | output), as its negative logarithm per item.

    The loss is a mean over items: examples for most tasks, pixels for dense labels, unmasked tokens
    for language models. `nll` returns one value per item, with all constants and the natural
    logarithm, and 0 for items that `valid` excludes. It consists of torch operations only, so that
    it can be differentiated and vmapped.

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
    tensor_targets: ClassVar[bool] = False  # whether a target can be nothing else

    def __init__(self, *, unpack: Unpack | None = None) -> None:
        self._unpack = unpack

    def unpack(self, batch: Any) -> Batch:
        """Takes a batch of the loader apart."""
        return unpack(batch) if self._unpack is None else Batch(*self._unpack(batch))

    def parts(self, batch: Any) -> Batch:
        """The batch taken apart, if it is not yet: what library code calls."""
        if isinstance(batch, Batch):
            return batch
        parts = self.unpack(batch)
        if self.tensor_targets:
            _require_tensor(parts.target)
        return parts

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

    def for_model(self, model: nn.Module) -> Task:
        """The task as it is meant for a model's outputs, where the model's class tells."""
        return self

    def replace(self, **attributes: Any) -> Self:
        """A copy with other attributes."""
        task = copy.copy(self)
        vars(task).update(attributes)
        return task

    @abstractmethod
    def nll(self, output: Tensor, target: Any) -> Tensor:
        """Negative log-likelihood of each item, (items,)."""

    def items_nll(self, output: Tensor, target: Any) -> Tensor:
        """`nll`, held to one value an item: what library code calls."""
        loss = self.nll(output, target)
        if loss.ndim != 1:
            raise DataError(
                f"{self!r}.nll: expected one value an item, (items,), got {tuple(loss.shape)}; do "
                "not reduce the loss."
            )
        if type(self).valid is Task.valid and len(loss) != self.items(target):
            raise DataError(
                f"{self!r}.nll: expected {self.items(target)} items, one an example, got "
                f"{len(loss)}; override Task.items, how many the targets "
                "are, or Task.valid, which of them count."
            )
        return loss

    def valid(self, target: Any) -> Tensor | None:
        """Which items count, (items,) bool; None: all of them."""
        return None

    def items(self, target: Any) -> int:
        """How many items these targets are, those that do not count included: one an example."""
        return count_examples(target)

    def count(self, batch: Any) -> int:
        """How many items the loss of this batch is a sum over."""
        args, kwargs, target = self.parts(batch)
        if target is None:
            return count_examples((args, kwargs))
        mask = self.valid(target)
        return self.items(target) if mask is None else int(mask.sum())

    def check(self, output: Tensor, target: Any) -> None:  # noqa: B027 - nothing to check is fine
        """Raises `DataError` for values of the target that cannot be meant, as labels out of range.

        Called on data once, outside of vmap; shapes are checked by `nll` itself.
        """

    def statistics(self, output: Tensor) -> dict[str, Tensor]:
        """What a model average keeps the mean of, over samples; first dimension: examples."""
        return {}

    def entropy(self, probs: Tensor) -> Tensor:  # probs: (N, C, ...) -> (N, ...)
        """Entropy of probabilities, in nats."""
        entropy: Tensor = -torch.special.xlogy(probs, probs).sum(1)
        return entropy

    def metrics(self, averages: dict[str, Tensor], target: Tensor | None) -> dict[str, float]:
        """Metrics of your own from the averaged `statistics`, beside the usual ones."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The keyword arguments that make this task again, `unpack` aside: plain data.

        They are the constructor's, read from the attributes of the same names. Override it where
        an argument is stored under another name, or is no number, string, bool, None, tensor or
        dict of these.
        """
        settings = {}
        for name, parameter in inspect.signature(type(self)).parameters.items():
            if name == "unpack":  # predictions have no batches to take apart
                continue
            if parameter.kind not in _BY_NAME or not hasattr(self, name):
                raise ConfigError(f"its argument {name} is not stored as an attribute")
            settings[name] = getattr(self, name)
        return settings

    def to_dict(self) -> dict[str, Any]:
        """The class's name and the `settings`, which a `Predictive` carries to say what its items
        are. `settings` is None where they cannot be had as plain data.

        >>> from lowland.core import Classification
        >>> Classification(ignore_index=255).to_dict()["settings"]["ignore_index"]
        255
        """
        try:
            settings: dict[str, Any] | None = self.settings()
        except ConfigError:
            settings = None
        return {"name": _name(type(self)), "settings": settings if _plain(settings) else None}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Task:
        """The task that `to_dict` is of.

        A class of your own must have been imported: a name in a file imports nothing.

        Raises:
            ConfigError: a class that is not there, settings that do not make it.
        """
        name, settings = data.get("name"), data.get("settings")
        classes = [cls for cls in _subclasses(Task) if _name(cls) == name]
        if not classes:
            raise ConfigError(
                f"the record's task is {name}, which is not imported here: import it, or pass "
                "task=."
            )
        try:
            if settings is None:
                raise TypeError("its settings are no plain data")
            return classes[-1](**settings)  # in a notebook: of the cell that ran last
        except (TypeError, ConfigError) as error:
            raise ConfigError(
                f"the record's task, {name}, cannot be made again ({error}): override "
                "Task.settings, or pass task=."
            ) from error

    def __repr__(self) -> str:
        own = {name.lstrip("_"): value for name, value in vars(self).items() if value is not None}
        arguments = ", ".join(f"{name}={_repr(value)}" for name, value in own.items())
        return f"{type(self).__name__}({arguments})"


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _name(cls: type[Task]) -> str:
    """Of lowland's own classes the name alone, so that files may move."""
    own = cls.__module__.startswith("lowland.")
    return cls.__qualname__ if own else f"{cls.__module__}:{cls.__qualname__}"


def _subclasses(cls: Any) -> Iterator[type[Task]]:
    for child in cls.__subclasses__():
        yield child
        yield from _subclasses(child)


def _plain(value: Any) -> bool:
    """Whether a record can hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _plain(part) for name, part in value.items())
    return value is None or isinstance(value, Tensor | str | bool | int | float)


def _require_tensor(target: Any) -> None:
    """Raises `DataError` for targets that nothing can be computed with, and says what they are."""
    if target is None or isinstance(target, Tensor):
        return
    if isinstance(target, int | float):
        raise DataError(
            "a list is taken for batches, and these are examples; give tensors or a Dataset."
        )
    flat = target.tolist() if hasattr(target, "tolist") else target
    first = next(iter(flat), None) if isinstance(flat, list | tuple) else flat
    if isinstance(first, str | bytes):
        raise DataError(
            f"the labels are words, such as {first!r}: number the classes from 0 on, and give a "
            "tensor of these numbers."
        )
    raise DataError(
        f"the targets are of type {type(target).__name__}; make them a tensor with torch.as_tensor."
    )


def _repr(value: Any) -> str:
    """The same in every process: no addresses."""
    if isinstance(value, Tensor):
        return str(value.tolist())
    name = getattr(value, "__qualname__", None)
    text = repr(value) if name is None else str(name)
    return type(value).__qualname__ if " at 0x" in text else text


def count_examples(data: Any) -> int:
    """The number of examples of a batch: the first dimension of the first tensor in a nesting."""
    size = _first_dimension(data)
    if size is None:
        raise DataError(
            "the batch has no tensor with a batch dimension; give tensors, or write unpack= for "
            "the task."
        )
    return size


def _first_dimension(data: Any) -> int | None:
    if isinstance(data, Tensor):
        return data.shape[0] if data.ndim else None
    if not isinstance(data, Mapping | tuple | list):
        return None
    parts = data.values() if isinstance(data, Mapping) else data
    return next((size for size in map(_first_dimension, parts) if size is not None), None)


def require_labels(
    labels: Tensor, classes: int, *, advice: str, ignore_index: int | None = None
) -> None:
    """Raises `DataError` for labels that are no class and do not say that they do not count."""
    bad = labels[(labels < 0) | (labels >= classes)]
    bad = bad if ignore_index is None else bad[bad != ignore_index]
    if bad.numel():
        raise DataError(
            f"labels out of range: expected 0 to {classes - 1}, got {int(bad[0])}; {advice}."
        )


def at_least_float32(output: Tensor) -> Tensor:
    """Half precision made float32: losses are never computed in fewer bits."""
    return output if output.dtype in (torch.float32, torch.float64) else output.float()
