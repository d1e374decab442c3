"""The run folder: plain files, each whole or absent."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from torch import Tensor, nn

from lowland.cli.config import Config, check_config
from lowland.cli.stored import read_yaml, write_yaml
from lowland.core import ParamLayout, Point
from lowland.core.layout import clean, clean_names
from lowland.errors import ConfigError, StoreError
from lowland.files import read_tensors, require_no_way_out, write_tensors
from lowland.schema import parse_json, require

CONFIG = "config.yaml"
FORMAT = "lowland-run-1"
_ABSENT = object()
_FREE = {"out", "repeat", "connect"}  # settings that may differ when a run goes on
_BUFFER = "buffer/"  # before the names of buffers, in files of earlier versions


class RanWith(TypedDict):
    """What a run ran with."""

    threads: int
    versions: NotRequired[dict[str, str]]
    python: NotRequired[str]
    started: NotRequired[str]


class Stored(TypedDict):
    """What config.yaml holds."""

    settings: dict[str, Any]
    ran_with: RanWith


class RunFolder:
    """config.yaml, trajectory/, weights/, records/, pictures/, checkpoints/, events.jsonl."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Makes the folder, and keeps other processes out of it.

        Raises `StoreError` where it holds something else, or another process works in it.
        """
        holds = {p.name for p in self.path.iterdir()} if self.path.is_dir() else set()
        strange = bool(holds - {f".{CONFIG}.tmp"}) and not (self.path / CONFIG).is_file()
        if strange or (self.path.exists() and not self.path.is_dir()):
            raise StoreError(
                f"{self.path} is not empty and not a run folder: it holds no {CONFIG}; put that "
                "back, or name another folder with out=FOLDER."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        require_no_way_out(self.path)
        with locked(self.path):
            yield

    def found(self, config: Config) -> dict[str, Any] | None:
        """What the run that is there ran with; None in a new folder.

        Raises `ConfigError` where it is a run of other settings.
        """
        file = self.path / CONFIG
        if not file.is_file():
            return None
        settings, ran = self.ran()
        with suppress(ConfigError):  # keys that are newer than the run have their defaults
            settings = check_config(settings, where=str(file)).model_dump()
        changed = differences(settings, config.model_dump(), but=_FREE)
        if changed:
            raise ConfigError(
                f"{file} is of a run with other settings ({'; '.join(changed)}); name another "
                "folder with out=FOLDER, or delete this one."
            )
        return ran

    def ran(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of the run that is there, and what it ran with."""
        file = self.path / CONFIG
        advice = "put it back, or name another folder with out=FOLDER"
        body = read_yaml(file, Stored, form=FORMAT, advice=advice)
        return body["settings"], body["ran_with"]

    def begin(self, config: Config, threads: int) -> dict[str, Any]:
        """Records the settings, and what the run runs with."""
        ran = {
            "threads": threads,
            "versions": versions(),
            "python": platform.python_version(),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        # as Python has it: JSON would make words of keys and nothing of infinity
        body = {"settings": config.model_dump(), "ran_with": ran}
        write_yaml(self.path / CONFIG, body, form=FORMAT)
        return ran

    def event(self, what: str, **details: Any) -> None:
        """Adds a line to events.jsonl."""
        line = {"time": time.strftime("%Y-%m-%d %H:%M:%S"), "event": what, **details}
        with open(self.path / "events.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")

    def record(self, name: str) -> Path:
        """Where a record lies."""
        return self.path / "records" / name

    def has_weights(self, name: str) -> bool:
        """Whether these weights are done, and whole."""
        try:
            read_tensors(self._weights(name))
        except StoreError:
            return False
        return True

    def save_weights(
        self, name: str, model: nn.Module, layout: ParamLayout, point: Point, **notes: str
    ) -> None:
        """Writes a point as the state dict of `model`: what the point lacks is the model's own.

        `model.load_state_dict(safetensors.torch.load_file(path))` takes the file. Buffers that are
        no part of a state dict (`persistent=False`) go into a file of their own beside it.
        """
        buffers = dict(point.buffers or {})
        tensors = _state_dict(model, buffers | layout.unflatten(point.weights))
        held = set(clean_names(tensors).values())
        others = {key: buffer for key, buffer in buffers.items() if key not in held}
        self._other_buffers(name).unlink(missing_ok=True)
        if others:
            write_tensors(self._other_buffers(name), others, {})
        notes |= {
            "fingerprint": layout.fingerprint,
            "buffers": json.dumps([key for key in buffers if key in held]),
        }
        write_tensors(self._weights(name), tensors, notes)

    def load_weights(self, name: str, layout: ParamLayout) -> Point:
        """Reads weights of this model, with the buffers that were saved with them."""
        file = self._weights(name)
        tensors, notes = read_tensors(file)
        tensors = clean(tensors)
        if "buffers" in notes:
            names = parse_json(notes["buffers"], source=file)
            require(names, list[str], source=file)
        else:  # a file of an earlier version
            names = [key for key in tensors if key.startswith(_BUFFER)]
        missing = [key for key in names if key not in tensors]
        if missing:
            raise StoreError(f"{file}: buffer {missing[0][:80]!r} is missing; name another file.")
        buffers = {key.removeprefix(_BUFFER): tensors.pop(key) for key in names}
        if self._other_buffers(name).is_file():
            buffers |= read_tensors(self._other_buffers(name))[0]
        return Point(layout.flatten(tensors), buffers)

    def forget_weights(self, name: str) -> None:
        """Deletes weights that are to be made again."""
        self._weights(name).unlink(missing_ok=True)
        self._other_buffers(name).unlink(missing_ok=True)

    def notes(self, name: str) -> dict[str, str]:
        """What was noted beside weights."""
        return read_tensors(self._weights(name))[1]

    def _weights(self, name: str) -> Path:
        return self.path / "weights" / f"{name}.safetensors"

    def _other_buffers(self, name: str) -> Path:
        return self.path / "weights" / "buffers" / f"{name}.safetensors"


def _state_dict(model: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a model with these parameters and buffers, by their clean names; where
    tensors are tied, under each of their names."""
    every = {
        name: tensor
        for named in (model.named_parameters, model.named_buffers)
        for name, tensor in named(remove_duplicate=False)
    }
    short = clean_names(every)
    held = {id(every[name]): values[short[name]] for name in every if short[name] in values}
    return {
        name: held.get(id(every.get(name)), tensor)
        for name, tensor in model.state_dict().items()
        if isinstance(tensor, Tensor)  # a module may have other state
    }


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the one lock of a folder, which ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every network file system locks folders
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"another process works in {folder}; wait for its end, or name another folder "
                    "with out=FOLDER."
                ) from None
        yield
    finally:
        os.close(handle)


def versions() -> dict[str, str]:
    """Of what the last bits of a run depend on."""
    return {name: version(name) for name in ("lowland", "torch", "numpy")}


def differences(
    there: dict[str, Any],
    now: dict[str, Any],
    *,
    but: Collection[str],
    words: tuple[str, str] = ("there", "now"),
) -> list[str]:
    """What differs between settings, apart from some keys: `lr: 0.1 there, 0.2 now`."""
    theirs, ours = _flat(there), _flat(now)
    return [
        f"{key}: {theirs.get(key, 'absent')} {words[0]}, {ours.get(key, 'absent')} {words[1]}"
        for key in ours | theirs
        if key.partition(".")[0] not in but
        and (key not in theirs or theirs[key] != ours.get(key, _ABSENT))
    ]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"lr": 1}} as {"train.lr": 1}."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, dict) and value
        out |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return out
