r"""The contract: a shape in weight space is linear in a few anchors, \(w(t) = c(t)\,A\).

Line, chain, Bezier curve, plane, subspace, simplex: they differ in one short function, the
coefficients c(t) of the anchors. To add one, subclass `Shape` (or `Curve`, `Affine`) and write
`coefficients` and `sample_coords`; weights, derivatives, projections, files and training follow.
Attributes that its files are to hold are annotated in the class: a file with others is refused.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Self, TypedDict, get_type_hints

import torch
from torch import Tensor

from lowland import checks
from lowland.core.buffers import Buffers, interpolate_buffers
from lowland.core.inner import inner
from lowland.core.point import Point
from lowland.errors import ConfigError, LayoutError, LowlandError, StoreError
from lowland.files import PathLike
from lowland.records import GrowthResult, TrainingLog
from lowland.schema import mismatch_of_fields
from lowland.tensor_files import load_tree, restoring, save_tree

KIND = "shape"


class Stored(TypedDict):
    """A shape in a file; its body has what the shape's class annotates."""

    shape: str
    body: dict[str, Any]


_SHAPES: dict[str, type[Shape]] = {}


class Shape(ABC):
    r"""\(w(t) = \sum_a c_a(t)\, A_a\): weights (P,) as a function of k coordinates.

    Since w is linear in the anchors,
    \(\partial L / \partial A_a = c_a(t)\, \partial L / \partial w\): any model trains on any shape
    at the cost of its plain gradient and a few sums of vectors.

    Attributes:
        anchors: (A, P). free: which of them `fit` may move. k: how many coordinates.
        size: P. buffers: those of the points that it was made of, (A, ...) by name, or (1, ...)
            where all have the same; None: they came without. Between points they are interpolated,
            see `interpolate_buffers`. log: how the shape was trained, where `fit`, `spro` or
            `connect_modes` made it; files do not hold it.
    """

    anchors: Tensor
    free: tuple[bool, ...]
    k: int
    buffers: Buffers | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _SHAPES[cls.__name__] = cls

    def __init__(self, anchors: Tensor, *, free: Iterable[bool]) -> None:
        self.anchors = anchors
        self.free = tuple(bool(one) for one in free)
        self.log: TrainingLog | GrowthResult | None = None
        if len(self.free) != len(anchors):
            raise ConfigError(f"free: expected {len(anchors)} of True or False, got {self.free}.")

    @property
    def size(self) -> int:
        """P, the number of weights."""
        return self.anchors.shape[-1]

    @property
    def device(self) -> torch.device:
        """Where the anchors are."""
        return self.anchors.device

    # -- what a shape is -------------------------------------------------------------------------

    @abstractmethod
    def coefficients(self, coords: Tensor) -> Tensor:  # (n, k) -> (n, A)
        """The anchors' coefficients, row by row, differentiable in the coordinates."""

    @abstractmethod
    def sample_coords(self, n: int, *, generator: torch.Generator | None = None) -> Tensor:
        """(n, k) coordinates from the shape's own distribution, float64.

        Each is distributed as one alone; together they are stratified where the shape can.
        """

    @property
    def measure_depends_on_anchors(self) -> bool:
        """Whether the shape's own distribution moves with its anchors."""
        return False

    def density(self, coords: Tensor, gram: Tensor) -> Tensor:  # (S, k), (A, A) -> (S,)
        """The density of the shape's own distribution through anchors with these inner products,
        up to a factor that depends on coordinates alone: differentiable in them."""
        return coords.new_ones(len(coords))

    def log_volume(self, gram: Tensor | None = None) -> Tensor:
        """The logarithm of the volume, for shapes that have one."""
        raise LowlandError(
            f"a {type(self).__name__} has no volume; simplexes and complexes of them do."
        )

    # -- what follows ----------------------------------------------------------------------------

    def __call__(self, coords: Any) -> Tensor:  # (n, k) -> (n, P)
        """Weights at coordinates: (n, k) gives (n, P), one point (k,), or a number, gives (P,).

        For curves (n,) is n points. Coordinates out of the shape's range extend it.
        """
        coords = torch.as_tensor(coords)
        rows = self._rows(coords)
        one = coords.ndim == 0 or (coords.ndim == 1 and self.k > 1)
        w = linear_combination(self.coefficients(rows), self.anchors)
        return w[0] if one else w

    def point(self, coords: Any) -> Point:
        """The weights (P,) at one point's coordinates, with the buffers interpolated to it."""
        row = self._rows(coords)[:1]
        buffers = self.buffers_at(row)
        one = None if buffers is None else {name: value[0] for name, value in buffers.items()}
        return Point(self(row)[0], one)

    def points(self, coords: Any) -> Iterator[Tensor]:
        """Weights (P,) at coordinates (n, k), one by one: nothing holds them all. `point` gives
        them with their buffers."""
        for row in self._rows(coords):
            yield self(row[None])[0]

    def buffers_at(self, coords: Any) -> Buffers | None:  # (n, k) -> {name: (n, ...)}
        """Buffers at coordinates; None where the anchors came without."""
        if self.buffers is None:
            return None
        return interpolate_buffers(self.anchor_shares(self._rows(coords)), self.buffers)

    def anchor(self, i: int) -> Point:
        """The i-th anchor, where anchors are points."""
        return Point(self.anchors[i], self.anchor_buffers(i))

    def anchor_buffers(self, i: int) -> Buffers | None:
        """The buffers of the i-th point that the shape was made of."""
        if self.buffers is None:
            return None
        return {name: b[i if len(b) > 1 else 0] for name, b in self.buffers.items()}

    def anchor_shares(self, coords: Tensor) -> Tensor:  # (n, k) -> (n, A)
        """The coefficients of the points that the shape was made of."""
        return self.coefficients(coords)

    def slopes(self, coords: Any) -> Tensor:  # (n, k) -> (n, k, A)
        """The derivative of the coefficients by each coordinate."""
        rows = self._rows(coords)
        parts = []
        for i in range(self.k):
            along = rows.new_zeros(rows.shape)
            along[:, i] = 1  # rows do not depend on one another: one tangent for all
            parts.append(torch.func.jvp(self.coefficients, (rows,), (along,))[1])
        return torch.stack(parts, dim=1)

    def derivative(self, coords: Any) -> Tensor:  # (n, k) -> (n, k, P)
        r"""\(\partial w / \partial t\) at coordinates (n, k): (n, k, P)."""
        slopes = self.slopes(coords)
        return linear_combination(slopes.flatten(0, 1), self.anchors).reshape(
            *slopes.shape[:2], self.size
        )

    def length(self) -> float:
        """The length of a curve; other shapes have none."""
        raise LowlandError(f"a {type(self).__name__} has no length; curves do.")

    def coords_of(self, w: Tensor | Point) -> tuple[Tensor, Tensor]:
        """The coordinates (k,) of the point next to w, and the distance of w from that point.

        (n, P) gives (n, k) and (n,). Both are float64; the residual is zero for weights on the
        shape.
        """
        w = self._vectors(w)
        if not len(w):
            raise LayoutError("weights: expected (P,) or at least one of (n, P), got none.")
        # one at a time: (n, P) of a trajectory's iterates is not held twice
        nearest = [self._nearest(row) for row in w.reshape(-1, self.size)]
        coords, far = (torch.stack(parts) for parts in zip(*nearest, strict=True))
        return (coords[0], far[0]) if w.ndim == 1 else (coords, far)

    @abstractmethod
    def _nearest(self, w: Tensor) -> tuple[Tensor, Tensor]:  # (P,) -> (k,), ()
        """`coords_of` one weight vector."""

    def gram(self) -> Tensor:
        """Inner products of the anchors, (A, A) float64."""
        return inner(self.anchors, self.anchors)

    # -- copies and files ------------------------------------------------------------------------

    def with_anchors(self, anchors: Tensor) -> Self:
        """The same shape through other anchors (A, P)."""
        if anchors.shape != self.anchors.shape:
            raise LayoutError(
                f"anchors: expected {tuple(self.anchors.shape)}, got {tuple(anchors.shape)}."
            )
        copy = type(self).__new__(type(self))
        vars(copy).update(vars(self) | {"anchors": anchors, "log": None})
        return copy

    def to(self, device: torch.device | str) -> Self:
        """The same shape on another device."""
        device = checks.device(device, meta=True)
        copy = self.with_anchors(self.anchors)
        tensors: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)
        }
        if self.buffers is not None:
            tensors["buffers"] = {name: b.to(device) for name, b in self.buffers.items()}
        vars(copy).update(tensors | {"log": self.log})
        return copy

    def save(self, path: PathLike) -> None:
        """Writes the shape as one safetensors file, atomically."""
        # without what is computed from the rest
        body = {k: v for k, v in vars(self).items() if k != "log" and not k.startswith("_")}
        save_tree(path, {"shape": type(self).__name__, "body": body}, kind=KIND)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads a shape of this class, or of any below it: `Shape.load` reads all."""
        tree = load_tree(path, kind=KIND, form=Stored)
        kind = _SHAPES.get(tree["shape"])
        if kind is None or not issubclass(kind, cls):
            raise StoreError(f"{path}: expected a {cls.__name__}, found a {tree['shape'][:60]}.")
        body = tree["body"]
        wrong = mismatch_of_fields(body, get_type_hints(kind), ("anchors", "free"))
        if wrong:
            raise StoreError(f"{path}: {wrong}; name another file.")
        anchors = body["anchors"]
        count = len(anchors) if anchors.ndim == 2 else 0
        vertices = {vertex for cell in body.get("cells", ()) for vertex in cell}
        if not count or not anchors.is_floating_point() or not vertices <= set(range(count)):
            raise StoreError(
                f"{path}: anchors: expected floating-point weights (A, P), and cells of these, got "
                f"{tuple(anchors.shape)} {anchors.dtype}; name another file."
            )
        counts = {len(b) if b.ndim else 0 for b in (body.get("buffers") or {}).values()}
        if not counts <= {1, count}:
            raise StoreError(
                f"{path}: buffers: expected 1 or {count} of each, got {sorted(counts)}; name "
                "another file."
            )
        shape = kind.__new__(kind)
        with restoring(path, kind.__name__):
            Shape.__init__(shape, anchors, free=body["free"])
            vars(shape).update(body | {"log": None})
        return shape

    def _vectors(self, w: Tensor | Point) -> Tensor:  # (P,) or (n, P)
        """Weights as the anchors are; raises `LayoutError` for those of another model."""
        w = w.weights if isinstance(w, Point) else w
        if w.ndim not in (1, 2) or w.shape[-1] != self.size:
            raise LayoutError(
                f"weights: expected ({self.size},) or (n, {self.size}), got {tuple(w.shape)}: they "
                "come from another model."
            )
        return w.to(self.anchors)

    def _rows(self, coords: Any) -> Tensor:
        """Coordinates as (n, k) in float64 on the anchors' device."""
        rows: Tensor = torch.as_tensor(coords).to(self.device, torch.float64)
        if rows.ndim == 0 and self.k == 1:
            rows = rows.reshape(1, 1)
        elif rows.ndim == 1:
            rows = rows[:, None] if self.k == 1 else rows[None]
        if rows.ndim != 2 or rows.shape[1] != self.k:
            raise ConfigError(f"coords: expected (n, {self.k}), got {tuple(rows.shape)}.")
        return rows.contiguous()

    def __repr__(self) -> str:
        moving = sum(self.free)
        return f"{type(self).__name__}(anchors={len(self.anchors)}, free={moving}, P={self.size})"


