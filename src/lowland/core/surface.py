"""The training loss as what it is: a function of one flat weight vector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core import batchnorm as bn
from lowland.core.call import check_batch
from lowland.core.data import Rows, move
from lowland.core.layout import ParamLayout, Where
from lowland.core.point import Point
from lowland.core.statistics import Statistics
from lowland.core.task import Task
from lowland.core.template import Buffers, Template
from lowland.errors import ConfigError, DataError, LayoutError

if TYPE_CHECKING:
    from lowland.records import Table


class LossSurface:
    r"""L(w): the mean negative log-likelihood per item, as a function of flat weights.

    \(L(w) = \frac1n \sum_{i=1}^n -\log p(y_i | x_i, w)\) over the n items of `loader`, natural
    logarithm, every constant included, no prior and no weight decay, accumulated in float64.

    The model is a template: a private copy of its structure is called with other weights, as
    `torch.func.functional_call` does, and the model that was passed in is never changed. Parameters
    that are frozen or left out by `where`, and all buffers, keep the values they have now.

    Args:
        model: any module. task: the likelihood, such as `Classification()`.
        loader: batches, the same rows on every pass, such as a `DataLoader` without augmentation.
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
    >>> from lowland.core import Regression
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
        autocast: bool | str | torch.dtype | None = None,
        bn_loader: Iterable[Any] | None = None,
        bn_rows: int = 4096,
        channels_last: bool = False,
        count: int | None = None,
    ) -> None:
        if not isinstance(task, Task):
            raise ConfigError(
                f"task: expected a Task such as Classification(), got {type(task).__name__}."
            )
        task = task.for_model(model)
        self.layout = ParamLayout(model, where=where)
        self.task = task
        self.channels_last = channels_last
        self.template = Template(model, device=device, autocast=autocast)
        self.device = self.template.device
        self.buffers = self.template.buffers
        self.data = Rows(loader, task, device=self.device, count=count, channels_last=channels_last)
        most = checks.whole("bn_rows", bn_rows, least=2)
        self.statistics = Statistics(self.template, self.data, bn_loader, most=most)

    # -- the function ----------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        w: Tensor | Point,
        *,
        loader: Iterable[Any] | None = None,
        batchnorm: str = "refresh",
    ) -> Tensor:
        """`surface(w)` is L(w), a float64 scalar, in evaluation mode.

        `loader`: other rows than the surface's own. `batchnorm`: "refresh" re-estimates the
        statistics for w, "frozen" takes those of the point or, where it has none, of the model.
        """
        point = self.point(w)
        data = self.rows_of(loader)
        buffers = self.buffers_for(point, batchnorm)
        parameters = self.layout.materialise(point.weights)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        unseen = data.items is None  # later passes have the same rows: nothing to wait for on a GPU
        for batch in data:
            args, kwargs, target = self.labelled(batch)
            output = self.forward(parameters, buffers, args, kwargs)
            if unseen:
                check_batch(self.task, (args, kwargs), output, target)
            total += self.task.items_nll(output, target).sum(dtype=torch.float64)
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
        loss = self.task.items_nll(output, target).sum()
        mask = self.task.valid(target)
        # a tensor, so that nothing is waited for on a GPU, and vmap over batches works
        return loss / (self.task.count(batch) if mask is None else mask.sum().clamp_min(1))

    def value_and_grad(
        self,
        w: Tensor | Point,
        batch: Any = None,
        *,
        loader: Iterable[Any] | None = None,
        batchnorm: str = "refresh",
    ) -> tuple[Tensor, Tensor]:
        """Loss and gradient (P,).

        With a batch: of that batch in training mode, as a step of SGD sees it. Without: of
        `surface(w, loader=loader)`, in evaluation mode; the gradient then flows through the
        refreshed BatchNorm statistics too, since they are a function of w.
        """
        point = self.point(w)
        if batch is None:
            return self._full_gradient(point, self.rows_of(loader), batchnorm)
        with torch.enable_grad():
            leaf = point.weights.detach().clone().requires_grad_()
            value = self.loss(leaf, batch, point.buffers, train=True)
            (gradient,) = torch.autograd.grad(value, leaf, materialize_grads=True)
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
        """BatchNorm statistics for w, by buffer name: a dict for `load_state_dict(strict=False)`.

        `method`: "exact", as if all rows were one batch, or "batch" for the papers' protocol.
        Empty for models without BatchNorm.
        """
        if method not in ("exact", "batch"):
            raise ConfigError(f"method: expected 'exact' or 'batch', got {method!r}.")
        if not self.has_batchnorm:
            return {}
        point = self.point(w)
        parameters = self.layout.materialise(point.weights)
        find = self.statistics.exact if method == "exact" else self.statistics.by_batches
        return find(parameters, point.buffers or {})

    @property
    def has_batchnorm(self) -> bool:
        """Whether any layer keeps BatchNorm statistics."""
        return bool(self.template.layers)

    # -- the machinery that evaluators share -----------------------------------------------------

    def point(self, w: Tensor | Point) -> Point:
        """Weights on this surface's device, checked, with their buffers if they have any."""
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        weights = point.weights.to(self.device)
        self.layout.require_finite(weights)
        if not point.buffers:
            return Point(weights)
        # checkpoints hold other tensors too: counters of wrappers, parameters that are no part of w
        own = {
            name: buffer.to(self.device, self.buffers[name].dtype)
            for name, buffer in point.buffers.items()
            if name in self.buffers
        }
        if self.buffers and not own:
            raise LayoutError(
                f"the buffers come from another model: expected {next(iter(self.buffers))}, got "
                f"{next(iter(point.buffers))}."
            )
        return Point(weights, own)

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
        """The output tensor for parameters and buffers by name: see `Template`."""
        output = self.task.output(self.template(parameters, buffers, args, kwargs, mode=mode))
        # a model that differentiates inside its forward pass gives a graph that nobody asked for
        return output if torch.is_grad_enabled() else output.detach()

    def labelled(self, batch: Any) -> Any:
        """The parts of a batch that must have a target."""
        parts = self.task.parts(batch)
        if parts.target is None:
            raise DataError(
                "the batch has no target: give (inputs, target), a dict with 'labels', or unpack=."
            )
        self.template.require_replayable(parts.args, parts.kwargs)
        return parts

    @torch.enable_grad()
    def _full_gradient(self, point: Point, data: Rows, batchnorm: str) -> tuple[Tensor, Tensor]:
        leaf = point.weights.detach().clone().requires_grad_()
        stats: Buffers = {}
        if batchnorm == "refresh" and self.has_batchnorm:
            self.statistics.require_resident()  # before the work rather than after it
            stats = {name: b.requires_grad_() for name, b in self.refresh(point).items()}
            fixed = {**(point.buffers or {}), **{name: b.detach() for name, b in stats.items()}}
        else:
            fixed = self.buffers_for(point, batchnorm)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        gradient = torch.zeros_like(leaf)
        into = {name: torch.zeros_like(b) for name, b in stats.items()}
        for batch in data:
            args, kwargs, target = self.labelled(batch)
            with self.template.lock, bn.differentiable(self.template.layers, stats):
                output = self.forward(self.layout.materialise(leaf), fixed, args, kwargs)
            check_batch(self.task, (args, kwargs), output, target)
            loss = self.task.items_nll(output, target).sum(dtype=torch.float64)
            grads = torch.autograd.grad(loss, [leaf, *stats.values()], allow_unused=True)
            total += loss.detach()
            for into_one, part in zip([gradient, *into.values()], grads, strict=True):
                if part is not None:
                    into_one += part
        if stats:
            # the chain rule through statistics(w): one backward pass over the BN rows
            found = self.statistics.from_resident(self.layout.materialise(leaf), point.buffers)
            outputs = [found[name] for name in stats]
            (through,) = torch.autograd.grad(outputs, leaf, list(into.values()), allow_unused=True)
            if through is not None:
                gradient += through
        items = data.items
        assert items is not None  # set by the pass
        return total / items, gradient / items

    def __repr__(self) -> str:
        model = type(self.template.module).__name__
        return f"LossSurface({model}, {type(self.task).__name__}(), P={self.layout.size})"
