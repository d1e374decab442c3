"""First weights from a checkpoint on disk."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lowland.core import ParamLayout
from lowland.core.names import clean, join_names
from lowland.errors import LayoutError
from lowland.files import PathLike
from lowland.trajectory.checkpoint_files import find_checkpoints, in_order
from lowland.trajectory.checkpoint_tensors import match_layout, read_checkpoint


class Pretrained:
    """A pretrained network: a file of weights, or the last checkpoint of a folder.

    Formats: see `find_checkpoints` and `read_checkpoint`. No pickled code is run.

    Attributes:
        file: that was read.

    Raises:
        StoreError: no checkpoint, or a damaged one, or one with pickled objects.
    """

    def __init__(self, path: PathLike) -> None:
        self.file = in_order(find_checkpoints(path))[-1].path
        self.tensors = read_checkpoint(self.file)

    def load_into(self, model: nn.Module) -> None:
        """Loads its weights and buffers into a model.

        Raises `LayoutError` for names that the model lacks, or that it needs and the file lacks.
        """
        tensors = match_layout(self.tensors, ParamLayout(model))
        loaded = load_checkpoint(model, tensors, source=f"start_from: {self.file}")
        # integers may be buffers that other versions of a model store
        foreign = [n for n in tensors if n not in loaded and tensors[n].is_floating_point()]
        if foreign:
            raise LayoutError(
                f"start_from: {self.file}: the model of the configuration has no "
                f"{join_names(foreign)}; name the model that was saved."
            )


def load_checkpoint(
    model: nn.Module, tensors: dict[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """Loads the tensors of a checkpoint into a model; returns those that the model has.

    Args:
        source: where they come from, for errors.

    Raises:
        LayoutError: names or shapes of another model.

    >>> net = nn.Linear(1, 1)
    >>> tensors = {"net.weight": torch.ones(1, 1), "net.bias": torch.zeros(1)}
    >>> sorted(load_checkpoint(net, tensors, source="last.ckpt")), net.weight.item()
    (['bias', 'weight'], 1.0)
    """
    layout = ParamLayout(model)
    try:
        tensors = match_layout(tensors, layout)
        layout.load_(model, layout.flatten(tensors))
    except LayoutError as error:
        raise LayoutError(f"{source} and the model of the configuration: {error}") from None
    own = {n: t for n, t in clean(model.state_dict()).items() if isinstance(t, Tensor)}
    missing = [n for n in own if n not in {*tensors, *layout.names, *layout.aliases}]
    if missing:
        raise LayoutError(
            f"{source}: no {join_names(missing)}, which the model of the configuration has; name "
            "the model that was saved."
        )
    tensors = {n: t for n, t in tensors.items() if n in own}
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape:
                raise LayoutError(
                    f"{source}: {name} is {tuple(tensor.shape)}, and {tuple(own[name].shape)} in "
                    "the model of the configuration; name the model that was saved."
                )
            own[name].copy_(tensor)
    return tensors