def linear_combination(coefficients: Tensor, anchors: Tensor) -> Tensor:  # (n, A), (A, P) -> (n, P)
    """Their product in the anchors' own precision, whatever matrix products may be rounded to.

    Under `torch.set_float32_matmul_precision("high")` a product on a GPU keeps ten bits of each
    weight, and under "medium" one on a CPU seven: fit for activations, not for weights.
    """
    c = coefficients.to(anchors.dtype)
    if anchors.dtype == torch.float64 or not rounds_matmul(anchors.device):
        return c @ anchors
    w = c[:, :1] * anchors[0]
    for a in range(1, len(anchors)):
        w = torch.addcmul(w, c[:, a : a + 1], anchors[a])
    return w


def rounds_matmul(device: torch.device) -> bool:
    """Whether float32 matrix products on the device are allowed to be rounded."""
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    settings = (backend.matmul.fp32_precision, torch.backends.fp32_precision)  # type: ignore[attr-defined]
    return next((word for word in settings if word != "none"), "ieee") != "ieee"


def stratified(n: int, *, generator: torch.Generator | None) -> Tensor:
    """n uniform numbers in [0, 1), one in each of n equal parts, in random order: (n,) float64.

    >>> sorted((stratified(4, generator=None) * 4).int().tolist())
    [0, 1, 2, 3]
    """
    n = checks.whole("n", n, least=1)
    order = torch.randperm(n, generator=generator)
    return (order + torch.rand(n, generator=generator, dtype=torch.float64)) / n
