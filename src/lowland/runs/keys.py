"""Keys of a configuration: each is declared once, for checks, `--help` and the reference."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, Field

_LIMITS = {Ge: (">=", "ge"), Gt: (">", "gt"), Le: ("<=", "le"), Lt: ("<", "lt")}
_WORDS: dict[Any, str] = {
    bool: "`true` or `false`",
    int: "integer",
    float: "number",
    str: "text",
    NoneType: "`null`",
    Any: "any value",
}

Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
PositiveList = Annotated[list[Positive], Field(min_length=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Multiple = Annotated[float, Field(ge=1, allow_inf_nan=False)]


class Section(BaseModel):
    """A part of a configuration; unknown keys are errors."""

    # defaults too: 0 and 0.0 would be other settings
    model_config = ConfigDict(extra="forbid", validate_default=True)

    is_value: ClassVar[bool] = False  # the value of one key, and no section with keys of its own

    def values_of(self, section: type[Section], *, but: Collection[str] = ()) -> dict[str, Any]:
        """The values of the keys that a section has which this one extends."""
        return self.model_dump(include={*section.model_fields} - {*but})


def key(default: Any, description: str, *, unit: str = "", **limits: Any) -> Any:
    """A key with its default (`...`: it is required), meaning, unit and limits."""
    extra: Any = {"unit": unit}
    return Field(default=default, description=description, json_schema_extra=extra, **limits)


@dataclass(frozen=True)
class Key:
    """What people read about a key."""

    name: str
    description: str
    unit: str
    values: str  # that it takes, such as "integer >= 1"
    default: Any  # None: not set
    required: bool

    @property
    def is_flag(self) -> bool:
        """Whether it is true or false."""
        return self.values == _WORDS[bool]


def keys_of(section: type[Section]) -> list[Key]:
    """The keys of a section in order, but for those that are sections themselves.

    >>> class Train(Section):
    ...     lr: float = key(0.1, "learning rate", gt=0)
    ...     epochs: int | None = key(None, "length of training", unit="epochs", ge=1)
    >>> [(each.name, each.values, each.default) for each in keys_of(Train)]
    [('lr', 'number > 0', 0.1), ('epochs', 'integer >= 1 or `null`', None)]
    """
    keys = []
    for name, field in section.model_fields.items():
        inner = section_of(field.annotation)
        if inner is not None and not inner.is_value:
            continue
        extra = field.json_schema_extra
        unit = str(extra.get("unit", "")) if isinstance(extra, dict) else ""
        required = field.is_required()
        default = None if required else field.get_default(call_default_factory=True)
        values = _values(field.annotation, field.metadata)
        keys.append(Key(name, field.description or "", unit, values, default, required))
    return keys


def default_text(value: Any) -> str:
    """A default as it is written in a configuration.

    >>> default_text(None), default_text(True), default_text(["a", "b"]), default_text(5e-4)
    ('null', 'true', 'a, b', '0.0005')
    """
    if isinstance(value, list):
        return ", ".join(map(default_text, value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def section_of(annotation: Any) -> type[Section] | None:
    """The section that a field is, or may be."""
    forms = get_args(annotation) or (annotation,)
    return next((f for f in forms if isinstance(f, type) and issubclass(f, Section)), None)


def _values(annotation: Any, metadata: Any = ()) -> str:
    """The values of an annotation, in words."""
    forms = _forms(annotation, metadata)
    return " or ".join([", ".join(forms[:-1]), forms[-1]] if forms[:-1] else forms)


def _forms(annotation: Any, metadata: Any) -> list[str]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _forms(arguments[0], arguments[1:])
    if origin is Literal:
        return [f"`{value}`" for value in arguments]
    if origin is list:
        return [f"list of {_values(arguments[0])}"]
    if origin is dict:
        return ["`{name: value}`"]
    if arguments:  # a union, with the limits of its number
        return [form for each in arguments for form in _forms(each, metadata)]
    if section := section_of(annotation):
        return [f"`{{{', '.join(section.model_fields)}}}`"]
    limits = _limits(metadata) if annotation in (int, float) else ""
    return [f"{_WORDS[annotation]} {limits}".rstrip()]


def _limits(metadata: Any) -> str:
    """Limits of a number, as `>= 0 and < 1`."""
    limits = []
    for constraint in _flat(metadata):
        for cls, (sign, name) in _LIMITS.items():
            if isinstance(constraint, cls):
                limits.append(f"{sign} {getattr(constraint, name)}")
    return " and ".join(limits)


def _flat(metadata: Any) -> list[Any]:
    """Constraints, also those of a `Field` inside of `Annotated`."""
    return [each for one in metadata for each in getattr(one, "metadata", [one])]
