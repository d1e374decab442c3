"""Checkpoints with pickled objects beside the weights, written anew as weights alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lowland.errors import StoreError
from lowland.files import PathLike
from lowland.progress import Progress, reporting
from lowland.tensor_files import write_tensors
from lowland.trajectory.checkpoint_files import Checkpoint, find_checkpoints, in_order, stem
from lowland.trajectory.checkpoint_tensors import read_stored
from lowland.trajectory.quantized import dequantize
from lowland.trajectory.torch_files import read_without_code
from lowland.warn import warn


def convert_checkpoints(
    sources: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    key: str | None = None,
    prefix: str | None = None,
    run_pickled_code: bool = False,
    progress: Progress = False,
) -> list[Checkpoint]:
    """Writes the weights of checkpoints as safetensors files, and returns these.

    For files with pickled objects, such as hyperparameters, which `read_checkpoint` rejects. These
    objects are not imported, run or written. Files are named by their steps,
    `step-500.safetensors`, or keep their names if steps are not known.

    Args:
        sources: files, a pattern or a folder, see `find_checkpoints`.
        out: a folder, new or empty, or of an earlier conversion of the same files.
        key, prefix: where in a file the weights are, see `read_checkpoint`.
        run_pickled_code: unpickle the files as Python does, which runs any code that they name: for
            whole pickled models and tensors of other libraries' classes, in files that you trust.

    Raises:
        StoreError: a file that cannot be read so, or other files in `out`.

    >>> import argparse, tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> content = {"state_dict": {"w": torch.ones(2)}, "args": argparse.Namespace(lr=0.1)}
    >>> torch.save(content, folder / "step=20.ckpt")
    >>> [(c.path.name, c.step) for c in convert_checkpoints(folder, folder / "weights")]
    [('step-20.safetensors', 20)]
    """
    checkpoints = in_order(find_checkpoints(sources))
    out = Path(out).expanduser()
    names = _names(checkpoints)
    others = sorted({p.name for p in out.iterdir()} - {*names}) if out.is_dir() else []
    if others or (out.exists() and not out.is_dir()):
        what = f"holds {others[0]}" if others else "is a file"
        raise StoreError(f"{out} {what}, which this does not write; name another folder.")
    converted = []
    with reporting(progress, "convert") as report:
        for i, (one, name) in enumerate(zip(checkpoints, names, strict=True), start=1):
            read = _unpickle if run_pickled_code else read_without_code
            stored = read_stored(one.path, key=key, prefix=prefix, read=read)
            if stored.choice is not None and i == 1:
                warn(stored.choice)
            notes = {"format": "pt", "source": one.path.name}
            write_tensors(out / name, dequantize(stored.tensors, source=one.path), notes)
            converted.append(Checkpoint(out / name, one.step))
            report(i, len(checkpoints))
    return converted


def _names(checkpoints: list[Checkpoint]) -> list[str]:
    """Names of files from which `find_checkpoints` reads the same steps and order."""
    steps = {c.step for c in checkpoints}
    if None not in steps and len(steps) == len(checkpoints):
        return [f"step-{c.step}.safetensors" for c in checkpoints]
    names = [f"{stem(c.path)}.safetensors" for c in checkpoints]
    if len(set(names)) < len(names):
        names = [f"{i:06d}.safetensors" for i in range(len(names))]
    return names


def _unpickle(path: Path) -> Any:
    """The content of a torch file, of which any code that it names is run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        raise StoreError(
            f"{path}: cannot be unpickled ({type(error).__name__}: {error}); run this where the "
            "packages that wrote it are installed, or leave the file out."
        ) from error
    return content.state_dict() if isinstance(content, nn.Module) else content
