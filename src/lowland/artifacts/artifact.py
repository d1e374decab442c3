"""The contract: an artifact has a name, inputs and settings, and is built, saved and loaded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol

from lowland.artifacts.checkpoint import Checkpoint
from lowland.progress import Report


class Dataclass(Protocol):
    """A frozen dataclass of plain values."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]


#: what changes the result of an artifact, and nothing else: plain values by name
Settings = Mapping[str, Any] | Dataclass


class Inputs(Mapping[str, Any]):
    """The loaded inputs of an artifact by name; each is loaded when it is first read.

    Args:
        artifacts: the inputs. load: loads an artifact, which it builds where it is not done.

    Attributes:
        requested: the artifacts that `request` built.
    """

    def __init__(
        self,
        artifacts: Sequence[Artifact],
        load: Callable[[Artifact], Any],
    ) -> None:
        self._artifacts = {artifact.name: artifact for artifact in artifacts}
        self._load = load
        self._values: dict[str, Any] = {}
        self.requested: list[Artifact] = []

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._load(self._artifacts[name])
        return self._values[name]

    def __iter__(self) -> Any:
        return iter(self._artifacts)

    def __len__(self) -> int:
        return len(self._artifacts)

    def request(self, artifact: Artifact) -> Any:
        """Builds an artifact whose need showed while building; the manifest records it."""
        self.requested.append(artifact)
        return self._load(artifact)


class Artifact(ABC):
    r"""One thing that a run folder holds.

    Its fingerprint is a hash of its kind, the kind's version, its settings and the fingerprints of
    its inputs. An artifact with an equal fingerprint is done, one with another is stale.

    Args:
        name: a path of words, such as "train/swa-0".
        inputs: what it is built from.
        settings: plain values by name, a mapping or a frozen dataclass; None: there are none.
        title: of its progress bar; empty: its name.

    Attributes:
        kind: what it is, in a word. version: raised when the numbers of a kind change.
        intermediate: whether `lowland clean` may remove it where all that needs it is done.
        quick: whether it takes a moment and needs no progress bar.
        copied: whether people get copies of its files in place of links: files that they edit.
        permissions: of its files, such as 0o600: nobody else can open its folder, from the first
            byte on. None: all may read them, and nobody may write.
    """

    kind: str
    version: ClassVar[int] = 1
    intermediate: ClassVar[bool] = False
    quick: bool = False
    copied: ClassVar[bool] = False
    permissions: int | None = None

    def __init__(
        self,
        name: str,
        inputs: Sequence[Artifact] = (),
        settings: Settings | None = None,
        *,
        title: str = "",
    ) -> None:
        self.name = name
        self.inputs = tuple({each.name: each for each in inputs}.values())
        self.settings = settings
        self.title = title or name

    @abstractmethod
    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Any:
        """Makes the result; large files may go to `checkpoint.folder` as they come.

        What `checkpoint` saved is there again after a stop: the builder goes on from it.
        """

    @abstractmethod
    def save(self, result: Any, folder: Path) -> None:
        """Writes the result as files of a folder."""

    @abstractmethod
    def load(self, folder: Path) -> Any:
        """Reads what `save` wrote; raises `StoreError` where it is damaged."""

    def view(self) -> Mapping[str, str]:
        """Where its files or folders appear in the run folder for people: {file: place}."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits."""
        return digest(
            {
                "kind": self.kind,
                "version": self.version,
                "settings": self.values(),
                "inputs": {each.name: each.fingerprint for each in self.inputs},
            }
        )

    def values(self) -> dict[str, Any]:
        """The settings as plain values by name."""
        settings = {} if self.settings is None else self.settings
        return dict(settings) if isinstance(settings, Mapping) else dataclasses.asdict(settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


class Source(Artifact):
    """What a run takes and does not build: data, a model, other runs' weights.

    Args:
        name: such as "data/train". value: what `inputs[name]` returns. content: what
            distinguishes it, plain values by name.
    """

    kind = "source"

    def __init__(self, name: str, value: Any, content: Mapping[str, Any]) -> None:
        super().__init__(name)
        self.value = value
        self.content = dict(content)

    def values(self) -> dict[str, Any]:
        return self.content

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> NoReturn:
        raise AssertionError(f"{self.name} is a source, and never built")

    def save(self, result: Any, folder: Path) -> NoReturn:
        raise AssertionError(f"{self.name} is a source, and never saved")

    def load(self, folder: Path) -> Any:
        return self.value


def digest(body: Any) -> str:
    """32 hexadecimal digits that change with plain values.

    >>> digest({"a": 1, "b": [2.0]}) == digest({"b": [2.0], "a": 1})
    True
    """
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder_name(name: str, fingerprint: str) -> str:
    """The folder of an artifact: its name as letters that any file system takes, and a hash.

    >>> folder_name("scan/sgd-0,sgd-1/train", "0123456789abcdef")
    'scan-sgd-0-sgd-1-train-0123456789ab'
    """
    slug = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-.")[:60]
    return f"{slug}-{fingerprint[:12]}"
