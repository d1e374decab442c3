"""What a configuration may say: checked before anything runs."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from lowland.core.threads import MAX_THREADS
from lowland.errors import ConfigError, LowlandError

_S = TypeVar("_S", bound="Section")

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Threads = Annotated[int, Field(ge=1, le=MAX_THREADS)]


class Section(BaseModel):
    """Unknown keys are errors."""

    # defaults too: 0 and 0.0 would be other settings
    model_config = ConfigDict(extra="forbid", validate_default=True)


class Named(Section):
    """A callable, `package.module:callable`, and its keyword arguments."""

    name: str
    args: dict[str, Any] = {}

    @field_validator("name")
    @classmethod
    def _colon(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.]+:[\w.]+", name):
            raise ValueError("expected package.module:callable")
        return name

    def load(self) -> Callable[..., Any]:
        """Imports the callable."""
        module, _, attribute = self.name.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
        except Exception as error:
            raise ConfigError(
                f"{self.name} cannot be imported ({type(error).__name__}: {error}); check the "
                "spelling, and have its package beside the configuration or in the working folder."
            ) from error
        if not callable(found):
            raise ConfigError(f"{self.name}: expected a callable, got {type(found).__name__}.")
        function: Callable[..., Any] = found
        return function

    def call(self, **more: Any) -> Any:
        """Calls it with its arguments, over `more`; an error of its own is told with its place."""
        function, args = self.load(), {**more, **self.args}
        try:
            inspect.signature(function).bind(**args)
        except TypeError as error:
            raise ConfigError(f"{self.name}: {error}; check its args.") from None
        except ValueError:  # some builtins have no signature
            pass
        try:
            return function(**args)
        except LowlandError:
            raise
        except Exception as error:
            raise ConfigError(
                f"{self.name}: {told(error)}; check its args and what it reads."
            ) from error


def told(error: Exception) -> str:
    """An error in one line, with its place in the user's code, or else in ours."""
    if isinstance(error, LowlandError):
        return str(error)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_project(f.filename)]
    own = [f for f in frames if not _ours(f.filename)] or frames
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {_line(error)}{place}"


def users_own(error: Exception) -> bool:
    """Whether an error was raised in code of the user's, or in what that called."""
    frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
    mine = [not _ours(name) for name in frames if is_project(name)]
    return bool(mine) and mine[-1]


def is_project(file: str) -> bool:
    """Whether a file is somebody's project: no installed package, no standard library."""
    library = sysconfig.get_path("stdlib")
    builtin = file in ("built-in", "frozen")
    return not builtin and "site-packages" not in file and not file.startswith((library, "<"))


def _ours(file: str) -> bool:
    """Whether a file is lowland's."""
    return Path(file).is_relative_to(Path(__file__).parents[1])


class Train(Section):
    """How every network is trained."""

    optimizer: str = "SGD"  # of torch.optim
    optimizer_args: dict[str, Any] = {}  # besides lr, weight_decay, and momentum of SGD
    schedule: str | None = None  # of the annealed networks; None: lowland's DecaySchedule
    schedule_args: dict[str, Any] = {}
    warmup: float = Field(default=0, ge=0, allow_inf_nan=False)  # steps; below 1 a share of all
    epochs: int = Field(default=50, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0, allow_inf_nan=False)
    accumulate: int = Field(default=1, ge=1)
    clip: float | None = Field(default=None, gt=0)
    drop_last: bool = False


class Average(Section):
    """The walk whose iterates are averaged."""

    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    start: float = Field(default=0.75, gt=0, lt=1)
    every: float = Field(default=1.0, gt=0, allow_inf_nan=False)  # epochs between iterates
    rank: int = Field(default=20, ge=2)
    ema_decay: float = Field(default=0.99, ge=0, lt=1)
    ema_warmup: bool = False
    scales: list[Scale] = Field(default=[0.1, 0.25, 0.5, 1.0, 2.0], min_length=1)


class FGE(Section):
    """Cycles from where averaging starts, to the end of the same budget."""

    cycle: float = Field(default=2.0, gt=0, allow_inf_nan=False)  # epochs
    high: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    low: float = Field(default=5e-4, gt=0)

    @model_validator(mode="after")
    def _falls(self) -> FGE:
        if self.low > self.high:
            raise ValueError(f"expected low <= high, which is {self.high}")
        return self


