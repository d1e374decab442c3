"""The training loss as what it is: a function of one flat weight vector."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lowland.core import batchnorm as bn
from lowland.core.data import Rows, concatenate, free_memory, move, take
from lowland.core.layout import ParamLayout, Where, clean, clean_names
from lowland.core.point import Point
from lowland.core.task import Task, rows
from lowland.errors import ConfigError, DataError, LayoutError

if TYPE_CHECKING:
    from lowland.records import Table

Buffers = dict[str, Tensor]
BN_SHARE = 0.25  # of the free memory: what one resident BatchNorm batch may take


class LossSurface:
    r"""L(w): the mean negative log-likelihood an item, as a function of flat weights.

    \(L(w) = \frac1n \sum_{i=1}^n -\log p(y_i | x_i, w)\) over the n items of `loader`, natural
    logarithm, every constant included, no prior and no weight decay, accumulated in float64.

    The model is a template: a private copy of its structure is called with other weights through
    `torch.func.functional_call`, and the model that was passed in is never changed. Parameters
    that are frozen or left out by `where`, and all buffers, keep the values they have now.

    Args:
        model: any module. task: the likelihood. loader: a replayable iterable of batches.
        where: which parameters are part of w, see `ParamLayout`.
        device: where to compute; None: where the model is.
        autocast: True or a dtype for `torch.autocast`; None: the model's own dtype.
        bn_loader: rows for BatchNorm statistics, without augmentation; None: those of `loader`.
        bn_rows: how many of them; they are read once and held.
        channels_last: memory format for images and convolutions.
        count: rows of `loader` to read, for loaders without an end.

    Raises:
        DataError: an empty loader, rows that change between passes, labels out of range, targets
            that do not fit the outputs.
        LayoutError: weights of another model.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> from lowland.core.task import Regression
    >>> data = [(torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [0.0]]))]
    >>> surface = LossSurface(model, Regression(noise_variance=1.0), data)
    >>> float(surface(torch.zeros(1))), float(surface(torch.ones(1)))  # the second: + (1 + 4) / 4
    (0.918938..., 2.168938...)
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        loader: Iterable[Any],
        *,
        where: Where = None,
        device: torch.device | str | None = None,
        autocast: bool | torch.dtype | None = None,
        bn_loader: Iterable[Any] | None = None,
        bn_rows: int = 4096,
        channels_last: bool = False,
        count: int | None = None,
    ) -> None:
        if not isinstance(task, Task):
            raise ConfigError(
                f"task: expected a Task such as Classification(), got {type(task).__name__}."
            )
        self.layout = ParamLayout(model, where=where)
        self.task = task
        self.autocast = autocast
        self.channels_last = channels_last
        structure = private_copy(unwrap(model))
        self.device = _device_of(structure) if device is None else torch.device(device)
        self._template = structure.to(self.device)
        self._bn_layers = bn.layers_of(structure)
        self._statistics = bn.statistics_of(self._bn_layers)
        self._read_only = frozenset(bn.statistics_of(bn.every_layer(structure)))
        self._always_eval = _eval_modules(structure)
        self._mode = ""
        self._places, self._unfilled = _places(structure)
        self.buffers: Buffers = clean({n: b.detach() for n, b in structure.named_buffers()})
        structure.requires_grad_(False)
        self.data = Rows(loader, task, device=self.device, count=count, channels_last=channels_last)
        self.bn_rows = bn_rows
        self._bn_source = bn_loader
        self._bn_batches: list[Any] | None = None
        self._bn_joined: Any | None = None
        self._bn_planned = False

    # -- the function ----------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        w: Tensor | Point,
        *,
        loader: Iterable[Any] | None = None,
        batchnorm: str = "refresh",
    ) -> Tensor:
        """L(w), a float64 scalar, in evaluation mode; over another loader where one is given.

        `batchnorm`: "refresh" re-estimates the statistics for w, "frozen" takes those of the point
        or, where it has none, of the model.
        """
        point = self.point(w)
        data = self.rows_of(loader)
        buffers = self.buffers_for(point, batchnorm)
        parameters = self.layout.materialise(point.weights)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for batch in data:
            args, kwargs, target = self.labelled(batch)
            output = self.forward(parameters, buffers, args, kwargs)
            self.task.check(output, target)
            total += self.items_nll(output, target).sum(dtype=torch.float64)
        assert data.items is not None  # set by the pass
        return total / data.items

    def loss(
        self, w: Tensor, batch: Any, buffers: Buffers | None = None, *, train: bool = False
    ) -> Tensor:
        """The mean negative log-likelihood of one batch: pure, differentiable, vmappable.

        `buffers` stand in for the model's, by name (see `refresh`); vmap over weights whose
        buffers differ must map over both. `train`: dropout on, BatchNorm by the batch itself.
        """
        batch = move(self.task.parts(batch), self.device, channels_last=self.channels_last)
        args, kwargs, target = self.labelled(batch)
        mode = "train" if train else "eval"
        output = self.forward(self.layout.materialise(w), buffers or {}, args, kwargs, mode=mode)
        return self.items_nll(output, target).sum() / max(self.task.count(batch), 1)

    def value_and_grad(
        self, w: Tensor | Point, batch: Any = None, *, batchnorm: str = "refresh"
    ) -> tuple[Tensor, Tensor]:
        """Loss and gradient (P,).

        With a batch: of that batch in training mode, as a step of SGD sees it. Without: of
        `surface(w)`, in evaluation mode; the gradient then flows through the refreshed BatchNorm
        statistics too, since they are a function of w.
        """
        point = self.point(w)
        if batch is None:
            return self._full_gradient(point, batchnorm)
        with torch.enable_grad():
            leaf = point.weights.detach().clone().requires_grad_()
            value = self.loss(leaf, batch, point.buffers, train=True)
            (gradient,) = torch.autograd.grad(value, leaf)
        return value.detach(), gradient

    def log_likelihood(
        self, w: Tensor | Point, *, loader: Iterable[Any] | None = None, batchnorm: str = "refresh"
    ) -> Tensor:
        """log p(targets | inputs, w) = -n L(w), a float64 scalar."""
        data = self.rows_of(loader)
        value = self(w, loader=None if data is self.data else data, batchnorm=batchnorm)
        assert data.items is not None  # set by the pass
        return -value * data.items

    def evaluate(
        self,
        weights: Any,
        loader: Iterable[Any] | None = None,
        batchnorm: str = "refresh",
        **options: Any,
    ) -> Table:
        """A row of figures for each of many weight vectors: see `lowland.evaluate.evaluate`."""
        from lowland.evaluate import evaluate

        return evaluate(self, weights, loader, batchnorm=batchnorm, **options)

    # -- BatchNorm -------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, w: Tensor | Point, *, method: str = "exact") -> Buffers:
        """BatchNorm statistics for w, by buffer name: see `lowland.core.batchnorm`.

        `method`: "exact", or "batch" for the papers' protocol. Empty for models without BatchNorm.
        """
        if method not in ("exact", "batch"):
            raise ConfigError(f"method: expected 'exact' or 'batch', got {method!r}.")
        if not self._bn_layers:
            return {}
        point = self.point(w)
        parameters = self.layout.materialise(point.weights)
        if method == "batch":
            data = self._bn_data()
            try:
                return self._bn_pass(parameters, data, point.buffers)
            except ValueError as error:
                if min(map(rows, data)) > 1:
                    raise
                raise DataError(
                    "a batch of one row cannot be normalised by itself; choose another batch size, "
                    "another bn_rows, or method='exact'."
                ) from error
        if self.bn_resident() is not None:
            return self.refresh_resident(parameters, point.buffers)

        def forward(batch: Any, buffers: Buffers) -> None:
            args, kwargs, _ = self.task.parts(batch)
            self.forward(parameters, {**(point.buffers or {}), **buffers}, args, kwargs)

        return bn.fixed_point(self._bn_layers, forward, self._bn_data(), self._bn_snapshot())

    def refresh_resident(
        self, parameters: Mapping[str, Tensor], buffers: Buffers | None = None
    ) -> Buffers:
        """Exact statistics from the one resident batch: pure, differentiable, vmappable."""
        return self._bn_pass(parameters, [self.require_resident()], buffers)

    def require_resident(self) -> Any:
        """The one resident batch of BatchNorm rows; raises `DataError` where there is none."""
        joined = self.bn_resident()
        if joined is None:
            raise DataError(
                "the BatchNorm rows cannot be one batch: too many for the memory, or of different "
                "shapes; lower bn_rows, give another bn_loader, or use batchnorm='frozen'."
            )
        return joined

    @property
    def has_batchnorm(self) -> bool:
        """Whether any layer keeps BatchNorm statistics."""
        return bool(self._bn_layers)

    def bn_resident(self) -> Any | None:
        """All BatchNorm rows as one batch; None where a forward pass over them would not fit."""
        if not self._bn_planned:
            batches = self._bn_data()
            need = self._activation_bytes(batches[0]) * sum(map(rows, batches))
            if need <= BN_SHARE * free_memory(self.device):
                self._bn_joined = concatenate(batches)
            self._bn_planned = True
        return self._bn_joined

    def _bn_pass(
        self,
        parameters: Mapping[str, Tensor],
        batches: Iterable[Any],
        buffers: Buffers | None = None,
    ) -> Buffers:
        def forward(batch: Any) -> None:
            args, kwargs, _ = self.task.parts(batch)
            self.forward(parameters, buffers or {}, args, kwargs, mode="batchnorm")

        return bn.one_pass(self._bn_layers, forward, batches)

    def _bn_data(self) -> list[Any]:
        """The first `bn_rows` rows, read once, so that L stays a function of w alone."""
        if self._bn_batches is None:
            source, most = self._bn_source, self.bn_rows
            if source is None:
                source, most = self.data.loader, min(most, self.data.count or most)
                if isinstance(source, Iterator):
                    raise DataError(
                        "the loader is an iterator, and BatchNorm statistics would use it up; give "
                        "a DataLoader or a list, or bn_loader=."
                    )
            kept, seen = [], 0
            for batch in source:
                batch = take(self.task.parts(batch), most - seen)
                if rows(batch) == 0:
                    continue
                seen += rows(batch)
                kept.append(move(batch, self.device, channels_last=self.channels_last))
                if seen >= most:
                    break
            if seen < 2:
                raise DataError(
                    "BatchNorm statistics need at least two rows; give bn_loader= more."
                )
            self._bn_batches = kept
        return self._bn_batches

    def _bn_snapshot(self) -> Buffers:
        return {name: self.buffers[name] for name in self._statistics}

    def _activation_bytes(self, batch: Any) -> float:
        """Memory that a forward pass without gradients takes a row: four of the largest output."""
        sizes: list[int] = [0]

        def note(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.nbytes)

        few = take(batch, 16)
        args, kwargs, _ = self.task.parts(few)
        handles = [m.register_forward_hook(note) for m in self._template.modules()]
        try:
            with torch.no_grad():
                self.forward({}, {}, args, kwargs)
        finally:
            for handle in handles:
                handle.remove()
        return 4 * max(sizes) / rows(few)

    # -- the machinery that evaluators share -----------------------------------------------------

    def point(self, w: Tensor | Point) -> Point:
        """Weights on this surface's device, checked, with their buffers if they have any."""
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        weights = point.weights.to(self.device)
        self.layout.require_finite(weights)
        if not point.buffers:
            return Point(weights)
        strange = [name for name in point.buffers if name not in self._places]
        if strange:
            raise LayoutError(f"the buffers come from another model: it has no {strange[0]}.")
        return Point(weights, {name: b.to(self.device) for name, b in point.buffers.items()})

    def rows_of(self, loader: Iterable[Any] | None, *, count: int | None = None) -> Rows:
        """The surface's own rows, or those of another loader."""
        if loader is None:
            return self.data
        if isinstance(loader, Rows):
            return loader
        return Rows(
            loader,
            self.task,
            device=self.device,
            count=count,
            channels_last=self.channels_last,
        )

    def buffers_for(self, point: Point, batchnorm: str) -> Buffers:
        """The buffers that `point` is evaluated with."""
        if batchnorm not in ("refresh", "frozen"):
            raise ConfigError(f"batchnorm: expected 'refresh' or 'frozen', got {batchnorm!r}.")
        own = dict(point.buffers or {})
        return {**own, **self.refresh(point)} if batchnorm == "refresh" else own

    def forward(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        mode: str = "eval",
    ) -> Tensor:
        """The output tensor for parameters and buffers by name. Changes nothing.

        `mode`: "eval", "train", or "batchnorm": BN layers normalise by the batch, all else as in
        evaluation.
        """
        self._set_mode(mode)
        values: dict[str, Tensor | None] = dict.fromkeys(self._unfilled)
        for name, value in parameters.items():
            for place in self._places[name]:
                values[place] = value
        for name, buffer in {**self.buffers, **buffers}.items():
            # so that calls do not see one another's writes: copies of what a module may write to
            value = buffer if name in self._read_only else buffer.clone()
            for place in self._places[name]:
                values[place] = value
        if mode != "eval":
            # without running statistics a BN layer normalises by the batch and writes nothing,
            # which keeps the call pure: vmap has no rule for writing batched values into them
            for name in self._statistics:
                for place in self._places[name]:
                    values[place] = None
        with self._precision():
            raw = functional_call(
                self._template,
                values,  # type: ignore[arg-type]
                args,
                dict(kwargs),
                tie_weights=False,  # `_places` knows the ties: searching for them takes time
            )
        return self.task.output(raw)

    def items_nll(self, output: Tensor, target: Any) -> Tensor:
        """Negative log-likelihood of each item, (items,)."""
        loss = self.task.nll(output, target)
        if loss.ndim != 1:
            raise DataError(
                f"{self.task!r}.nll: expected one value an item, (items,), got "
                f"{tuple(loss.shape)}; do not reduce the loss."
            )
        return loss

    def labelled(self, batch: Any) -> Any:
        """The parts of a batch that must have a target."""
        parts = self.task.parts(batch)
        if parts.target is None:
            raise DataError(
                "the batch has no target: give (inputs, target), a dict with 'labels', or unpack=."
            )
        return parts

    @torch.enable_grad()
    def _full_gradient(self, point: Point, batchnorm: str) -> tuple[Tensor, Tensor]:
        leaf = point.weights.detach().clone().requires_grad_()
        stats: Buffers = {}
        if batchnorm == "refresh" and self.has_batchnorm:
            self.require_resident()  # before the work rather than after it
            stats = {name: b.requires_grad_() for name, b in self.refresh(point).items()}
            fixed = {**(point.buffers or {}), **{name: b.detach() for name, b in stats.items()}}
        else:
            fixed = self.buffers_for(point, batchnorm)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        gradient = torch.zeros_like(leaf)
        into = {name: torch.zeros_like(b) for name, b in stats.items()}
        for batch in self.data:
            args, kwargs, target = self.labelled(batch)
            with bn.differentiable(self._bn_layers, stats):
                output = self.forward(self.layout.materialise(leaf), fixed, args, kwargs)
            self.task.check(output, target)
            loss = self.items_nll(output, target).sum(dtype=torch.float64)
            grads = torch.autograd.grad(loss, [leaf, *stats.values()], allow_unused=True)
            total += loss.detach()
            for into_one, part in zip([gradient, *into.values()], grads, strict=True):
                if part is not None:
                    into_one += part
        if stats:
            # the chain rule through statistics(w): one backward pass over the BN rows
            found = self.refresh_resident(self.layout.materialise(leaf), point.buffers)
            outputs = [found[name] for name in stats]
            (through,) = torch.autograd.grad(outputs, leaf, list(into.values()), allow_unused=True)
            if through is not None:
                gradient += through
        items = self.data.items
        assert items is not None  # set by the pass
        return total / items, gradient / items

    def _set_mode(self, mode: str) -> None:
        if mode == self._mode:
            return
        self._template.train(mode == "train")
        for module in self._always_eval:
            module.training = False
        if mode == "batchnorm":
            for layer in self._bn_layers.values():
                layer.training = True
        self._mode = mode

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if not self.autocast:
            return contextlib.nullcontext()
        dtype = None if self.autocast is True else self.autocast
        return torch.autocast(self.device.type, dtype=dtype)

    def __repr__(self) -> str:
        return f"LossSurface({type(self._template).__name__}, {self.task!r}, P={self.layout.size})"


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and data-parallel wrappers."""
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(model, parallel) or uncompiled(model) is not model:
        model = model.module if isinstance(model, parallel) else uncompiled(model)
    return model


def uncompiled(module: nn.Module) -> nn.Module:
    """What `torch.compile` wrapped, or the module itself."""
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def private_copy(model: nn.Module) -> nn.Module:
    """A deep copy, ties kept, of models with computed attributes too.

    `torch.nn.utils.weight_norm` leaves a computed tensor on the module, which `deepcopy` refuses;
    it is copied as a constant, and computed anew at the next forward pass. Compiled parts are
    copied uncompiled, since compiled code is bound to its own weights.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in (*vars(module).values(), *module._buffers.values()):
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    made = copy.deepcopy(model, memo)
    for module in list(made.modules()):
        for name, child in module._modules.items():
            if child is not None:
                module._modules[name] = uncompiled(child)
    return made


