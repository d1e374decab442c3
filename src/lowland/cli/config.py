"""What a configuration may say: checked before anything runs."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lowland.errors import ConfigError

Method = Literal["sgd", "ema", "swa", "swag-diagonal", "swag", "fge", "ensemble", "multiswag"]


class Section(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid")


class Named(Section):
    """A callable, `package.module:callable`, and its keyword arguments."""

    name: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    args: dict[str, Any] = {}

    def load(self) -> Callable[..., Any]:
        """Imports the callable; the working folder is on the path."""
        if "" not in sys.path and str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        module, _, attribute = self.name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise ConfigError(
                f"{self.name} cannot be imported ({type(error).__name__}: {error}); check the "
                "spelling, and run from the folder that holds the package."
            ) from error
        if not callable(found):
            raise ConfigError(f"{self.name}: expected a callable, got {type(found).__name__}.")
        return found

    def call(self, **extra: Any) -> Any:
        """Calls it with its arguments."""
        try:
            return self.load()(**self.args, **extra)
        except TypeError as error:
            raise ConfigError(f"{self.name}: {error}; check its args.") from error


class Train(Section):
    """SGD, for every network."""

    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    accumulate: int = Field(default=1, ge=1)
    clip: float | None = Field(default=None, gt=0)


class Average(Section):
    """The walk whose iterates are averaged."""

    lr: float = Field(default=0.05, gt=0)
    start: float = Field(default=0.75, gt=0, lt=1)
    every: float = Field(default=1.0, gt=0)  # epochs between iterates
    rank: int = Field(default=20, ge=2)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    scales: list[float] = Field(default=[0.1, 0.25, 0.5, 1.0, 2.0], min_length=1)


class FGE(Section):
    """Cycles from where averaging starts, to the end of the same budget."""

    cycle: float = Field(default=2.0, gt=0)  # epochs
    high: float = Field(default=0.05, gt=0)
    low: float = Field(default=5e-4, gt=0)


class Config(Section):
    """A run: see `configs/digits.yaml`."""

    model: Named
    data: Named
    task: Literal["classification", "regression", "language"] | Named = "classification"
    out: str = "runs/run"
    methods: list[Method] = Field(default=list(get_args(Method)), min_length=1)
    ensemble: int = Field(default=3, ge=2)
    samples: int = Field(default=30, ge=1)
    seed: int = Field(default=0, ge=0)
    threads: int | Literal["auto"] = "auto"
    device: str | None = None
    autocast: Literal["bfloat16", "float16"] | None = None
    channels_last: bool = False
    bn_rows: int = Field(default=4096, ge=2)
    eval_batch_size: int = Field(default=512, ge=1)
    train: Train = Train()
    average: Average = Average()
    fge: FGE = FGE()


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `key=value` or `section.key=value` put over it."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration; check the path.")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines.")
    for override in overrides:
        _put(values, override)
    return check_config(values, where=str(path))


def check_config(values: dict[str, Any], *, where: str) -> Config:
    """A checked configuration; an error names the key, and the nearest right one."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_told(e, where) for e in error.errors())) from error


def _put(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r}: expected key=value, such as train.epochs=10.")
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{override!r}: {section} is not a section.")
        values = inner
    values[last] = yaml.safe_load(text)


def _told(error: Any, where: str) -> str:
    path = [part for part in error["loc"] if part not in ("Named",)]
    name = ".".join(map(str, path))
    if error["type"] != "extra_forbidden":
        return f"{where}: {name}: {error['msg']}, got {error['input']!r}"
    section: Any = Config
    for part in path[:-1]:
        section = section.model_fields[part].annotation
    near = difflib.get_close_matches(str(path[-1]), section.model_fields, n=1, cutoff=0)
    return f"{where}: there is no key {name}; did you mean {near[0]}?"