class Connect(Section):
    """Curves between the first two annealed networks, and the plane of the first one."""

    kinds: list[Literal["bezier", "chain"]] = Field(default=["bezier"], min_length=1)
    bends: int = Field(default=1, ge=1)
    epochs: int | None = Field(default=None, ge=1)  # None: as many as the networks'
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    points: int = Field(default=61, ge=3)
    examples: int = Field(default=10_000, ge=2)  # of the training examples
    resolution: int = Field(default=41, ge=0)  # of the plane; 0: none


class Growing(Section):
    """Simplexes around the first annealed networks, which the method espro draws from."""

    components: int = Field(default=1, ge=1)
    vertices: int = Field(default=4, ge=2)  # the network included
    epochs: int = Field(default=10, ge=1)  # of fitting each vertex
    samples: int = Field(default=5, ge=1)  # points of the simplex a step
    lr: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    strength: float | None = Field(default=None, ge=0, allow_inf_nan=False)  # None: the paper's
    jitter: float = Field(default=1e-2, gt=0, allow_inf_nan=False)
    rise: float = Field(default=0.1, ge=0)  # nats an item above the network's loss
    points: int = Field(default=20, ge=1)  # where a new vertex is judged
    examples: int = Field(default=10_000, ge=2)  # of the training examples, for that


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Several = Annotated[list[Positive], Field(min_length=1)]


class Inference(Section):
    """The posterior in a subspace, which the method subspace draws from."""

    kind: Literal["pca", "random", "curve", "hessian"] = "pca"
    rank: int = Field(default=5, ge=1)
    sampler: Literal["ess", "slice", "nuts", "sgld", "vi", "flow", "grid"] = "ess"
    temperature: Literal["tune"] | Positive | Several = "tune"  # on validation data
    prior_scale: Literal["tune"] | Positive | Several = 1.0
    chains: int = Field(default=16, ge=1)
    samples: int = Field(default=50, ge=1)  # of each chain, after warming up
    warmup: int | None = Field(default=None, ge=0)  # None: what suits the sampler
    examples: int | None = Field(default=None, ge=2)  # of the training examples; None: all

    @field_validator("sampler")
    @classmethod
    def _few(cls, sampler: str, info: ValidationInfo) -> str:
        rank = info.data.get("rank", 1)
        if sampler == "grid" and rank > 3 and info.data.get("kind") != "curve":
            raise ValueError(f"expected a rank of at most 3 for a grid, which is {rank}")
        return sampler


class Validation(Section):
    """Validation examples taken from the training examples, where the data give none."""

    share: float = Field(default=0.1, gt=0, lt=1)
    by: Literal["random", "stratified", "group"] = "random"
    seed: int = Field(default=0, ge=0, lt=2**31)


class Repeat(Section):
    """The same run for many values of one key, and one table of them all."""

    over: str = Field(pattern=r"^\w+(\.\w+)*$")
    values: Annotated[int, Field(ge=1)] | list[Any] | None = None  # n: 0 to n - 1; None: once

    def each(self) -> list[Any]:
        """The values; none where nothing is repeated."""
        return list(range(self.values)) if isinstance(self.values, int) else self.values or []


def default_methods() -> list[str]:
    """Those that run where a configuration names none."""
    from lowland.runs.methods import METHODS

    return [name for name, method in METHODS.items() if not method.by_request]


