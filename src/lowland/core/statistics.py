"""The examples that statistics come from, and the statistics of any weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lowland.core import batchnorm as bn
from lowland.core.buffers import Buffers
from lowland.core.data import (
    ReplayableLoader,
    concatenate,
    first_examples,
    free_memory,
    is_sliceable,
    move,
)
from lowland.core.names import Where, join_names, name_filter
from lowland.core.seeds import fork_torch_rng
from lowland.core.task import count_examples
from lowland.core.template import Template
from lowland.errors import ConfigError, DataError

SHARE = 0.25  # of the free memory: what one resident batch may take


class Statistics:
    """Statistics of BatchNorm and InstanceNorm layers as a function of the weights.

    The first `most` examples are read once and held, so that the function is one: of weights alone.

    Args:
        template: the model. data: the examples, where `source` is None, and how batches are moved.
        source: other examples. most: how many are used.
        where: buffers of other layers that are estimated by a pass in training mode.
        has_examples: whether there are any.

    Raises:
        ConfigError: `where` fits no buffer.
    """

    def __init__(
        self,
        template: Template,
        data: ReplayableLoader,
        source: Iterable[Any] | None,
        *,
        most: int,
        where: Where = None,
        has_examples: bool = True,
    ) -> None:
        self.template = template
        self.has_examples = has_examples
        self.names = _names(template, where)
        self.data = data
        self.source = source
        self.most = most
        self._batches: list[Any] | None = None
        self._single_batch: Any | None = None
        self._planned = False

    @property
    def needed(self) -> bool:
        """Whether the model has statistics to estimate."""
        return bool(self.template.layers or self.names)

    def estimate(
        self, parameters: Mapping[str, Tensor], buffers: Buffers, *, method: str = "exact"
    ) -> Buffers:
        """The statistics of all layers that keep some: of those named first, since BatchNorm may
        stand behind them."""
        if not self.has_examples:
            raise DataError(
                "the surface has no examples to estimate BatchNorm statistics from, and these "
                "weights come without their own: freeze the posterior where the training examples "
                "are (posterior.freeze(surface)), give loader= or bn_loader= to the surface, or "
                "take those that the weights came with by batchnorm='frozen'."
            )
        own = self.own(parameters, buffers)
        if not self.template.layers:
            return own
        find = self.exact if method == "exact" else self.by_batches
        return own | find(parameters, {**buffers, **own})

    def require_estimated(self, buffers: Mapping[str, Tensor]) -> None:
        """Raises `DataError` where statistics are still those of a new layer."""
        new = bn.layers_without_statistics(self.template.layers, buffers)
        if new:
            raise DataError(
                f"batchnorm='frozen': the statistics of {join_names(new)} were never estimated; "
                "load those of a trained model, or take 'refresh'."
            )

    def own(self, parameters: Mapping[str, Tensor], buffers: Buffers) -> Buffers:
        """The buffers `names`, by one pass in training mode that begins with those of the point."""
        if not self.names:
            return {}
        return self.template.buffers_after_training(self.names, parameters, buffers, self.batches())

    def exact(self, parameters: Mapping[str, Tensor], buffers: Buffers) -> Buffers:
        """From one resident batch where it fits, else from a pass a depth."""
        batch, layers = self.resident(), self.template.layers
        if batch is not None and not bn.accept_statistics(layers.values()):
            return self.from_resident(parameters, buffers)

        def forward(batch: Any, statistics: Buffers) -> None:
            args, kwargs, _ = batch
            self.template(parameters, {**buffers, **statistics}, args, kwargs, mode="statistics")

        start = {name: self.template.buffers[name] for name in self.template.statistics}
        with self.template.lock:
            if batch is not None:
                return bn.from_one_batch(layers, lambda buffers: forward(batch, buffers), start)
            return bn.from_passes(layers, forward, self.batches(), start)

    def by_batches(self, parameters: Mapping[str, Tensor], buffers: Buffers) -> Buffers:
        """From one pass in which each batch is normalised by itself: the papers' protocol."""
        try:
            return self._pass(parameters, self.batches(), buffers)
        except ValueError as error:
            if min(map(count_examples, self.batches())) > 1:
                raise
            raise DataError(
                "a batch of one example cannot be normalised by itself; choose another batch size, "
                "another bn_rows, or method='exact'."
            ) from error

    def from_resident(
        self, parameters: Mapping[str, Tensor], buffers: Buffers | None = None
    ) -> Buffers:
        """From the one resident batch: pure, differentiable, vmappable."""
        return self._pass(parameters, [self.require_resident()], buffers or {})

    def require_resident(self) -> Any:
        """The one resident batch; raises `DataError` where there is none."""
        batch = self.resident()
        if batch is None:
            raise DataError(
                "the BatchNorm examples cannot be one batch: too many for the memory, or of "
                "different shapes; lower bn_rows, give another bn_loader, or use "
                "batchnorm='frozen'."
            )
        return batch

    def resident(self) -> Any | None:
        """All examples as one batch; None where a forward pass over them would not fit."""
        if not self._planned:
            batches = self.batches()
            need = self._bytes_per_example(batches[0]) * sum(map(count_examples, batches))
            if need <= SHARE * free_memory(self.template.device):
                self._single_batch = concatenate(batches)
            self._planned = True
        return self._single_batch

    def batches(self) -> list[Any]:
        """The examples, batch by batch."""
        if self._batches is None:
            self._batches = self._read()
        return self._batches

    def _read(self) -> list[Any]:
        source, most, data = self.source, self.most, self.data
        if source is None:
            source, most = data.loader, min(most, data.count or most)
            if isinstance(source, Iterator):
                raise DataError(
                    "the loader is an iterator, and BatchNorm statistics would use it up; give "
                    "a DataLoader or a list, or bn_loader=."
                )
        batches, seen = [], 0
        # a shuffled loader draws its order from the global generator: always the same examples, and
        # the caller's random state is restored
        with fork_torch_rng(0):
            for raw in source:
                batch: Any = data.task.parts(raw)
                size = count_examples(batch)
                if size == 0:
                    continue
                if is_sliceable(batch):
                    # the examples of other batches belong together, such as the nodes of a graph
                    batch = first_examples(batch, most - seen)
                seen += count_examples(batch)
                batches.append(move(batch, data.device, channels_last=data.channels_last))
                if seen >= most:
                    break
        if seen < 2:
            raise DataError(
                "BatchNorm statistics need at least two examples; give bn_loader= more."
            )
        self.template.require_replayable(batches[0].args, batches[0].kwargs)
        return batches

    def _pass(
        self, parameters: Mapping[str, Tensor], batches: Iterable[Any], buffers: Buffers
    ) -> Buffers:
        def forward(batch: Any) -> None:
            args, kwargs, _ = batch
            self.template(parameters, buffers, args, kwargs, mode="batchnorm")

        with self.template.lock:
            return bn.from_one_pass(self.template.layers, forward, batches)

    def _bytes_per_example(self, batch: Any) -> float:
        """Memory of a forward pass without gradients per example: four times the largest output."""
        sizes: list[int] = [0]

        def note(module: nn.Module, args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                sizes.append(output.nbytes)

        args, kwargs, _ = batch
        with ExitStack() as hooks, torch.no_grad():
            for module in self.template.module.modules():
                hooks.callback(module.register_forward_hook(note).remove)
            self.template({}, {}, args, kwargs)
        return 4 * max(sizes) / count_examples(batch)


def _names(template: Template, where: Where) -> tuple[str, ...]:
    """The buffers that fit, but for those of BatchNorm layers."""
    if where is None:
        return ()
    names = list(filter(name_filter(where, argument="reestimate"), template.buffers))
    if not names:
        raise ConfigError(
            f"reestimate: {where!r} fits no buffer of the model; it has "
            f"{join_names(list(template.buffers)) or 'none'}."
        )
    return tuple(name for name in names if name not in template.statistics)
