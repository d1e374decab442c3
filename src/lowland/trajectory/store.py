"""The SGD iterates on disk: one safetensors file each, and a checksummed journal.

An iterate exists once its line stands in the journal; the line is written after the file is whole
and durable under a temporary name, and the file gets its own name after the line. A kill at any
byte therefore loses at most the iterate that was being written, and leaves a temporary file or a
line without its end: readers skip both, and the next append writes over them. A file that has its
name and no line then says that the journal lost its end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.core.names import named_buffers
from lowland.core.point import Point
from lowland.errors import NonFiniteError, StoreError
from lowland.files import (
    PathLike,
    atomic_write,
    new_file,
    require_inside,
    sync,
    sync_folder,
    temporary_name,
)
from lowland.tensor_files import read_tensors, save_sorted
from lowland.trajectory.checkpoint_iterates import CheckpointIterates
from lowland.trajectory.integrity import damage, file_of, set_aside, stray_files, trouble_of
from lowland.trajectory.iterates import Iterates
from lowland.trajectory.journal import (
    FORMAT,
    JOURNAL,
    Entry,
    Header,
    Iterate,
    checksum,
    iterate_name,
    journal_line,
    read_journal,
)
from lowland.warn import warn

_BUFFER = "buffer/"


class Trajectory(Iterates):
    """An append-only sequence of weight vectors with their buffers.

    `traj[i]` maps iterate i into memory and returns a `Point`; iteration holds one at a time. Make
    one with `create`, `open` or `from_checkpoints`.

    >>> import tempfile
    >>> model = nn.Linear(1, 1, bias=False)
    >>> traj = Trajectory.create(Path(tempfile.mkdtemp()) / "run", ParamLayout(model))
    >>> for step in (1, 2):
    ...     traj.append(torch.tensor([float(step)]), step=step)
    >>> len(traj), traj.swa()
    (2, tensor([1.5000]))
    """

    def __init__(self, path: Path, layout: ParamLayout, iterates: list[Iterate]) -> None:
        super().__init__(path, layout, iterates)
        self._verified: set[int] = set()
        self._end = 0  # bytes of the journal that are known; what a kill left may follow

    # -- make and open ---------------------------------------------------------------------------

    @classmethod
    def create(cls, path: PathLike, layout: ParamLayout) -> Trajectory:
        """A new store in an empty or missing folder."""
        path = Path(path)
        # a kill while the journal was made leaves its temporary file alone
        rest = {path / f".{JOURNAL}.tmp"}
        if path.exists() and (not path.is_dir() or set(path.iterdir()) - rest):
            raise StoreError(
                f"{path} exists and is not empty; open it with Trajectory.open, or name another "
                "folder."
            )
        path.mkdir(parents=True, exist_ok=True)
        store = cls(path, layout, [])
        store._rewrite()
        return store

    @classmethod
    def open(
        cls, path: PathLike, *, layout: ParamLayout | None = None, recover: bool = False
    ) -> Trajectory:
        """Opens a store; a line that a kill left without its end is skipped.

        Args:
            path: its folder. layout: refuse a store of another model.
            recover: keep the iterates before the first damaged one, checking every byte; the rest
                is moved to `damaged/` inside the store, not deleted.

        Warns of iterate files behind the last line: the journal lost its end.

        Raises:
            StoreError: not a store, a damaged one, or one with a line missing: it names the file.
            LayoutError: a store of another model.
        """
        path = Path(path)
        journal = path / JOURNAL
        if not journal.is_file():
            raise StoreError(f"{path} is not a trajectory: {JOURNAL} is missing; check the path.")
        require_inside(path, JOURNAL)
        read = read_journal(journal, form=FORMAT, header=Header, entry=Entry)
        spec = read.header["layout"]
        store = cls(path, ParamLayout.from_spec(spec, source=f"{journal}: line 1"), [])
        if layout is not None:
            layout.require_same(store.layout, what=f"the iterates in {path}")
            store.layout = layout
        store._end = read.ends[0]
        trouble = None
        for end, entry in zip(read.ends[1:], read.entries, strict=True):
            iterate = Iterate(**entry)
            trouble = trouble_of(path, store.iterates, iterate, thorough=recover)
            if trouble is not None:
                break
            if recover:
                store._verified.add(len(store))
            store.iterates.append(iterate)
            store._end = end
        if trouble is None and read.damaged is not None:
            trouble = f"{journal}: line {read.damaged} is damaged"
        if trouble is not None and not recover:
            raise StoreError(
                f"{trouble}; the {len(store)} iterates before it are whole: "
                f"Trajectory.open({str(path)!r}, recover=True) keeps them."
            )
        stray = stray_files(path, max(len(store), read.header.get("forgotten", 0)))
        if recover and (trouble is not None or stray):
            set_aside(path, [iterate.file for iterate in store.iterates])
            store._rewrite()
            sync_folder(path)
        elif stray:
            warn(
                f"{journal} has no line for {stray[0]}{', ...' if len(stray) > 1 else ''}: its end "
                "was lost, and the next append writes over that file. "
                f"Trajectory.open({str(path)!r}, recover=True) moves such files out of the way.",
            )
        return store

    @classmethod
    def from_checkpoints(
        cls,
        files: PathLike | Iterable[PathLike],
        layout: ParamLayout,
        *,
        key: str | None = None,
        prefix: str | None = None,
    ) -> Iterates:
        """A read-only trajectory of the checkpoints of a training run.

        Args:
            files: files in order, a glob pattern, or a folder, such as those of Lightning and the
                Hugging Face Trainer: see `find_checkpoints`. Formats: see `read_checkpoint`.
            layout: of their model. A prefix of the names, such as Lightning's `net.`, is detected
                and removed.
            key, prefix: where in a file the network is, if it is not found: see `read_checkpoint`.
                Files of Lightning's `WeightAveraging` hold two: the iterate, which is taken, and
                its average, `key="state_dict"`.
        """
        return CheckpointIterates(files, layout, key=key, prefix=prefix)

    # -- write -----------------------------------------------------------------------------------

    @torch.no_grad()
    def append(
        self,
        source: nn.Module | Tensor | Point,
        *,
        step: int,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Writes an iterate: a model with its buffers, or a flat (P,) tensor.

        Raises:
            LayoutError: weights of another model. NonFiniteError: NaN or infinite weights; the
                store stays as it was. StoreError: a step that is not after the last one, or a
                store that another process writes to.
        """
        self._require_writable()
        step = checks.whole("step", step)  # NumPy's integers are no JSON
        numbers = {name: _number(value) for name, value in (metrics or {}).items()}
        if self.iterates and step <= self.iterates[-1].step:
            raise StoreError(
                f"step {step} is not after step {self.iterates[-1].step}, the last in {self.path}; "
                "rewind(step) forgets what came later."
            )
        point = self._point_of(source)
        try:
            self.layout.require_finite(
                point.weights, what=f"step {step} was not stored: its weights"
            )
        except NonFiniteError as error:
            last = self.iterates[-1].step if self.iterates else None
            raise NonFiniteError(
                f"{str(error)[:-1]}; the last iterate stored is step {last}."
            ) from None
        tensors = {"weights": point.weights.cpu().contiguous()}
        for name, buffer in (point.buffers or {}).items():
            tensors[_BUFFER + name] = buffer.cpu().contiguous().clone()
        file = iterate_name(len(self.iterates))
        self._name_last()
        with new_file(temporary_name(self.path / file)) as temporary:
            save_sorted(tensors, temporary, {"format": FORMAT, "step": str(step)})
            sync(temporary)
            size, crc = temporary.stat().st_size, checksum(temporary)
        sync_folder(self.path)
        iterate = Iterate(file, step, size, crc, numbers)
        with open(self.path / JOURNAL, "r+b") as journal:
            journal.seek(self._end)
            journal.truncate()  # of a line that a kill cut off
            journal.write(journal_line(vars(iterate)))
            journal.flush()
            os.fsync(journal.fileno())
            self._end = journal.tell()
        self.iterates.append(iterate)
        self._verified.add(len(self.iterates) - 1)
        self._name_last()

    def _name_last(self) -> None:
        """Gives the last iterate's file its name, unless it has it."""
        if self.iterates:
            file = self.iterates[-1].file
            with suppress(FileNotFoundError):
                os.replace(temporary_name(self.path / file), self.path / file)

    def rewind(self, step: int) -> None:
        """Removes the iterates after `step`, which a run resumed from there writes again."""
        self._require_writable()
        step = checks.whole("step", step)
        count = sum(iterate.step <= step for iterate in self.iterates)  # steps are in order
        if count == len(self.iterates):
            return
        dropped = self.iterates[count:]
        self._verified = {i for i in self._verified if i < count}
        forgotten = len(self.iterates)
        self.iterates = self.iterates[:count]
        self._rewrite(forgotten=forgotten)
        for iterate in dropped:
            file = self.path / iterate.file
            file.unlink(missing_ok=True)
            temporary_name(file).unlink(missing_ok=True)
        self._rewrite()

    def _require_writable(self) -> None:
        journal = self.path / JOURNAL
        after = b"\n"
        if journal.is_file() and journal.stat().st_size >= self._end:
            with open(journal, "rb") as file:
                file.seek(self._end)
                after = file.read()
        if b"\n" in after:
            raise StoreError(
                f"{journal} is not as this store left it: another process writes to it, or a write "
                "was interrupted; open it again with Trajectory.open."
            )

    def _point_of(self, source: nn.Module | Tensor | Point) -> Point:
        if isinstance(source, nn.Module):
            own = {name: b.detach() for name, b in named_buffers(source).items()}
            return Point(self.layout.flatten(source), own)
        point = source if isinstance(source, Point) else Point(source)
        self.layout.check(point.weights, flat=True)
        return Point(point.weights.detach().to(self.layout.dtype), point.buffers)

    def _rewrite(self, *, forgotten: int = 0) -> None:
        """Writes the journal anew. `forgotten`: files up to this number may lie without a line."""
        header: dict[str, Any] = {"format": FORMAT, "layout": self.layout.spec()}
        if forgotten:
            header["forgotten"] = forgotten
        with atomic_write(self.path / JOURNAL) as temporary, open(temporary, "wb") as journal:
            journal.write(journal_line(header))
            for iterate in self.iterates:
                journal.write(journal_line(vars(iterate)))
            self._end = journal.tell()

    # -- read ------------------------------------------------------------------------------------

    def __getitem__(self, i: int) -> Point:
        i = self._position(i)
        iterate = self.iterates[i]
        if i not in self._verified:
            trouble = damage(self.path, iterate, thorough=True)
            if trouble is not None:
                raise StoreError(
                    f"{trouble}; Trajectory.open({str(self.path)!r}, recover=True) keeps the "
                    "iterates before it."
                )
            self._verified.add(i)
        tensors, _ = read_tensors(file_of(self.path, iterate))
        weights = tensors.pop("weights", None)
        if weights is None or weights.dtype != self.layout.dtype:
            dtype = None if weights is None else weights.dtype
            raise StoreError(
                f"{self.path / iterate.file}: expected weights in {self.layout.dtype}, got "
                f"{dtype}; name another trajectory."
            )
        self.layout.check(weights, flat=True)
        return Point(weights, {name.removeprefix(_BUFFER): t for name, t in tensors.items()})


def _number(value: float | Tensor) -> float:
    # a loss still has its graph
    return float(value.detach() if isinstance(value, Tensor) else value)