class Config(Section):
    """A run: see `configs/digits.yaml`."""

    model: Named
    data: Named
    task: Literal["classification", "regression", "language"] | Named = "classification"
    out: str = Field(default="runs/run", coerce_numbers_to_str=True)
    methods: list[str] = Field(default_factory=default_methods)
    ensemble: int = Field(default=3, ge=2)
    samples: int = Field(default=30, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    threads: Threads | Literal["auto"] = "auto"
    device: str | None = None
    autocast: Literal["bfloat16", "float16"] | None = None
    channels_last: bool = False
    compile: bool = False
    bn_rows: int = Field(default=4096, ge=2)
    reestimate: str | None = None  # buffers of a layer's own that are statistics
    eval_batch_size: int = Field(default=512, ge=1)
    validation: Validation | None = None  # None: the data give them
    train: Train = Train()
    average: Average = Average()
    fge: FGE = FGE()
    simplex: Growing = Growing()
    subspace: Inference = Inference()
    connect: Connect | None = None
    repeat: Repeat | None = None

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: list[str]) -> list[str]:
        from lowland.runs.methods import method_named

        if not methods or len(set(methods)) < len(methods):
            raise ValueError("expected at least one method, each of them once")
        for name in methods:
            try:
                method_named(name)
            except ConfigError as error:
                raise ValueError(str(error).removeprefix("methods: ").rstrip(".")) from None
        return methods


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2 and in Python."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `key=value` or `section.key=value` put over it.

    What it names is imported from the working folder, then from the folder of the file.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration; check the path.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {_line(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines.")
    for override in overrides:
        _put(values, override)
    importable(path.parent, Path.cwd())
    return check_config(values, where=str(path))


def importable(*folders: Path) -> None:
    """Lets configurations name what lies in these folders; the last goes first."""
    for folder in folders:
        if str(folder.resolve()) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))


def read_value(text: str, *, where: str) -> Any:
    """A value of a setting, as `key=value` has it."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: its value is not YAML: {_line(error)}.") from error


def check_config(values: dict[str, Any], *, where: str) -> Config:
    """A checked configuration; an error names the key, and the nearest right one."""
    return _check(Config, values, where)


def check_named(values: Any, *, where: str) -> Named:
    """The same for the name of a callable alone."""
    return _check(Named, values, where)


def check_growing(values: Any, *, where: str) -> Growing:
    """The same for how simplexes grow."""
    return _check(Growing, values, where)


def check_inference(values: Any, *, where: str) -> Inference:
    """The same for inference in a subspace."""
    return _check(Inference, values, where)


def _check(section: type[_S], values: Any, where: str) -> _S:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        told: dict[str, list[str]] = {}  # a key of several forms has an error for each of them
        for one in error.errors():
            if one["type"] == "literal_error" and isinstance(one["input"], dict):
                continue  # it is meant to be the other form
            key, wrong, got = _told(one, section)
            if key in told:
                wrong = f"{told[key][0]} or {wrong.removeprefix('expected ')}"
            told[key] = [wrong, got]
        texts = [f"{key}: {wrong}{got}" for key, (wrong, got) in told.items()]
        raise ConfigError(f"{where}: {'; '.join(texts)}") from None


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
    values[last] = read_value(text, where=repr(override))


def _line(error: Exception) -> str:
    return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())


def _told(error: Any, within: type[Section]) -> tuple[str, str, str]:
    """Where in the configuration an error is, what is wrong, and what came."""
    section: type[Section] | None = within
    path: list[str] = []
    unknown = error["type"] == "extra_forbidden"
    for number, part in enumerate(error["loc"], start=1):
        if section is not None and part in section.model_fields:
            section = _section(section.model_fields[part].annotation)
        elif not isinstance(part, int) and not (unknown and number == len(error["loc"])):
            continue  # the name of one of several forms
        path.append(str(part))
    key = ".".join(path)
    got = f", got {error['input']!r}"
    if unknown:
        keys = (section or within).model_fields
        near = difflib.get_close_matches(path[-1], keys, n=1, cutoff=0)
        return key, f"there is no such key; did you mean {near[0]}?", ""
    if error["type"] == "missing":
        return key, "is missing", ""
    if error["type"] == "model_type":
        named = error["ctx"]["class_name"] == "Named"
        form = "{name: package.module:callable, args: {...}}" if named else "a section"
        return key, f"expected {form}", got
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    message = message.replace("List should have", "expected a list of")
    return key, message.partition(", unable")[0].partition(" after validation")[0], got


def _section(annotation: Any) -> type[Section] | None:
    """The section that a field is, or may be."""
    forms = get_args(annotation) or (annotation,)
    return next((f for f in forms if isinstance(f, type) and issubclass(f, Section)), None)
