"""The SGD iterates on disk: one safetensors file each, and a checksummed journal.

An iterate exists once its line stands in the journal; the line is written after the file is whole
and durable under a temporary name, and the file gets its own name after the line. A kill at any
byte therefore loses at most the iterate that was being written, and leaves a temporary file or a
line without its end: readers skip both, and the next append writes over them. A file that has its
name and no line then says that the journal lost its end.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core.layout import ParamLayout
from lowland.core.names import named_buffers
from lowland.core.point import Point
from lowland.errors import LayoutError, LowlandError, NonFiniteError, StoreError
from lowland.files import (
    PathLike,
    atomic_write,
    new_file,
    require_inside,
    sync,
    sync_folder,
    temporary_name,
)
from lowland.geometry import Subspace
from lowland.geometry.rank import Rank
from lowland.posteriors import Ensemble
from lowland.progress import Progress, reporting
from lowland.tensor_files import read_tensors, save_sorted
from lowland.trajectory.checkpoint_files import find_checkpoints
from lowland.trajectory.checkpoint_tensors import match_layout, read_checkpoint
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
from lowland.trajectory.moments import SWA, Moments
from lowland.trajectory.swag import SWAG
from lowland.warn import warn

_BUFFER = "buffer/"


class Trajectory:
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
        self.path = path
        self.layout = layout
        self.iterates = iterates
        self._verified: set[int] = set()
        self._end = 0  # bytes of the journal that are known; what a kill left may follow
        self._options: dict[str, str | None] = {}  # of reading checkpoints

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
            trouble = store._trouble(iterate, thorough=recover)
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
        stray = store._stray(read.header.get("forgotten", 0))
        if recover and (trouble is not None or stray):
            store._set_aside()
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
    ) -> Trajectory:
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
        checkpoints = find_checkpoints(files)
        steps = [c.step for c in checkpoints]
        if None in steps or len(set(steps)) < len(steps):
            steps = list(range(len(checkpoints)))
        iterates = [
            Iterate(str(c.path), step or 0) for c, step in zip(checkpoints, steps, strict=True)
        ]
        folders = [c.path.resolve().parent for c in checkpoints]
        store = cls(Path(os.path.commonpath(folders)), layout, iterates)
        store._options = {"key": key, "prefix": prefix}
        return store

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
        if any(iterate.crc is None for iterate in self.iterates):
            raise StoreError(
                f"the checkpoint files in {self.path} are only read; create a trajectory to write."
            )
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

    def _set_aside(self) -> None:
        """Moves what is not among the good iterates out of the way, and mends the journal."""
        names = (f"damaged-{n}" if n > 1 else "damaged" for n in itertools.count(1))
        aside = next(self.path / name for name in names if not (self.path / name).exists())
        aside.mkdir()
        shutil.copy2(self.path / JOURNAL, aside / JOURNAL)
        good = {iterate.file for iterate in self.iterates}
        for file in self.path.glob("*.safetensors"):
            if file.name not in good:
                os.replace(file, aside / file.name)
        self._rewrite()
        sync_folder(self.path)

    # -- read ------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.iterates)

    def __getitem__(self, i: int) -> Point:
        if not -len(self) <= i < len(self):
            raise IndexError(f"iterate {i} of {len(self)}")
        i %= len(self)
        iterate = self.iterates[i]
        if iterate.crc is None:
            return self._checkpoint(iterate)
        if i not in self._verified:
            trouble = self._damage(iterate, thorough=True)
            if trouble is not None:
                raise StoreError(
                    f"{trouble}; Trajectory.open({str(self.path)!r}, recover=True) keeps the "
                    "iterates before it."
                )
            self._verified.add(i)
        tensors, _ = read_tensors(self._file(iterate))
        weights = tensors.pop("weights", None)
        if weights is None or weights.dtype != self.layout.dtype:
            dtype = None if weights is None else weights.dtype
            raise StoreError(
                f"{self.path / iterate.file}: expected weights in {self.layout.dtype}, got "
                f"{dtype}; name another trajectory."
            )
        self.layout.check(weights, flat=True)
        return Point(weights, {name.removeprefix(_BUFFER): t for name, t in tensors.items()})

    def __iter__(self) -> Iterator[Point]:
        return (self[i] for i in range(len(self)))

    @property
    def steps(self) -> list[int]:
        """The step of each iterate."""
        return [iterate.step for iterate in self.iterates]

    @property
    def metrics(self) -> list[dict[str, float]]:
        """The recorded metrics of each iterate."""
        return [iterate.metrics for iterate in self.iterates]

    def _trouble(self, iterate: Iterate, *, thorough: bool) -> str | None:
        """What is wrong with the next iterate's line or file, in words that name it."""
        number = len(self)
        return self._out_of_order(iterate, number) or self._damage(iterate, thorough=thorough)

    def _out_of_order(self, iterate: Iterate, number: int) -> str | None:
        # the name is known: one from elsewhere would be read, written over or deleted
        expected, line = iterate_name(number), f"{self.path / JOURNAL}: line {number + 2}"
        if iterate.file != expected:
            return f"{line} is of {iterate.file!r:.80} instead of {expected!r}: a line is missing"
        if number and iterate.step <= self.iterates[number - 1].step:
            before = self.iterates[number - 1].step
            return f"{line} is of step {iterate.step}, which is not after step {before}"
        return None

    def _stray(self, forgotten: int) -> list[str]:
        """Iterate files behind the last one of the journal, and what a rewind may have left."""
        names = (path.name for path in self.path.glob("*.safetensors"))
        first = iterate_name(max(len(self), forgotten))
        return sorted(n for n in names if re.fullmatch(r"\d{6,}\.safetensors", n) and n >= first)

    def _file(self, iterate: Iterate) -> Path:
        """Where an iterate lies: the last may not have its name yet."""
        file = self.path / iterate.file
        temporary = temporary_name(file)
        return temporary if temporary.is_file() and not file.is_file() else file

    def _damage(self, iterate: Iterate, *, thorough: bool) -> str | None:
        file = require_inside(self.path, self._file(iterate).name)
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != iterate.size:
            return f"{file} is damaged: {size} bytes instead of {iterate.size}"
        if thorough and checksum(file) != iterate.crc:
            return f"{file} is damaged or foreign: its checksum is not the journal's"
        return None

    def _checkpoint(self, iterate: Iterate) -> Point:
        tensors = self._tensors(iterate)
        try:
            weights = self.layout.flatten(tensors)
        except LayoutError as error:
            raise LayoutError(f"{iterate.file}: {error}") from None
        return Point(weights, self.layout.state_of(tensors))

    def _tensors(self, iterate: Iterate) -> dict[str, Tensor]:
        """A checkpoint under the layout's names, mapped into memory."""
        tensors = read_checkpoint(iterate.file, **self._options)
        try:
            return match_layout(tensors, self.layout)
        except LayoutError as error:
            raise LayoutError(f"{iterate.file}: {error}") from None

    # -- views -----------------------------------------------------------------------------------

    def swa(self) -> Tensor:
        """The average of all iterates, (P,), weights alone: see `SWA` and `average`."""
        return self.average().weights

    def average(self) -> Point:
        """The same with the buffers that belong to it."""
        swa = SWA(self.layout)
        self.into(swa)
        return swa.point

    def swag(self, *, rank: int = 20, deviations_dtype: torch.dtype | None = None) -> SWAG:
        """The moments of all iterates: see `SWAG`."""
        swag = SWAG(self.layout, rank=rank, deviations_dtype=deviations_dtype)
        self.into(swag)
        return swag

    def into(self, *moments: Moments, progress: Progress = False) -> None:
        """Updates averages such as `SWA` and `EMA` with every iterate, in one pass over the files.

        Raises:
            NonFiniteError, LayoutError: an iterate that cannot be averaged; it names the file.
        """
        self._require()
        with reporting(progress, "average") as report:
            for i, iterate in enumerate(self.iterates):
                # a checkpoint's tensors are read from the mapped file, never as one more vector
                foreign = iterate.crc is None
                source: Any = self._tensors(iterate) if foreign else self[i]
                for one in moments:
                    try:
                        one.update(source)
                    except (NonFiniteError, LayoutError) as error:
                        raise type(error)(f"{iterate.file}: {error}") from None
                report(i + 1, len(self))

    def pca(self, *, rank: Rank = 5) -> Subspace:
        """The subspace of the iterates' first principal components: see `Subspace.pca`."""
        self._require()
        return Subspace.pca(self, rank=rank)

    def ensemble(self) -> Ensemble:
        """The iterates as an ensemble, read from disk one by one."""
        self._require()
        return Ensemble(self)  # type: ignore[arg-type]  # a sequence in all that Ensemble uses

    def _require(self) -> None:
        if not self.iterates:
            raise LowlandError(f"{self.path} holds no iterate yet; append some.")

    def __repr__(self) -> str:
        return f"Trajectory({str(self.path)!r}, {len(self)} iterates)"


def _number(value: float | Tensor) -> float:
    # a loss still has its graph
    return float(value.detach() if isinstance(value, Tensor) else value)
