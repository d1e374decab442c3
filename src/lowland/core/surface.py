"""The training loss as what it is: a function of one flat weight vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core import batchnorm as bn
from lowland.core.buffers import Buffers, buffers_of
from lowland.core.call import check_batch
from lowland.core.data import ReplayableLoader, move
from lowland.core.layout import ParamLayout
from lowland.core.names import Where, join_names, name_filter
from lowland.core.options import EvalOptions
from lowland.core.point import EstimatedPoint, Point
from lowland.core.statistics import Statistics
from lowland.core.task import Task
from lowland.core.template import Template
from lowland.errors import ConfigError, DataError, LayoutError
from lowland.warn import warn

if TYPE_CHECKING:
    from lowland.records import Table


class LossSurface:
    r"""L(w): the mean negative log-likelihood per item, as a function of flat weights.

    \(L(w) = \frac1n \sum_{i=1}^n -\log p(y_i | x_i, w)\) over the n items of `loader`, natural
    logarithm, every constant included, no prior and no weight decay, accumulated in float64.

    The model is a template: the surface calls a private copy of its structure with other weights,
    as `torch.func.functional_call` does, and never changes the model that was passed in. Frozen
    parameters and those excluded by `where` keep their present values. A `Point` (`swa.point`,
    `surface.point(model)`) and a posterior made of models bring their own buffers; for a flat
    vector, such as `swa.mean`, the present buffers of the model are used. The rule for each kind of
    layer is in docs/ideas/batchnorm.md.

    Args:
        model: any module. task: the likelihood, such as `Classification()`.
        loader: batches, the same examples on every pass, such as a `DataLoader` without
            augmentation. None: no examples, as on a server; `predict` then requires weights with
            their statistics, see `Posterior.freeze`.
        where: which parameters are part of w, see `ParamLayout`.
        device: where to compute; None: where the model is.
        autocast: True, or a half-precision dtype or its name, such as "bfloat16"; None: the model's
            own dtype.
        bn_loader: examples for BatchNorm statistics, without augmentation; None: `loader`.
        bn_rows: how many of them; they are read once and kept in memory.
        reestimate: further buffers that are statistics of the data, of layers of your own: a
            regular expression or a predicate on their names. For each w they are estimated by one
            pass in training mode over the same examples.
        channels_last: memory format for images and convolutions.
        count: examples of `loader` to read, for loaders without an end.
        options: defaults for how weights are evaluated, see `EvalOptions`; also the attribute
            `surface.options`, which may be set.

    Raises:
        DataError: an empty loader, examples that change between passes, labels out of range,
            targets that do not fit the outputs.
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
        loader: Iterable[Any] | None = None,
        *,
        where: Where = None,
        device: torch.device | str | None = None,
        autocast: bool | str | torch.dtype | None = None,
        bn_loader: Iterable[Any] | None = None,
        bn_rows: int = 4096,
        reestimate: Where = None,
        channels_last: bool = False,
        count: int | None = None,
        options: EvalOptions | None = None,
    ) -> None:
        if not isinstance(task, Task):
            raise ConfigError(
                f"task: expected a Task such as Classification(), got {type(task).__name__}."
            )
        task = task.for_model(model)
        self.options = options or EvalOptions()
        if self.options.count is not None:
            raise ConfigError(
                f"options: count={self.options.count} belongs to one call; for a surface of fewer "
                "examples give count= to LossSurface itself."
            )
        self.layout = ParamLayout(model, where=where)
        self.task = task
        self.channels_last = channels_last
        self.template = Template(model, device=device, autocast=autocast)
        self.device = self.template.device
        self.buffers = self.template.buffers
        # what is no part of w: buffers, and frozen parameters
        self.state = self.layout.state_of(self.template.module) | self.buffers
        self.has_data = loader is not None
        self.data = ReplayableLoader(
            [] if loader is None else loader,
            task,
            device=self.device,
            count=count,
            channels_last=channels_last,
        )
        most = checks.whole("bn_rows", bn_rows, least=2)
        names = self._statistics_named(reestimate)
        self.statistics = Statistics(self.template, self.data, bn_loader, most=most, names=names)

    # -- the function ----------------------------------------------------------------------------

    @torch.no_grad()
    def __call__(
        self,
        w: Tensor | Point,
        *,
        loader: Iterable[Any] | None = None,
        batchnorm: str | None = None,
    ) -> Tensor:
        """`surface(w)` is L(w), a float64 scalar, in evaluation mode.

        `loader`: other examples than the surface's own. `batchnorm`: "refresh" re-estimates the
        statistics for w, "frozen" uses those of the point or, if it has none, of the model; None:
        the surface's options.
        """
        point = self.point(w)
        data = self.replayable(loader)
        buffers = self.buffers_for(point, self.options.override(batchnorm=batchnorm))
        parameters = self.layout.materialise(point.weights)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        unseen = (
            data.items is None
        )  # later passes have the same examples: nothing to wait for on a GPU
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
        The vectors of spectral norm are those of w.
        """
        batch = move(self.task.parts(batch), self.device, channels_last=self.channels_last)
        args, kwargs, target = self.labelled(batch)
        mode = "train" if train else "eval"
        parameters = self.layout.materialise(w)
        buffers = {**(buffers or {}), **self.template.spectral_vectors(parameters, buffers or {})}
        output = self.forward(parameters, buffers, args, kwargs, mode=mode)
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
        batchnorm: str | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Loss and gradient (P,).

        With a batch: of that batch in training mode, as in a step of SGD. Without: of
        `surface(w, loader=loader)`, in evaluation mode; the gradient then flows through the
        refreshed BatchNorm statistics too, since they are a function of w.
        """
        point = self.point(w)
        if batch is None:
            options = self.options.override(batchnorm=batchnorm)
            return self._full_gradient(point, self.replayable(loader), options)
        with torch.enable_grad():
            leaf = point.weights.detach().clone().requires_grad_()
            value = self.loss(leaf, batch, point.buffers, train=True)
            (gradient,) = torch.autograd.grad(value, leaf, materialize_grads=True)
        return value.detach(), gradient

    def log_likelihood(
        self,
        w: Tensor | Point,
        *,
        loader: Iterable[Any] | None = None,
        batchnorm: str | None = None,
    ) -> Tensor:
        """log p(targets | inputs, w) = -n L(w), a float64 scalar."""
        data = self.replayable(loader)
        value = self(w, loader=None if data is self.data else data, batchnorm=batchnorm)
        assert data.items is not None  # set by the pass
        return -value * data.items

    def evaluate(
        self,
        weights: Any,
        loader: Iterable[Any] | None = None,
        batchnorm: str | None = None,
        **options: Any,
    ) -> Table:
        """One row of metrics per weight vector: see `lowland.evaluate.evaluate`."""
        from lowland.evaluate import evaluate

        return evaluate(self, weights, loader, batchnorm=batchnorm, **options)

    # -- BatchNorm -------------------------------------------------------------------------------

    @torch.no_grad()
    def refresh(self, w: Tensor | Point, *, method: str = "exact") -> Buffers:
        """Buffers that depend on w, by name: a dict for `load_state_dict(strict=False)`.

        Statistics of BatchNorm and tracked InstanceNorm layers and of `reestimate=`, and the
        vectors of spectral norm. `method`: "exact", as if all examples were one batch, or "batch"
        for the papers' protocol. Empty for models without any.
        """
        if method not in ("exact", "batch"):
            raise ConfigError(f"method: expected 'exact' or 'batch', got {method!r}.")
        point = self.point(w)
        vectors = self._spectral_vectors(point)
        own = {**(point.buffers or {}), **vectors}
        return vectors | self._estimate(point, own, method=method)

    @property
    def has_batchnorm(self) -> bool:
        """Whether any layer keeps statistics that are estimated for w."""
        return self.statistics.needed

    # -- the machinery that evaluators share -----------------------------------------------------

    def point(self, w: Tensor | Point | nn.Module) -> Point:
        """Weights on this surface's device, checked, with their buffers if they have any."""
        if isinstance(w, nn.Module):
            w = Point(self.layout.flatten(w), buffers_of(w) | self.changed_frozen_parameters(w))
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        weights = point.weights.to(self.device)
        self.layout.require_finite(weights)
        if point.buffers is None:
            self._warn_of_changed_buffers()
            return Point(weights)
        return type(point)(weights, self.matching_buffers(point.buffers))

    def _warn_of_changed_buffers(self) -> None:
        """Warns where a flat vector takes buffers that the model no longer has."""
        own = {n: t for n, t in self.buffers.items() if n not in self.statistics.names}
        names = self.template.changed_buffers(own)
        if names:
            warn(
                f"{join_names(names)} of the model changed after the surface was made, and a flat "
                "vector of weights takes what was there then: give surface.point(model), swa.point "
                "or a posterior, which bring theirs, or make the surface of the model as it is "
                "now.",
            )

    def changed_frozen_parameters(self, model: nn.Module) -> Buffers:
        """Copies of the frozen parameters in which a model differs from the surface's, by name:
        they travel with its buffers."""
        theirs = self.layout.state_of(model)
        return {
            name: theirs[name].clone()
            for name, ours in self.state.items()
            if name not in self.buffers and not torch.equal(theirs[name].to(ours), ours)
        }

    def matching_buffers(self, buffers: Mapping[str, Tensor]) -> Buffers:
        """Those that are the model's, on its device, in its dtypes."""
        # checkpoints hold other tensors too: counters of wrappers, parameters that are no part of w
        own = {
            name: buffer.to(self.device, self.state[name].dtype)
            for name, buffer in buffers.items()
            if name in self.state
        }
        if self.buffers and buffers and not own:
            raise LayoutError(
                f"the buffers come from another model: expected {next(iter(self.buffers))}, got "
                f"{next(iter(buffers))}."
            )
        return own

    @property
    def example(self) -> Callable[[], Any] | None:
        """Gives a labelled batch, which shows the form of targets; None where there is none."""
        return self.data.first if self.has_data else None

    def replayable(
        self, loader: Iterable[Any] | None, *, count: int | None = None
    ) -> ReplayableLoader:
        """The surface's own examples, or those of another loader."""
        if loader is None:
            return self.data
        if isinstance(loader, ReplayableLoader):
            return loader
        return ReplayableLoader(
            loader,
            self.task,
            device=self.device,
            count=count,
            channels_last=self.channels_last,
        )

    def buffers_for(self, point: Point, options: EvalOptions | None = None) -> Buffers:
        """The buffers that `point` is evaluated with; without options by the surface's own."""
        own = {**(point.buffers or {}), **self._spectral_vectors(point)}
        return own | self._estimate(point, own) if self.refreshes(point, options) else own

    @torch.no_grad()
    def estimated(self, w: Tensor | Point | nn.Module) -> EstimatedPoint:
        """A point with all buffers that it is evaluated with, its statistics estimated."""
        point = self.point(w)
        own = {**self.buffers, **self.buffers_for(point, EvalOptions())}
        return EstimatedPoint(point.weights, {n: b.detach().clone() for n, b in own.items()})

    def refreshes(self, point: Point, options: EvalOptions | None = None) -> bool:
        """Whether statistics are estimated for a point, or taken as they come."""
        refresh = (options or self.options).batchnorm == "refresh"
        return self.statistics.needed and refresh and not point.estimated

    def _spectral_vectors(self, point: Point) -> Buffers:
        if not self.template.spectral:
            return {}
        parameters = self.layout.materialise(point.weights)
        return self.template.spectral_vectors(parameters, point.buffers or {})

    def _estimate(self, point: Point, own: Buffers, *, method: str = "exact") -> Buffers:
        if not self.statistics.needed:
            return {}
        if not self.has_data and self.statistics.source is None:
            raise DataError(
                "the surface has no examples to estimate BatchNorm statistics from, and these "
                "weights come without their own: freeze the posterior where the training examples "
                "are (posterior.freeze(surface)), give loader= or bn_loader= to the surface, or "
                "take those that the weights came with by batchnorm='frozen'."
            )
        parameters = self.layout.materialise(point.weights)
        return self.statistics.estimate(parameters, own, method=method)

    def require_estimated(self, point: Point) -> None:
        """Raises `DataError` where the statistics that a point comes with, or else the model's, are
        still those of a new layer."""
        new = bn.layers_without_statistics(
            self.template.layers, {**self.buffers, **(point.buffers or {})}
        )
        if new:
            raise DataError(
                f"batchnorm='frozen': the statistics of {join_names(new)} were never estimated; "
                "load those of a trained model, or take 'refresh'."
            )

    def _statistics_named(self, where: Where) -> list[str]:
        if where is None:
            return []
        names = list(filter(name_filter(where, argument="reestimate"), self.buffers))
        if not names:
            raise ConfigError(
                f"reestimate: {where!r} fits no buffer of the model; it has "
                f"{join_names(list(self.buffers)) or 'none'}."
            )
        return [name for name in names if name not in self.template.statistics]

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
    def _full_gradient(
        self, point: Point, data: ReplayableLoader, options: EvalOptions
    ) -> tuple[Tensor, Tensor]:
        leaf = point.weights.detach().clone().requires_grad_()
        stats: Buffers = {}
        refreshes = self.template.layers and self.refreshes(point, options)
        if refreshes:
            self.statistics.require_resident()  # before the work rather than after it
        fixed = self.buffers_for(point, options)
        if refreshes:
            names = bn.statistics_names(self.template.layers)
            own = [n for n in names if n in fixed and fixed[n].is_floating_point()]
            stats = {name: fixed[name].clone().requires_grad_() for name in own}
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
            # the chain rule through statistics(w): one backward pass over the BN examples
            new = self.statistics.from_resident(self.layout.materialise(leaf), fixed)
            names = [name for name in stats if name in new]  # without layers that are not called
            outputs, by = [new[name] for name in names], [into[name] for name in names]
            (through,) = torch.autograd.grad(outputs, leaf, by, allow_unused=True)
            if through is not None:
                gradient += through
        items = data.items
        assert items is not None  # set by the pass
        return total / items, gradient / items

    def __repr__(self) -> str:
        model = type(self.template.module).__name__
        return f"LossSurface({model}, {type(self.task).__name__}(), P={self.layout.size})"
