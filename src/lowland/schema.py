"""Text from files that others may have written: its limits first, then its form.

A form is a type annotation: `int`, `list[str]`, `dict[str, Tensor]`, a `Literal`, a union, a
dataclass or a `TypedDict`. A file that has a field of its own is of a later version.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import (
    Any,
    Literal,
    NotRequired,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from lowland.errors import StoreError

MAX_TEXT = 64 << 20  # bytes: Python objects take some twenty times what their text does
MAX_DEPTH = 100
T = TypeVar("T")


def parse_json(text: str | bytes, *, source: object) -> Any:
    """The value of a JSON text of bounded size and depth; raises `StoreError` that names `source`.

    >>> parse_json('{"step": 3}', source="a.json")
    {'step': 3}
    >>> parse_json("[" * 100_000, source="a.json")
    Traceback (most recent call last):
    lowland.errors.StoreError: a.json: nested deeper than 100 levels; name another file.
    """
    if len(text) > MAX_TEXT:
        raise StoreError(
            f"{source}: {len(text):,} bytes of text, more than {MAX_TEXT:,}; name another file."
        )
    try:
        value = json.loads(text)
    except ValueError as error:
        raise StoreError(f"{source}: damaged, or no JSON ({error}); name another file.") from error
    except RecursionError as error:
        raise _too_deep(source, "name another file") from error
    require_shallow(value, source=source)
    return value


def read_json(
    path: Path,
    form: type[T],
    *,
    version: str | None = None,
    advice: str = "use the version that wrote it",
) -> T:
    """The value of a JSON file, which has a form; with `version`, its "format" is that one.

    Raises:
        OSError: no such file. StoreError, which names the file: damaged, or another form or format.
    """
    value: T = parse_json(path.read_bytes(), source=path)
    if version is not None and isinstance(value, dict):
        require_format(value.get("format"), version, source=path, advice=advice)
    require(value, form, source=path)
    return value


def require_shallow(value: Any, *, source: object, advice: str = "name another file") -> None:
    """Raises `StoreError` where lists and dicts are nested too deep to walk through them."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise _too_deep(source, advice)


def _too_deep(source: object, advice: str) -> StoreError:
    return StoreError(f"{source}: nested deeper than {MAX_DEPTH} levels; {advice}.")


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list | tuple) else ()


def require(value: Any, form: Any, *, source: object, advice: str = "name another file") -> None:
    """Raises `StoreError`, which names `source` and the place in it, unless a value has a form.

    >>> require({"step": 3}, dict[str, int], source="a.json")
    >>> require({"step": [3]}, dict[str, int], source="a.json")
    Traceback (most recent call last):
    lowland.errors.StoreError: a.json: step: expected int, got [3]; name another file.
    """
    wrong = mismatch(value, form)
    if wrong:
        raise StoreError(f"{source}: {wrong}; {advice}.")


def require_format(
    theirs: object, ours: str, *, source: object, advice: str = "use the version that wrote it"
) -> None:
    """Raises `StoreError`, which names both, unless a file has the format of this version.

    >>> require_format("lowland-plan-1", "lowland-plan-1", source="a.json")
    >>> require_format("lowland-plan-2", "lowland-plan-1", source="a.json", advice="make another")
    Traceback (most recent call last):
    lowland.errors.StoreError: a.json: its format is 'lowland-plan-2', this version of lowland reads
    'lowland-plan-1'; make another.
    """
    if theirs != ours:
        raise StoreError(
            f"{source}: its format is {theirs!r:.60}, this version of lowland reads {ours!r}; "
            f"{advice}."
        )


