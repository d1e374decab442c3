"""The map between a model's named parameters and one flat vector."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.inner import inner
from lowland.core.names import (
    Where,
    clean,
    join_names,
    name_filter,
    named_buffers,
    named_parameters,
    named_state,
)
from lowland.errors import LayoutError, NonFiniteError, StoreError
from lowland.schema import require


@dataclass(frozen=True)
class Entry:
    """One parameter's place in the flat vector."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    offset: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class LayoutSpec(TypedDict):
    """A layout in a file."""

    parameters: list[tuple[str, list[int], str]]  # name, shape, dtype
    aliases: dict[str, str]


class ParamLayout:
    r"""Where each trainable parameter of a model lies in one flat vector \(w \in R^P\).

    Tied parameters are counted once, under the first of their names. Parameters with
    `requires_grad=False` belong to the model's structure, not to w. Wrappers' prefixes
    (`module.`, `_orig_mod.`) are left out of the names, so that weights travel between a model and
    its compiled or data-parallel form.

    Args:
        model: any module whose parameters have shapes (no uninitialised lazy ones).
        where: which parameters are part of w: a regular expression (`re.search`) or a predicate on
            names; None takes all.

    Attributes:
        size: P.
        dtype: of flat vectors: float64 where a parameter has it, else float32, whatever the model.
        fingerprint: a hash of names and shapes: equal for models that can exchange weights.
        buffer_names: the model's buffers; None: not known, as of a layout from a file.

    Raises:
        LayoutError: nothing to lay out, weights of another model (it names what differs), or
            parameters of which each process holds a part.

    >>> net = nn.Linear(2, 1)
    >>> layout = ParamLayout(net)
    >>> layout.size, layout.names
    (3, ('weight', 'bias'))
    >>> w = layout.flatten(net)
    >>> {name: tuple(view.shape) for name, view in layout.unflatten(w).items()}
    {'weight': (1, 2), 'bias': (1,)}
    """

    def __init__(self, model: nn.Module, *, where: Where = None) -> None:
        checks.module("model", model)
        included = name_filter(where)
        names: dict[int, str] = {}  # id of a parameter -> the name that it is kept under
        every: dict[int, list[str]] = {}  # id of a parameter -> all its names
        specs: list[tuple[str, tuple[int, ...], torch.dtype]] = []
        for raw, parameter in named_parameters(model).items():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise LayoutError(
                    f"{raw}: the parameter has no shape yet; pass one batch through the model "
                    "first."
                )
            if not parameter.requires_grad:
                continue
            require_unsharded(raw, parameter)
            every.setdefault(id(parameter), []).append(raw)
            if id(parameter) not in names and included(raw):
                if not parameter.dtype.is_floating_point:
                    raise LayoutError(
                        f"{raw}: expected real floating-point weights, got {parameter.dtype}; "
                        "leave the parameter out with where=."
                    )
                names[id(parameter)] = raw
                specs.append((raw, tuple(parameter.shape), parameter.dtype))
        if not specs:
            raise LayoutError(
                "no parameter to lay out: none requires gradients and fits where=; "
                "call model.requires_grad_(True) or widen where=."
            )
        aliases = {
            other: name for key, name in names.items() for other in every[key] if other != name
        }
        self._build(specs, aliases)
        self.buffer_names = frozenset(named_buffers(model))

    buffer_names: frozenset[str] | None

    def _build(
        self, specs: Iterable[tuple[str, tuple[int, ...], torch.dtype]], aliases: dict[str, str]
    ) -> None:
        entries = []
        offset = 0
        for name, shape, dtype in specs:
            entries.append(Entry(name, shape, dtype, offset))
            offset += math.prod(shape)
        self.entries: tuple[Entry, ...] = tuple(entries)
        self.buffer_names = None
        self.aliases: Mapping[str, str] = aliases
        self.size: int = offset
        self.names: tuple[str, ...] = tuple(entry.name for entry in entries)
        wide = any(entry.dtype == torch.float64 for entry in entries)
        self.dtype: torch.dtype = torch.float64 if wide else torch.float32
        text = ";".join(f"{entry.name}:{entry.shape}" for entry in entries)
        self.fingerprint: str = hashlib.sha256(text.encode()).hexdigest()[:16]
        self._sizes = [entry.size for entry in entries]

    # -- a layout without its model, for files ---------------------------------------------------

    def spec(self) -> dict[str, Any]:
        """Plain data that `from_spec` turns back into this layout."""
        parameters = [
            [entry.name, list(entry.shape), str(entry.dtype).removeprefix("torch.")]
            for entry in self.entries
        ]
        return {"parameters": parameters, "aliases": dict(self.aliases)}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, source: object = "the layout") -> ParamLayout:
        """The layout that `spec` describes; files carry it, so that they load without the model.

        Raises:
            StoreError: no such description; it names the `source`.

        >>> layout = ParamLayout(nn.Linear(2, 1))
        >>> ParamLayout.from_spec(layout.spec()).fingerprint == layout.fingerprint
        True
        """
        require(spec, LayoutSpec, source=source)
        layout = cls.__new__(cls)
        specs = []
        for name, shape, kind in spec["parameters"]:
            dtype = getattr(torch, kind, None)
            if not isinstance(dtype, torch.dtype) or min(shape, default=0) < 0:
                raise StoreError(
                    f"{source}: {name[:80]!r} cannot have the shape {tuple(shape)} and the dtype "
                    f"{kind[:80]!r}; name another file."
                )
            specs.append((name, tuple(shape), dtype))
        names, aliases = {name for name, *_ in specs}, dict(spec["aliases"])
        if not names or len(names) < len(specs) or not names.issuperset(aliases.values()):
            raise StoreError(
                f"{source}: a parameter stands twice in it, is an alias of none, or there is none; "
                "name another file."
            )
        if sum(math.prod(shape) for _, shape, _ in specs) >= 2**63:
            raise StoreError(f"{source}: more weights than can be; name another file.")
        layout._build(specs, aliases)
        return layout

    def require_same(self, other: ParamLayout, *, what: str = "the weights") -> None:
        """Raises `LayoutError`, naming what differs, unless `other` has the same fingerprint."""
        if self.fingerprint == other.fingerprint:
            return
        theirs = {entry.name: entry.shape for entry in other.entries}
        raise LayoutError(f"{what} come from another model: {self._difference(theirs)}.")

    # -- vector <-> parameters -------------------------------------------------------------------

    def segments(self, source: nn.Module | Mapping[str, Tensor]) -> Iterator[tuple[int, Tensor]]:
        """Yields (offset, values as a flat tensor) for each parameter, without copying."""
        tensors = named_parameters(source) if isinstance(source, nn.Module) else clean(source)
        by_name: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor):  # state dicts may hold other state
                require_unsharded(name, tensor)
                by_name.setdefault(self.aliases.get(name, name), tensor)
        shapes = {name: tuple(tensor.shape) for name, tensor in by_name.items()}
        if any(shapes.get(entry.name) != entry.shape for entry in self.entries):
            raise LayoutError(f"the weights come from another model: {self._difference(shapes)}.")
        for entry in self.entries:
            tensor = by_name[entry.name]
            if not tensor.dtype.is_floating_point:  # quantised, or a real part alone
                raise LayoutError(
                    f"{entry.name}: expected real floating-point weights, got {tensor.dtype}; "
                    "dequantise the model first, or leave the parameter out with where=."
                )
            yield entry.offset, tensor.detach().reshape(-1)

    def state_of(self, source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of a model or a state dict that are not laid out: its buffers, and its
        frozen parameters."""
        if isinstance(source, nn.Module):
            tensors = named_state(source)
        else:
            tensors = clean({n: t for n, t in source.items() if isinstance(t, Tensor)})
        laid_out = {*self.names, *self.aliases}
        return {name: tensor.detach() for name, tensor in tensors.items() if name not in laid_out}

    def flatten(self, source: nn.Module | Mapping[str, Tensor]) -> Tensor:
        """The flat vector (P,) of a model or of a state dict: a copy, on the source's device."""
        pieces = [values.to(self.dtype) for _, values in self.segments(source)]
        return torch.cat(pieces)

    def unflatten(self, w: Tensor) -> dict[str, Tensor]:  # w: (..., P)
        """Views of `w` by name, each (..., *shape), in w's dtype; gradients flow through them."""
        self.check(w)
        # one split, not a slice each: its backward is a single concatenation of P values
        pieces = torch.split(w, self._sizes, dim=-1)
        lead = w.shape[:-1]
        return {
            entry.name: piece.reshape(lead + entry.shape)
            for entry, piece in zip(self.entries, pieces, strict=True)
        }

    def materialise(self, w: Tensor) -> dict[str, Tensor]:  # w: (..., P)
        """Tensors by name in each parameter's own dtype, as the model computes with them."""
        views = self.unflatten(w)
        if all(entry.dtype == w.dtype for entry in self.entries):
            return views
        return {entry.name: views[entry.name].to(entry.dtype) for entry in self.entries}

    @torch.no_grad()
    def load_(self, model: nn.Module, w: Tensor) -> nn.Module:  # w: (P,)
        """Writes `w` into the parameters of `model`, in place, and returns it.

        BatchNorm statistics are not part of w: see `LossSurface.refresh`.
        """
        self.check(w, flat=True)
        for offset, target in zip(
            (entry.offset for entry in self.entries), self.tensors(model), strict=True
        ):
            target.copy_(w[offset : offset + target.numel()].view(target.shape))
        return model

    def tensors(self, model: nn.Module) -> list[Tensor]:
        """The parameters of a model in the order of the flat vector, themselves and not copies."""
        for _ in self.segments(model):  # raises where the model is another one
            pass
        by_name: dict[str, Tensor] = {}
        for name, tensor in named_parameters(model).items():
            by_name.setdefault(self.aliases.get(name, name), tensor)
        return [by_name[entry.name] for entry in self.entries]

    # -- algebra ---------------------------------------------------------------------------------

    def inner(self, a: Tensor, b: Tensor) -> Tensor:  # a: (..., P), b: (..., P)
        """Inner products in float64: a scalar for two vectors, a Gram matrix (K, M) for two stacks.

        All inner products of weight vectors go through here, so that sharded parameters need one
        place that communicates. Values are widened piece by piece: no float64 copy of the stacks.

        >>> layout = ParamLayout(nn.Linear(2, 1))
        >>> layout.inner(torch.ones(2, 3), torch.tensor([1.0, 2.0, 3.0]))
        tensor([6., 6.], dtype=torch.float64)
        """
        self.check(a)
        self.check(b)
        return inner(a, b)

    # -- the door --------------------------------------------------------------------------------

    def check(self, w: Tensor, *, flat: bool = False) -> None:
        """Raises `LayoutError` unless `w` is (..., P), or (P,) where `flat` is set."""
        expected = f"({self.size},)" if flat else f"(..., {self.size})"
        if not isinstance(w, Tensor):
            raise LayoutError(f"weights: expected a tensor {expected}, got {type(w).__name__}.")
        if not w.dtype.is_floating_point:
            raise LayoutError(f"weights: expected floating-point numbers, got {w.dtype}.")
        if w.ndim == 0 or w.shape[-1] != self.size or (flat and w.ndim != 1):
            raise LayoutError(
                f"weights: expected {expected}, got {tuple(w.shape)}: they come from another model "
                "or from another where=."
            )

    def require_finite(self, w: Tensor, *, what: str = "the weights") -> None:  # w: (P,)
        """Raises `NonFiniteError`, naming the parameters, where `w` holds NaN or infinity."""
        # a sum is one read of w and allocates nothing; only a suspicious one is looked into
        if math.isfinite(w.sum().item()) or bool(torch.isfinite(w).all()):
            return
        bad = [n for n, view in self.unflatten(w).items() if not bool(torch.isfinite(view).all())]
        raise NonFiniteError(
            f"{what} hold NaN or infinite values in {join_names(bad)}; lower the learning rate, or "
            "skip this iterate."
        )

    def _difference(self, shapes: Mapping[str, tuple[int, ...]]) -> str:
        """What a model with these named shapes has otherwise than this layout."""
        ours = {entry.name: entry.shape for entry in self.entries}
        parts = []
        missing = [name for name in ours if name not in shapes]
        extra = [name for name in shapes if name not in ours]
        changed = [
            f"{name} expected {ours[name]}, got {shapes[name]}"
            for name in ours
            if name in shapes and shapes[name] != ours[name]
        ]
        if missing:
            parts.append(f"it lacks {join_names(missing)}")
        if missing and extra:
            parts.append(f"it has {join_names(extra)} instead")
        if extra and not missing and not changed:
            parts.append(f"it also has {join_names(extra)}")
        if changed:
            parts.append(f"shapes differ: {join_names(changed)}")
        return "; ".join(parts) or "the order of the parameters differs"

    def __repr__(self) -> str:
        return f"ParamLayout(size={self.size}, parameters={len(self.entries)})"


def require_unsharded(name: str, tensor: Tensor) -> None:
    """Raises `LayoutError` for a DTensor, of which each process may hold another part."""
    if hasattr(tensor, "placements"):  # not its class, which takes long to import
        raise LayoutError(
            f"{name}: the parameter is sharded (a DTensor, as FSDP2 and tensor parallelism make "
            "them), and lowland takes whole tensors. Make the layout before fully_shard(model), "
            "and update with whole weights on rank 0: get_model_state_dict(model, "
            "options=StateDictOptions(full_state_dict=True, cpu_offload=True)) of "
            "torch.distributed.checkpoint.state_dict, which every rank must call."
        )
