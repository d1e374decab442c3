"""The checkpoint files of a training run, in order of their steps."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lowland.errors import StoreError
from lowland.files import PathLike
from lowland.trajectory.checkpoint_tensors import INDEX
from lowland.trajectory.journal import JOURNAL
from lowland.trajectory.torch_files import read_without_code
from lowland.warn import warn

# what transformers calls the weights in a folder, best first
WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "adapter_model.safetensors",
)
_PLAIN = (".safetensors", ".pt", ".pth", ".bin", ".th", ".pth.tar", ".pt.tar")
# what trainers leave beside the weights
_OTHERS = re.compile(
    r"^((optimizer|scheduler|scaler|training_args|rng_state|lowland)\b|opt(im)?[_-]?\d)", re.I
)
_TRAINER = re.compile(r"^checkpoint-(\d+)$")
_COPY = re.compile(r"(?:.*[_-])?(best|last|latest|final|ema|swa|averaged?)(?:[_-].*)?", re.I)
_STEP = re.compile(r"step[=_-]?(\d+)", re.I)
_EPOCH = re.compile(r"(?:epoch|iter|iteration|checkpoint|ckpt)[=_-]?(\d+)", re.I)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk: its file, and the step after which it was written, where it is
    known."""

    path: Path
    step: int | None = None


def find_checkpoints(sources: PathLike | Iterable[PathLike]) -> list[Checkpoint]:
    """The checkpoints in files, glob patterns and folders.

    A folder may be what the Hugging Face Trainer writes (`checkpoint-500/model.safetensors`, or in
    several files with an index), what Lightning writes (`*.ckpt`, in `checkpoints/` or in
    `lightning_logs/version_0/checkpoints/`), or hold `.safetensors`, `.pt`, `.pth`, `.pth.tar` or
    `.bin` files of its own. Lightning's `last.ckpt` is left out where it repeats the step of
    another file; so are files such as `model_best.pth.tar` and `ema_30.pt` beside numbered ones,
    with a warning.

    Args:
        sources: one path or glob pattern, or several. Files given one by one keep their order;
            patterns and folders give natural order (9 before 10).

    Raises:
        StoreError: no checkpoint, or the checkpoints of several runs.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> for step in (9, 10):
    ...     (folder / f"checkpoint-{step}").mkdir()
    ...     _ = (folder / f"checkpoint-{step}" / "model.safetensors").write_bytes(b"")
    >>> [checkpoint.step for checkpoint in find_checkpoints(folder)]
    [9, 10]
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    checkpoints = [checkpoint for source in sources for checkpoint in _expand(str(source))]
    if not checkpoints:
        raise StoreError("no checkpoint was given; give files, a pattern or a folder.")
    return checkpoints


def in_order(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints by step where all steps differ, otherwise in natural order of their names."""
    steps = [c.step for c in checkpoints]
    if None not in steps and len(set(steps)) == len(steps):
        return sorted(checkpoints, key=lambda c: c.step or 0)
    return sorted(checkpoints, key=lambda c: natural_key(str(c.path)))


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key under which step-9 comes before step-10."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", name) if p]


def _expand(source: str) -> list[Checkpoint]:
    path = Path(source).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if path.is_file() or not glob.has_magic(source):
        return [_checkpoint(path)]  # reading a missing file raises
    matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)
    if not matches:
        raise StoreError(f"no checkpoint matches {source}; check the pattern.")
    return [c for match in matches for c in _expand(match)]


def _checkpoint(file: Path) -> Checkpoint:
    """A file with the step that its name, or the Trainer's name of its folder, gives."""
    trainer = _TRAINER.match(file.parent.name)
    if trainer and file.name in WEIGHTS:
        return Checkpoint(file, int(trainer[1]))
    name = stem(file)
    match = _STEP.search(name) or _EPOCH.search(name)
    if match:
        return Checkpoint(file, int(match[1]))
    numbers = re.findall(r"\d+", name)  # of several, one may be a loss
    return Checkpoint(file, int(numbers[0]) if len(numbers) == 1 else None)


def stem(file: Path) -> str:
    """A file's name without its ending, which may be of two parts: `.pth.tar`."""
    return Path(file.stem).stem if file.suffix == ".tar" else file.stem