def mismatch(value: Any, form: Any, place: str = "") -> str | None:
    """Where and how a value differs from a form; None where it does not.

    An int is a float too, a bool is neither. Integers have 64 bits.
    """
    origin, args = get_origin(form), get_args(form)
    if form is Any:
        return None
    if origin in (Union, types.UnionType):
        wrong = [mismatch(value, one, place) for one in args]
        deeper = [w for w in wrong if w and not w.startswith(_at(place, "expected"))]
        if None in wrong:
            return None
        return deeper[0] if deeper else _expected(value, form, place)
    if origin is Literal:
        plain = isinstance(value, str | int | None) and value in args
        return None if plain else _expected(value, form, place)
    if is_typeddict(form) or (dataclasses.is_dataclass(form) and isinstance(form, type)):
        return _fields(value, form, place)
    kind = origin or form
    if not _is(value, kind):
        return _expected(value, form, place)
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            return _expected(value, form, place)
        pairs = enumerate(zip(value, args, strict=True))
        return _first(mismatch(v, a, f"{place}[{i}]") for i, (v, a) in pairs)
    if kind in (list, tuple) and args:
        return _first(mismatch(v, args[0], f"{place}[{i}]") for i, v in enumerate(value))
    if issubclass(kind, Mapping) and args:
        keys = (mismatch(key, args[0], f"{place}: a key") for key in value)
        values = (mismatch(v, args[1], _join(place, k)) for k, v in value.items())
        return _first(keys) or _first(values)
    return None


def _fields(value: Any, form: Any, place: str) -> str | None:
    hints, needed = _declared(form)
    return mismatch_of_fields(value, hints, needed, place)


@cache
def _declared(form: Any) -> tuple[Mapping[str, Any], Collection[str]]:
    """The forms of the fields of a dataclass or `TypedDict`, and the names of the required ones."""
    hints = get_type_hints(form)
    if is_typeddict(form):
        # __required_keys__ is wrong where annotations are postponed
        whole = get_type_hints(form, include_extras=True)
        return hints, [name for name, hint in whole.items() if get_origin(hint) is not NotRequired]
    fields = [f for f in dataclasses.fields(form) if f.init]
    missing = dataclasses.MISSING
    needed = [f.name for f in fields if f.default is missing and f.default_factory is missing]
    return {f.name: hints[f.name] for f in fields}, needed


def mismatch_of_fields(
    value: Any, hints: Mapping[str, Any], needed: Iterable[str], place: str = ""
) -> str | None:
    """The same for a mapping, by the forms of its fields and the names of those that it must have.

    >>> mismatch_of_fields({"step": 3, "loss": 0.5}, {"step": int}, ["step"])
    "of another version of lowland (unknown field 'loss')"
    """
    if not isinstance(value, Mapping):
        return _at(place, f"expected fields by name, got {_short(value)}")
    for name in value:
        if name not in hints:
            return _at(place, f"of another version of lowland (unknown field {_short(name)})")
    for name in sorted(needed):
        if name not in value:
            return _at(place, f"of another version of lowland (no field {name!r})")
    return _first(mismatch(value[name], hints[name], _join(place, name)) for name in value)


def _is(value: Any, kind: Any) -> bool:
    if kind is None:
        return value is None
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if kind is float:
        return type(value) is float or _is(value, int)
    if kind is tuple:  # JSON has lists alone
        return isinstance(value, list | tuple)
    if kind is str:
        return isinstance(value, str) and _is_unicode(value)
    return isinstance(value, kind)


def _is_unicode(text: str) -> bool:
    """Whether a text can be written: JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _first(wrong: Iterable[str | None]) -> str | None:
    return next(filter(None, wrong), None)


def _join(place: str, name: object) -> str:
    return f"{place}.{name}" if place else str(name)


def _at(place: str, text: str) -> str:
    return f"{place}: {text}" if place else text


def _expected(value: Any, form: Any, place: str) -> str:
    plain = isinstance(form, type) and not get_args(form)
    name = form.__name__ if plain else str(form).replace("typing.", "")
    return _at(place, f"expected {name}, got {_short(value)}")


def _short(value: Any, most: int = 60) -> str:
    """A value in a few letters: what it is of where it is large."""
    if not isinstance(value, str | int | float | None | list | dict | tuple):
        return type(value).__name__
    if isinstance(value, int) and abs(value) >= 2**63:
        return "a larger number"
    if isinstance(value, list | dict | tuple) and len(value) > 8:
        return f"a {type(value).__name__} of {len(value)}"
    text = repr(value[:most] if isinstance(value, str) else value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
