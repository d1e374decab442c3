"""Running moments of SGD iterates: what they share.

All keep float32 means (float64 for float64 models) whatever the model's dtype: a running average in
bfloat16 stops moving once an iterate's share falls below its last bit. One in float32 does so too,
later, so that once the share is small, what each update loses to rounding is carried to the next
(Kahan 1965).
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.buffers import BufferMean, Buffers, sample_of
from lowland.core.layout import ParamLayout
from lowland.core.point import EstimatedPoint, Point
from lowland.core.surface import LossSurface
from lowland.errors import ConfigError, LayoutError, LowlandError, StoreError
from lowland.files import PathLike
from lowland.posteriors import PointMass, Posterior
from lowland.tensor_files import load_tree, save_tree
from lowland.trajectory.moments_files import arranged, require_state

# values worked on at a time: few enough that the operations on them stay in cache, so that an
# update moves each vector through memory once, and enough that a call costs little beside them
_PART = 1 << 18
_SMALL = 1 << 15  # values: what an operation on fewer takes is the calling of it
# the share of an iterate below which rounding is made up for, at half as much time again: n updates
# of larger ones lose at most n / 4 units in the last place
_SHARE = 1 / 64


class Moments:
    """Base of the averages: the door for iterates, and files."""

    _state_names: ClassVar[tuple[str, ...]] = ("_mean",)  # tensors that make up the state

    def __init__(self, layout: ParamLayout, *, device: torch.device | str | None = None) -> None:
        self.layout = layout
        self.device = checks.device("cpu" if device is None else device)
        self.count = 0
        self._mean = self._zeros()
        self._residual: Tensor | None = None  # the exact mean less the one in float32
        self._buffers = BufferMean()
        self._statistics: Buffers | None = None  # of the mean: see `refresh`
        self.frozen: dict[str, list[float]] = {}  # a few values of each frozen parameter

    def __repr__(self) -> str:
        settings = [f"{name}={value}" for name, value in self._settings().items()]
        content = f"{self.count} iterates of {self.layout.size:,} weights"
        return f"{type(self).__name__}({', '.join([content, *settings])})"

    def _zeros(self) -> Tensor:
        return torch.zeros(self.layout.size, dtype=self.layout.dtype, device=self.device)

    @torch.no_grad()
    def update(self, source: nn.Module | Mapping[str, Tensor] | Point | Tensor) -> None:
        """Takes an iterate, read once: a model or a state dict, whose buffers come along,
        a `Point`, or a flat (P,) tensor, of which no buffers are known.

        Raises:
            LayoutError: weights of another model. NonFiniteError: NaN or infinite weights; the
                moments stay what they were.
        """
        state: Mapping[str, Tensor] = {}
        if isinstance(source, Point):
            state, source = source.buffers or {}, source.weights
        elif isinstance(source, nn.Module | Mapping):
            state = self.layout.state_of(source)
        if isinstance(source, Tensor):
            self.layout.check(source, flat=True)
            pieces = [source.detach()]
        elif isinstance(source, nn.Module | Mapping):
            pieces = [values for _, values in self.layout.segments(source)]
        else:
            raise LayoutError(
                f"expected a model, a state dict or a tensor, got {type(source).__name__}."
            )
        pieces = _merge_small(pieces)
        self._require_finite(pieces)
        self.count += 1
        self._absorb(pieces)
        self._absorb_state(state)

    def _require_finite(self, pieces: list[Tensor]) -> None:
        # one read; a sum that is not finite may still be an overflow, so it is looked into
        dtype = self.layout.dtype
        sums = [values.sum(dtype=dtype).to(self.device) for values in pieces]
        if not math.isfinite(torch.stack(sums).sum().item()):
            flat = torch.cat([values.to(self.device, dtype) for values in pieces])
            self.layout.require_finite(
                flat, what=f"iterate {self.count + 1} was not taken: its weights"
            )

    def _absorb_state(self, state: Mapping[str, Tensor]) -> None:
        """Takes the buffers along, and remembers what frozen parameters were."""
        names = self.layout.buffer_names
        buffers = {n: t for n, t in state.items() if names is None or n in names}
        self._buffers.update(buffers, self._buffer_share())
        self._statistics = None
        self.frozen = {n: sample_of(t) for n, t in state.items() if n not in buffers}

    def _share(self) -> float:
        """The share of the newest iterate in the mean."""
        return 1 / self.count

    def _buffer_share(self) -> float:
        """The share of its floating-point buffers in those of the mean."""
        return self._share()

    def _absorb(self, pieces: list[Tensor]) -> None:
        """Updates the moments with the checked values of all parameters, in the layout's order."""
        share = self._share()
        for w, mean, residual in self._parts(pieces, self._mean, self._residual_for(share)):
            move(mean, w, share, residual, torch.empty_like(mean))

    def _parts(self, pieces: list[Tensor], *vectors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """The iterate in cache-sized parts, in the moments' dtype and place, each with the views
        of the (P,) vectors that belong to it; None stays None."""
        # on a GPU a launch costs more than memory does
        size = _PART if self.device.type == "cpu" else self.layout.size
        parts = [part for values in pieces for part in values.split(size)]
        lengths = [len(part) for part in parts]
        none = [None] * len(parts)
        views = [none if v is None else v.split(lengths) for v in vectors]
        # backwards: the look for NaN has just read the last ones, and some are still in cache
        for part, *own in reversed(list(zip(parts, *views, strict=True))):
            yield part.to(self.device, self.layout.dtype), *own

    def _residual_for(self, share: float) -> Tensor | None:
        """What an update with this share of the iterate needs beside the mean."""
        if self._residual is None and share < _SHARE:
            self._residual = self._zeros()
        return self._residual

    @property
    def mean(self) -> Tensor:
        """The average so far, (P,): a view."""
        self._require(1)
        return self._mean

    @property
    def buffers(self) -> Buffers | None:
        """The buffers that belong to the mean, by name; None where iterates came without.

        Floating-point ones are averaged, but for those of an EMA, which begins with the early
        iterates: they are the last one's, as integers and booleans are. After `refresh` those that
        depend on the weights are the mean's own.
        """
        return {**self._buffers.values(), **(self._statistics or {})} or None

    @property
    def statistics(self) -> Buffers | None:
        """Those of the buffers that `refresh` estimated for the mean."""
        return self._statistics

    @property
    def point(self) -> Point:
        """The mean with its buffers: what to build curves and planes through."""
        kind = Point if self._statistics is None else EstimatedPoint
        return kind(self.mean, self.buffers)

    def buffers_from(self, point: Point) -> None:
        """Takes the buffers of a network that has been averaged, in place of those so far."""
        self._buffers = BufferMean()
        self._buffers.update(point.buffers or {}, 1.0)

    def refresh(self, surface: LossSurface) -> Self:
        """Estimates the statistics that belong to the mean, such as BatchNorm's, and keeps them.

        They are saved along, so that the mean can be served where no training example is. The next
        iterate makes them void. Statistics of draws: see `Posterior.freeze`.
        """
        self._require(1)
        self._statistics = surface.refresh(Point(self.mean, self.buffers))
        return self

    def _require(self, least: int) -> None:
        if self.count < least:
            advice = (
                "collect more: start earlier, or more often"
                if self.count
                else "call update(model) in the training loop; a callback that collected none says "
                "why at the end of the fit"
            )
            raise LowlandError(
                f"{type(self).__name__} has {self.count} of the {least} iterates it needs; "
                f"{advice}."
            )

    def posterior(self) -> Posterior:
        """The posterior that these moments describe: all mass on the mean, unless they are more
        than a mean."""
        return PointMass(self.point).remember(self.frozen)

    def split(self, layout: ParamLayout) -> list[Self]:
        """The moments of each of M networks whose weights lie in these one after the other: views.

        Every operation on them acts on each weight alone, so that the moments of (M, P) weights
        are those of M vectors; see `Members`. `layout` is that of one network.
        """
        many, rest = divmod(self.layout.size, layout.size)
        if rest:
            raise LayoutError(
                f"split: expected weights of networks of {layout.size}, got {self.layout.size}."
            )
        return [
            self._part_of(layout, slice(m * layout.size, (m + 1) * layout.size))
            for m in range(many)
        ]

    def _part_of(self, layout: ParamLayout, part: slice) -> Self:
        one = copy.copy(self)
        one.layout = layout
        one._buffers, one._statistics = BufferMean(), None  # see `Members.split`
        for name, vector in self._vectors().items():
            setattr(one, name, vector[part])
        return one

    # -- state -----------------------------------------------------------------------------------

    def _vectors(self) -> dict[str, Tensor]:
        """The (P,) vectors that make up the state, by name."""
        names = self._state_names if self._residual is None else (*self._state_names, "_residual")
        return {name: getattr(self, name) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue, tensors as views."""
        state: dict[str, Any] = {"layout": self.layout.spec(), "count": self.count}
        state |= {"_buffers": self._buffers.state_dict(), "_statistics": self._statistics}
        state |= {"_frozen": self.frozen}
        return state | self._settings() | self._vectors()

    def load_state_dict(self, state: Mapping[str, Any], *, mapped: bool = False) -> None:
        """Continues from a state of the same model and settings; `mapped`: see `load`."""
        theirs = ParamLayout.from_spec(state["layout"])
        self.layout.require_same(theirs, what=f"the {type(self).__name__} state's weights")
        for name, value in self._settings().items():
            if name in state and state[name] != value:
                raise ConfigError(
                    f"{type(self).__name__}: the state has {name}={state[name]}, this one {value}; "
                    "build it with the same settings."
                )
        self.count = state["count"]
        self._buffers.load_state_dict(state.get("_buffers", {}))
        self._statistics = state.get("_statistics")
        self.frozen = state.get("_frozen", {})
        self._residual = self._zeros() if "_residual" in state else None
        for name, vector in self._vectors().items():
            vector.copy_(state[name])

    def _settings(self) -> dict[str, Any]:
        """Plain constructor arguments, by name."""
        return {}

    def save(self, path: PathLike) -> Path:
        """Writes a safetensors file, atomically; no pickle."""
        save_tree(path, self.state_dict(), kind=type(self).__name__)
        return Path(path)

    @classmethod
    def load(
        cls, path: PathLike, *, layout: ParamLayout | None = None, mapped: bool = False
    ) -> Self:
        """Reads what `save` wrote; the model is not needed.

        Args:
            layout: of the model that the moments are for: they are put in its order, since a file
                made from checkpoints alone has the order of their names. None: as in the file.
            mapped: leave SWAG's deviations in the file instead of memory: for moments that are not
                updated any more.

        Raises:
            StoreError: a damaged or foreign file. LayoutError: moments of another model.
        """
        state = load_tree(path, kind=cls.__name__, form=dict[str, Any])
        names = {"layout", "count", *cls._state_names}
        settings = {k: v for k, v in state.items() if k not in names and not k.startswith("_")}
        arguments = inspect.signature(cls).parameters.keys() - {"layout", "device", "path"}
        if unknown := sorted(map(str, settings.keys() - arguments)):  # a path would be written to
            raise StoreError(
                f"{path}: unknown field {unknown[0]!r:.80}, as of another version of lowland; name "
                "another file."
            )
        try:
            theirs = ParamLayout.from_spec(state["layout"], source=path)
            require_state(state, cls._state_names, theirs, path)
            if layout is not None and layout.fingerprint != theirs.fingerprint:
                state = arranged(state, theirs, layout, path)
            loaded = cls(theirs if layout is None else layout, **settings)
            loaded.load_state_dict(state, mapped=mapped)
        except (ConfigError, KeyError, TypeError, RuntimeError) as error:
            raise StoreError(f"{path}: not a {cls.__name__} that can be read ({error}).") from error
        return loaded


def _merge_small(pieces: list[Tensor]) -> list[Tensor]:
    """The same values, with small neighbours concatenated."""
    merged: list[Tensor] = []
    kind = lambda piece: (len(piece) < _SMALL, piece.dtype, piece.device)  # noqa: E731
    for (small, *_), group in groupby(pieces, kind):
        run = list(group)
        merged += [torch.cat(run)] if small else run
    return merged


def move(mean: Tensor, w: Tensor, share: float, residual: Tensor | None, scratch: Tensor) -> None:
    r"""\(m \leftarrow m + s\,(w - m)\), in place; `scratch` is written over.

    With a residual r, m + r is what moves: \(r \leftarrow r + s\,(w - m - r)\), then m takes of r
    what it can hold.

    >>> mean, residual, share = torch.ones(1), torch.zeros(1), 2.0**-30
    >>> for _ in range(2**10):
    ...     move(mean, torch.tensor([2.0]), share, residual, torch.empty(1))
    >>> (mean - 1) * 2**20, torch.ones(1).lerp(torch.tensor([2.0]), share) - 1
    (tensor([1.]), tensor([0.]))
    """
    if residual is None:
        mean.lerp_(w, share)
        return
    residual.lerp_(torch.sub(w, mean, out=scratch), share)
    torch.add(mean, residual, out=scratch)
    residual.add_(mean.sub_(scratch))  # exact: the two means are neighbours
    mean.copy_(scratch)
