"""Where a long builder keeps its state, so that a stopped one goes on."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, TypedDict

from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.schema import require

_STATE = "checkpoint"


class Body(TypedDict):
    """What a checkpoint's file holds."""

    same: dict[str, Any]
    state: Any


class Checkpoint:
    """The state of a long computation: a file, or nothing if there is no path.

    A builder starts with `load` and calls `save` at points from which it can resume. Both receive
    the settings that must be equal: another state raises an error that lists the differences.

    Args:
        path: the file; None: nothing is kept.
        folder: of the artifact under way, for files that are written as they come.

    Raises:
        ConfigError: the path is a folder.

    >>> import tempfile
    >>> checkpoint = Checkpoint(Path(tempfile.mkdtemp()) / "state.safetensors")
    >>> checkpoint.load(kind="count", same={"upto": 10}) is None
    True
    >>> checkpoint.save({"i": 3}, kind="count", same={"upto": 10})
    >>> checkpoint.load(kind="count", same={"upto": 10})
    {'i': 3}
    >>> checkpoint.load(kind="count", same={"upto": 20})
    Traceback (most recent call last):
    lowland.errors.ConfigError: ...: made with other settings (upto: 10 there, 20 now); ...
    """

    def __init__(self, path: PathLike | None, *, folder: PathLike | None = None) -> None:
        self.path = None if path is None else Path(path)
        self._folder = None if folder is None else Path(folder)
        if self.path is not None and self.path.is_dir():
            raise ConfigError(f"checkpoint: {self.path} is a folder; name a file.")

    @classmethod
    def of(cls, checkpoint: Checkpoint | PathLike | None) -> Checkpoint:
        """What a caller gave as `checkpoint=`."""
        return checkpoint if isinstance(checkpoint, Checkpoint) else cls(checkpoint)

    @classmethod
    def within(cls, folder: Path) -> Checkpoint:
        """That of an artifact whose files are written in `folder`."""
        return cls(folder / _STATE / "state.safetensors", folder=folder)

    @property
    def folder(self) -> Path:
        """The folder of the artifact under way; what is written here is published with it."""
        if self._folder is None:
            raise ConfigError("this checkpoint is a file alone, without a folder of an artifact.")
        return self._folder

    def file(self, name: str) -> Path | None:
        """A file beside the state, for a part that keeps its own; it ends with the checkpoint."""
        if self.path is None:
            return None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return self.path.with_name(name)

    def part(self, name: str) -> Checkpoint:
        """The checkpoint of a part of the work, in a file of its own beside this one.

        >>> Checkpoint("simplex.safetensors").part("vertex-2").path.name
        'simplex.safetensors.vertex-2'
        """
        return Checkpoint(None if self.path is None else f"{self.path}.{name}")

    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self.path is not None and self.path.is_file()

    def load(self, *, kind: str, same: Mapping[str, Any], form: Any = Any) -> Any:
        """The state that was saved last; None where there is none.

        Args:
            kind: what it must be. same: plain values that must be equal. form: of the state, see
                `lowland.schema`.

        Raises:
            ConfigError: it was made with other settings. StoreError: a damaged or foreign file.
        """
        if self.path is None or not self.path.is_file():
            return None
        from lowland.tensor_files import load_tree  # imports torch, which `status` does without

        body: Body = load_tree(self.path, kind=kind, form=Body)
        require_same(
            self.path,
            body["same"],
            same,
            advice="name another checkpoint, or delete it to start anew",
        )
        require(body.get("state"), form, source=self.path)
        return body["state"]

    @contextmanager
    def restoring(self, kind: str) -> Iterator[None]:
        """Turns errors while a loaded state is restored into a `StoreError`."""
        from lowland.tensor_files import restoring

        with restoring(self.path or "", kind):
            yield

    def save(self, state: Any, *, kind: str, same: Mapping[str, Any]) -> None:
        """Writes a state in the place of the last one, atomically."""
        if self.path is not None:
            from lowland.tensor_files import save_tree

            body: Body = {"same": dict(same), "state": state}
            save_tree(self.path, body, kind=kind)

    def clear(self) -> None:
        """Removes the state, and the files beside it where they are an artifact's."""
        if self._folder is not None:
            shutil.rmtree(self._folder / _STATE, ignore_errors=True)
        elif self.path is not None:
            self.path.unlink(missing_ok=True)


class Stopwatch:
    """Seconds of work, added up over stops.

    Args:
        file: of the seconds so far, written now and then. every: seconds between writes.
    """

    def __init__(self, file: Path, *, every: float = 5.0) -> None:
        self.file = file
        self.every = every
        try:
            self._before = float(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            self._before = 0.0
        self._began = self._written = time.perf_counter()

    def seconds(self) -> float:
        """Until now."""
        return self._before + time.perf_counter() - self._began

    def look(self) -> None:
        """Writes the seconds down, where it is time to."""
        now = time.perf_counter()
        if now - self._written >= self.every:
            self._written = now
            self.file.write_text(f"{self.seconds():.3f}", encoding="ascii")


def require_same(
    source: PathLike,
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    advice: str,
) -> None:
    """Raises `ConfigError`, which names each setting that differs, unless all are equal.

    Args:
        source: what was made with the settings `there`. advice: what to do about it.

    >>> require_same("a.scan", {"points": 3}, {"points": 3}, advice="name another file")
    >>> require_same("a.scan", {"points": 3}, {"points": 5}, advice="name another file")
    Traceback (most recent call last):
    lowland.errors.ConfigError: a.scan: made with other settings (points: 3 there, 5 now); name ...
    """
    if changed := differences(there, now):
        raise ConfigError(f"{source}: made with other settings ({'; '.join(changed)}); {advice}.")


def differences(
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    but: Collection[str] = (),
    words: tuple[str, str] = ("there", "now"),
) -> list[str]:
    """What differs between nested settings, key by key; `but`: sections that may differ.

    >>> differences({"train": {"lr": 0.1, "epochs": 5}}, {"train": {"lr": 0.2, "epochs": 5}})
    ['train.lr: 0.1 there, 0.2 now']
    """
    theirs, ours = flat(there), flat(now)
    changes = []
    for key in ours | theirs:
        if key.partition(".")[0] in but:
            continue
        if key not in theirs or key not in ours or theirs[key] != ours[key]:
            old, new = _short(*(str(settings.get(key, "absent")) for settings in (theirs, ours)))
            changes.append(f"{key}: {old} {words[0]}, {new} {words[1]}")
    return changes


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted keys; tuples as lists, as JSON has them.

    >>> flat({"train": {"lr": 1}, "scales": (1, 2)})
    {'train.lr': 1, 'scales': [1, 2]}
    """
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


def _short(*texts: str, most: int = 60) -> list[str]:
    """Long texts around the place where they begin to differ."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    start = sum(1 for _ in alike)
    start = start - most // 3 if start > most // 2 and max(map(len, texts)) > most else 0
    cut = [f"...{text[start:]}" if start else text for text in texts]
    return [text if len(text) <= most else f"{text[: most - 3]}..." for text in cut]