def _in_folder(folder: Path) -> list[Checkpoint]:
    if (folder / JOURNAL).is_file():
        raise StoreError(
            f"{folder} is a trajectory of lowland's own; open it with Trajectory.open, whose swa() "
            "and swag() are its averages."
        )
    for layout in (_trainer, _weights, _lightning, _plain):
        checkpoints = layout(folder)
        if checkpoints:
            return checkpoints
    what = "holds no checkpoint" if any(folder.iterdir()) else "is empty"
    raise StoreError(
        f"{folder} {what}: looked for checkpoint-*/model.safetensors (Hugging Face Trainer), "
        "*.ckpt, checkpoints/*.ckpt and version_*/checkpoints/*.ckpt (Lightning), and "
        f"{', '.join('*' + end for end in _PLAIN)}; name the files themselves."
    )


def _trainer(folder: Path) -> list[Checkpoint]:
    """The Hugging Face Trainer's output folder."""
    inside = [p for p in folder.iterdir() if p.is_dir() and _TRAINER.match(p.name)]
    inside.sort(key=lambda p: natural_key(p.name))
    checkpoints = {p: _weights(p) for p in inside}
    empty = [p for p in inside if not checkpoints[p]]
    if empty:  # the average of the others would leave out a checkpoint
        raise StoreError(
            f"{empty[0]} has none of {', '.join(WEIGHTS)}: gather sharded optimizer formats into "
            "one of them first, or, if it was cut off while it was written, delete it."
        )
    return [checkpoint for p in inside for checkpoint in checkpoints[p]]


def _weights(folder: Path) -> list[Checkpoint]:
    """One model, as `save_pretrained` writes it."""
    there = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    return [_checkpoint(there[0])] if there else []


def _lightning(folder: Path) -> list[Checkpoint]:
    """The files of Lightning's ModelCheckpoint, of one run."""
    places = [folder, folder / "checkpoints"]
    versions = [v for root in (folder, folder / "lightning_logs") for v in root.glob("version_*")]
    places += [v / "checkpoints" for v in sorted(versions, key=lambda p: natural_key(str(p)))]
    runs = [p for p in places if any(p.glob("*.ckpt"))]
    if len(runs) > 1:
        raise StoreError(
            f"{folder} holds the checkpoints of {len(runs)} runs: {', '.join(map(str, runs))}; "
            "name one of them."
        )
    if not runs:
        return []
    by_step: dict[int, Checkpoint] = {}
    files = sorted(runs[0].glob("*.ckpt"), key=lambda p: natural_key(p.name))
    # last.ckpt is a copy of another, or the newest of all
    for file in sorted(files, key=lambda p: p.name.startswith("last")):
        checkpoint = Checkpoint(file, _lightning_step(file))
        if checkpoint.step is None:
            return [_checkpoint(f) for f in files]
        other = by_step.setdefault(checkpoint.step, checkpoint)
        if other is not checkpoint and not file.name.startswith("last"):
            raise StoreError(
                f"{other.path} and {file} are both of step {checkpoint.step}, as of two runs in "
                "one folder; name the files to average."
            )
    return [by_step[step] for step in sorted(by_step)]


def _lightning_step(file: Path) -> int | None:
    match = _STEP.search(file.stem)
    if match:
        return int(match[1])
    content = read_without_code(file)
    step = content.get("global_step") if isinstance(content, dict) else None
    return step if isinstance(step, int) else None


def _plain(folder: Path) -> list[Checkpoint]:
    """The files of another training script."""
    files = [
        p
        for p in folder.iterdir()
        if p.is_file() and p.name.endswith(_PLAIN) and not _OTHERS.match(p.name)
    ]
    copies = [p for p in files if _COPY.fullmatch(stem(p))]
    if copies and len(files) - len(copies) > 1 and any(re.search(r"\d", p.name) for p in files):
        warn(
            f"{', '.join(p.name for p in sorted(copies))}: taken for copies or averages of the "
            "numbered files, and left out; name the files to average where they are not.",
        )
        files = [p for p in files if p not in copies]
    return [_checkpoint(p) for p in sorted(files, key=lambda p: natural_key(p.name))]
