"""The training loss as what it is: a function of one flat weight vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.buffers import Buffers, buffers_of
from lowland.core.call import check_batch
from lowland.core.data import ReplayableLoader, move
from lowland.core.fixed_state import FixedState
from lowland.core.full_gradient import full_gradient
from lowland.core.layout import ParamLayout
from lowland.core.names import Where
from lowland.core.options import EvalOptions
from lowland.core.point import EstimatedPoint, Point
from lowland.core.statistics import Statistics
from lowland.core.task import Task
from lowland.core.template import Template
from lowland.errors import ConfigError, DataError, LayoutError

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
            augmentation. Larger batches than those of training, such as 1,000 examples, are faster
            for small networks. None: no examples, as on a server; `predict` then requires weights
            with their statistics, see `Posterior.freeze`.
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
        self.state = FixedState(self.layout, self.template)
        self.has_data = loader is not None
        self.data = ReplayableLoader(
            [] if loader is None else loader,
            task,
            device=self.device,
            count=count,
            channels_last=channels_last,
        )
        self.statistics = Statistics(
            self.template,
            self.data,
            bn_loader,
            most=checks.whole("bn_rows", bn_rows, least=2),
            where=reestimate,
            has_examples=self.has_data or bn_loader is not None,
        )

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
        # later passes have the same examples: nothing to wait for on a GPU
        unseen = data.items is None
        for batch in data:
            args, kwargs, target = self.labelled(batch)
            output = self.forward(parameters, buffers, args, kwargs)
            if unseen:
                check_batch(self.task, (args, kwargs), output, target)
            total += self.task.items_nll(output, target).sum(dtype=torch.float64)
        return total / data.counted_items

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
            return full_gradient(self, point, self.replayable(loader), options)
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
        return -self(w, loader=data, batchnorm=batchnorm) * data.counted_items

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
        checks.choice("method", method, ("exact", "batch"))
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
        """Weights on this surface's device, checked, with their buffers if they have any.

        `w` may also be an average such as `SWA`: then its `point`.
        """
        if isinstance(w, nn.Module):
            w = Point(
                self.layout.flatten(w), buffers_of(w) | self.state.changed_frozen_parameters(w)
            )
        elif not isinstance(w, Tensor | Point):
            w = _point_of(w)
        point = w if isinstance(w, Point) else Point(w)
        self.layout.check(point.weights, flat=True)
        weights = point.weights.to(self.device)
        self.layout.require_finite(weights)
        if point.buffers is None:
            names = self.statistics.names
            self.template.source.warn_if_changed(
                {n: buffer for n, buffer in self.buffers.items() if n not in names}
            )
            return Point(weights)
        return type(point)(weights, self.state.matching(point.buffers))

    @property
    def example(self) -> Callable[[], Any] | None:
        """Gives a labelled batch, which shows the form of targets; None where there is none."""
        return self.data.first if self.has_data else None

    def replayable(
        self, loader: Iterable[Any] | None, *, count: int | None = None
    ) -> ReplayableLoader:
        """The examples of a loader, or of the surface; with `count=`, the first ones."""
        loader = self.data if loader is None else loader
        if isinstance(loader, ReplayableLoader):
            if count is None or (loader.count is not None and loader.count <= count):
                return loader
            loader = loader.loader
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
        parameters = self.layout.materialise(point.weights)
        return self.statistics.estimate(parameters, own, method=method)

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

    def __repr__(self) -> str:
        model = type(self.template.module).__name__
        return f"LossSurface({model}, {type(self.task).__name__}(), P={self.layout.size})"


def _point_of(average: Any) -> Point:
    """The point of an average of iterates, or of a posterior that is one network."""
    point = getattr(average, "point", None)
    if isinstance(point, Point):
        return point
    hint = "; give a draw, such as posterior.point(0)" if callable(point) else ""
    raise LayoutError(
        "weights: expected a flat tensor, a Point, a model or an average such as SWA, got "
        f"{type(average).__name__}{hint}."
    )