def _places(model: nn.Module) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Where a parameter or buffer of any name stands: every place that is tied to it, once each.

    Names count with and without wrappers' prefixes. Beside them the buffers that are None until a
    forward pass fills them: they are None again at every call, so that calls are pure.
    """
    places: dict[str, tuple[str, ...]] = {}
    unfilled = []
    for kind, every in (
        ("_parameters", dict(model.named_parameters(remove_duplicate=False))),
        ("_buffers", dict(model.named_buffers(remove_duplicate=False))),
    ):
        tied: dict[int, list[str]] = {}
        for prefix, module in model.named_modules():
            for key, tensor in getattr(module, kind).items():
                name = f"{prefix}.{key}" if prefix else key
                if tensor is not None:
                    tied.setdefault(id(tensor), []).append(name)
                elif kind == "_buffers":
                    unfilled.append(name)
        short = clean_names([*every, *unfilled])
        for name, tensor in every.items():
            places[name] = places[short[name]] = tuple(tied[id(tensor)])
        for name in unfilled:
            places[name] = places[short[name]] = (name,)
    return places, unfilled


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _eval_modules(model: nn.Module) -> list[nn.Module]:
    """Modules that the user put into evaluation mode inside a model in training mode."""
    return [module for module in model.modules() if model.training and not module.training]
