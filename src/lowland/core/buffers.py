r"""Buffers that belong to weights, and what an average of weights has in their place.

A buffer is state that is not trained. For an average of iterates, or a point between anchors:

- statistics that a layer estimates from data (BatchNorm, tracked InstanceNorm, buffers named by
  `reestimate=`) are estimated anew, see `batchnorm` and `statistics`;
- the vectors of spectral norm follow from the weights, see `spectral`;
- other floating-point buffers are averaged with the weights' own coefficients: a constant stays
  what it is bit by bit, infinities included; an EMA takes those of the last iterate;
- integers and booleans, counters and masks, are those of the last iterate or nearest anchor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from lowland.core.names import named_buffers, named_state

Buffers = dict[str, Tensor]
_SAMPLE = 16  # values of a frozen parameter that are compared


def buffers_of(model: nn.Module) -> Buffers:
    """Copies of a model's buffers by name, without wrappers' prefixes.

    >>> sorted(buffers_of(nn.BatchNorm1d(1)))
    ['num_batches_tracked', 'running_mean', 'running_var']
    """
    return {name: buffer.detach().clone() for name, buffer in named_buffers(model).items()}


@torch.no_grad()
def load_buffers(model: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Writes buffers, and the frozen parameters that travel with them, into a model, wrapped or
    not: also buffers that a state dict leaves out.

    >>> layer = nn.BatchNorm1d(1)
    >>> load_buffers(layer, {"running_mean": torch.ones(1)})
    >>> layer.running_mean
    tensor([1.])
    """
    for name, tensor in named_state(model).items():
        if name in buffers:
            tensor.copy_(buffers[name])


def sample_of(tensor: Tensor) -> list[float]:
    """A few of a tensor's values, evenly spread: enough to tell two trained tensors apart.

    >>> sample_of(torch.arange(6.0))
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    flat = tensor.detach().reshape(-1)
    step = max(flat.numel() // _SAMPLE, 1)
    return [float(value) for value in flat[::step][:_SAMPLE].double().tolist()]


class BufferMean:
    r"""The running mean \(m \leftarrow m + a\,(b - m)\) of buffers, in float64.

    Integers and booleans are the last ones.

    >>> mean = BufferMean()
    >>> mean.update({"mu": torch.tensor(1.0), "steps": torch.tensor(1)}, 1.0)
    >>> mean.update({"mu": torch.tensor(2.0), "steps": torch.tensor(2)}, 0.5)
    >>> mean.values()
    {'mu': tensor(1.5000), 'steps': tensor(2)}
    """

    def __init__(self) -> None:
        self._means: Buffers = {}
        self._dtypes: dict[str, torch.dtype] = {}

    @torch.no_grad()
    def update(self, buffers: Mapping[str, Tensor], share: float) -> None:
        """Takes an iterate's buffers with the share that its weights have in their average."""
        for name, value in buffers.items():
            self._dtypes[name] = value.dtype
            mean = self._means.get(name)
            if not value.is_floating_point():
                self._means[name] = value.detach().clone()
            elif share == 1 or mean is None or mean.shape != value.shape:
                self._means[name] = value.detach().to(torch.float64, copy=True)
            else:
                new = value.detach().to(mean)
                # equal ones stay: the difference of two infinities is no number
                self._means[name] = torch.where(new == mean, mean, mean.lerp(new, share))

    def values(self) -> Buffers:
        """The means in the buffers' own dtypes, by name."""
        return {name: mean.to(self._dtypes[name]) for name, mean in self._means.items()}

    def __bool__(self) -> bool:
        return bool(self._means)

    def state_dict(self) -> dict[str, Tensor]:
        """The means by name, a dtype's name and a colon before each."""
        short = {name: str(dtype).removeprefix("torch.") for name, dtype in self._dtypes.items()}
        return {f"{short[name]}:{name}": mean for name, mean in self._means.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a state."""
        self._means, self._dtypes = {}, {}
        for key, mean in state.items():
            dtype, _, name = key.partition(":")
            self._means[name], self._dtypes[name] = mean.clone(), getattr(torch, dtype)


def stack_buffers(sets: Iterable[Mapping[str, Tensor] | None]) -> Buffers | None:
    """The buffers of A anchors as (A, ...) by name, or (1, ...) where all are equal.

    An anchor with None has the buffers of the first that has any. None: no anchor has any.
    """
    sets = list(sets)
    present = [one for one in sets if one]
    if not present:
        return None
    first = present[0]
    names = [name for name in first if all(name in one for one in present)]
    return {name: _stacked([(one or first)[name] for one in sets]) for name in names}


def restack_buffers(shares: Tensor, stacked: Mapping[str, Tensor]) -> Buffers:
    """The buffers of new anchors that are mixtures of the old ones by `shares` (A', A)."""
    mixed = interpolate_buffers(shares, stacked)
    return {name: old if len(old) == 1 else mixed[name] for name, old in stacked.items()}


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    first = tensors[0].detach()
    rest = [t.detach().to(first.device) for t in tensors[1:]]
    if all(torch.equal(first, other) for other in rest):
        return first[None].clone()
    return torch.stack([first, *rest])


@torch.no_grad()
def interpolate_buffers(coefficients: Tensor, stacked: Mapping[str, Tensor]) -> Buffers:
    """Buffers (n, ...) at coefficients (n, A) of anchors with the buffers `stacked`.

    Floating-point ones are interpolated linearly; negative coefficients, beyond the anchors, are
    left out, so that a variance stays positive. Others are those of the anchor with the largest
    coefficient.

    >>> mu = torch.tensor([[0.0], [4.0]])
    >>> interpolate_buffers(torch.tensor([[0.75, 0.25], [-1.0, 2.0]]), {"mu": mu})["mu"]
    tensor([[1.],
            [4.]])
    """
    shares = coefficients.clamp_min(0).double()
    shares = shares / shares.sum(1, keepdim=True)
    out: Buffers = {}
    for name, values in stacked.items():
        if len(values) == 1:
            out[name] = values.expand(len(shares), *values.shape[1:])
            continue
        here = shares.to(values.device)
        if values.is_floating_point():
            wide = values.double()
            mixed = torch.tensordot(here, wide, dims=1)
            same = (wide == wide[:1]).all(0)  # infinities, and constants bit by bit
            out[name] = torch.where(same, wide[0], mixed).to(values.dtype)
        else:
            out[name] = values[here.argmax(1)]
    return out
