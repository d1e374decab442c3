"""A configuration from its file, checked before anything runs."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lowland.errors import ConfigError
from lowland.runs.keys import Section, section_of
from lowland.runs.sections import Config
from lowland.runs.user_code import one_line

_S = TypeVar("_S", bound=Section)


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, as in YAML 1.2 and in Python."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, with `key=value` or `section.key=value` put over it.

    Factories are imported from the working folder, then from the folder of the file.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration; check the path.")
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected `key: value` lines.")
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"{override!r}: expected key=value, such as train.epochs=10.")
        put(values, key, read_value(text, where=repr(override)), where=repr(override))
    importable(path.parent, Path.cwd())
    where = " ".join([str(path), *(["with", *overrides] if overrides else [])])
    return check_section(Config, values, where=where)


def importable(*folders: Path) -> None:
    """Lets configurations name modules in these folders; the last goes first."""
    for folder in folders:
        if str(folder.resolve()) not in sys.path:
            sys.path.insert(0, str(folder.resolve()))


def read_value(text: str, *, where: str) -> Any:
    """The value of a setting that is written as in `key=value`."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: its value is not YAML: {one_line(error)}.") from error


def check_section(
    section: type[_S], values: Any, *, where: str, names: Mapping[str, str] | None = None
) -> _S:
    """A checked section; an error names the key, and the nearest right one.

    `names`: of keys that errors call otherwise.

    >>> from lowland.runs.training_sections import Train
    >>> check_section(Train, {"epoch": 3}, where="here")
    Traceback (most recent call last):
    ...
    lowland.errors.ConfigError: here: epoch: there is no such key; did you mean epochs?
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        messages: dict[str, tuple[str, str]] = {}  # a key of several forms has an error for each
        for one in error.errors():
            if one["type"] == "literal_error" and isinstance(one["input"], dict):
                continue  # a dict is meant to be the other form
            key, message, value = _describe(one, section)
            key = (names or {}).get(key, key)
            if key in messages:
                message = f"{messages[key][0]} or {message.removeprefix('expected ')}"
            messages[key] = message, value
        lines = [f"{key}: {message}{value}" for key, (message, value) in messages.items()]
        raise ConfigError(f"{where}: {'; '.join(lines)}") from None


def check_config(values: dict[str, Any], *, where: str) -> Config:
    """The same for a whole configuration."""
    return check_section(Config, values, where=where)


def put(values: dict[str, Any], key: str, value: Any, *, where: str) -> Any:
    """Puts a value at a dotted key, in the place of the one that it returns.

    >>> values = {"train": {"lr": 0.1}}
    >>> put(values, "train.lr", 0.2, where="here"), values
    (0.1, {'train': {'lr': 0.2}})
    """
    *sections, last = key.split(".")
    for section in sections:
        inner = values.setdefault(section, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{where}: {section} is not a section.")
        values = inner
    old, values[last] = values.get(last), value
    return old


def _describe(error: Any, within: type[Section]) -> tuple[str, str, str]:
    """The key of a validation error, what is wrong, and the value that came."""
    section: type[Section] | None = within
    path: list[str] = []
    unknown = error["type"] == "extra_forbidden"
    for number, part in enumerate(error["loc"], start=1):
        if section is not None and part in section.model_fields:
            section = section_of(section.model_fields[part].annotation)
        elif not isinstance(part, int) and not (unknown and number == len(error["loc"])):
            continue  # the name of one of several forms
        path.append(str(part))
    key = ".".join(path)
    value = f", got {error['input']!r}"
    if unknown:
        keys = (section or within).model_fields
        near = difflib.get_close_matches(path[-1], keys, n=1, cutoff=0)
        return key, f"there is no such key; did you mean {near[0]}?", ""
    if error["type"] == "missing":
        return key, "is missing", ""
    if error["type"] == "model_type":
        factory = error["ctx"]["class_name"] == "Factory"
        form = "{name: package.module:callable, args: {...}}" if factory else "a section"
        return key, f"expected {form}", value
    message = error["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    message = message.replace("List should have", "expected a list of")
    value = "" if ", got " in message else value
    return key, message.partition(", unable")[0].partition(" after validation")[0], value
