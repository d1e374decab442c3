"""Options of commands that are made from the keys of a section."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_origin

import typer

from lowland.runs.config import check_section, read_value
from lowland.runs.keys import Key, Section, default_text, keys_of


@dataclass(frozen=True)
class Keys:
    """Which keys of a section are options: `curves: Annotated[Connect, Keys(...)]`.

    Args:
        but: keys that are none. names: of options that are not called like their keys.
    """

    but: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)


def with_section_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with an option for each key, where it takes a section annotated with `Keys`.

    A value is written as in `key=value` of `lowland run`, and the section checks it. The section's
    `model_fields_set` has the keys that were given.
    """
    signature = inspect.signature(command, eval_str=True)
    sections: dict[str, tuple[type[Section], dict[str, str]]] = {}  # options by their keys
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        section, keys = [*get_args(parameter.annotation), None, None][:2]
        if isinstance(keys, Keys):
            options = [key for key in keys_of(section) if key.name not in keys.but]
            texts = {key.name: _option_name(key.name, keys) for key in options}
            sections[parameter.name] = section, texts
            parameters += [_parameter(key, texts[key.name]) for key in options]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        for name, (section, options) in sections.items():
            settings = {
                key: _value(section, key, value, where=option)
                for key, option in options.items()
                if (value := values.pop(key)) is not None
            }
            values[name] = check_section(section, settings, where="options", names=options)
        command(**values)

    wrapper.__annotations__ = {each.name: each.annotation for each in parameters}
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return wrapper


def _option_name(key: str, keys: Keys) -> str:
    return keys.names.get(key, f"--{key.replace('_', '-')}")


def _parameter(key: Key, name: str) -> inspect.Parameter:
    if key.is_flag:
        both = f"{name}/{name.replace('--', '--no-', 1)}" if key.default else name
        option: Any = Annotated[bool | None, typer.Option(both, help=help_text(key))]
    else:
        help_ = help_text(key)
        option = Annotated[str | None, typer.Option(name, metavar="VALUE", help=help_)]
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(key.name, kind, default=None, annotation=option)


def help_text(key: Key) -> str:
    """What `--help` says of a key: its meaning, its values, and its default.

    >>> from lowland.runs.shape_sections import Growth
    >>> help_text(keys_of(Growth)[2])
    'Length of fitting each vertex (epochs; integer >= 1; default: 10).'
    """
    default = "" if key.default in (None, []) else f"default: {default_text(key.default)}"
    values = key.values.removesuffix(" or `null`")  # an option that is left out is null
    facts = "; ".join(filter(None, [key.unit, values, default]))
    return f"{key.description[:1].upper()}{key.description[1:]} ({facts})."


def _value(section: type[Section], key: str, text: str | bool, *, where: str) -> Any:
    """The value of an option; a list may also be words with commas between, or `none`."""
    if isinstance(text, bool):
        return text
    value = read_value(text, where=where)
    annotation = section.model_fields[key].annotation
    is_list = any(get_origin(form) is list for form in (annotation, *get_args(annotation)))
    if not is_list or isinstance(value, list | None):
        return value
    words = str(value).split(",")
    return [] if words == ["none"] else [word.strip() for word in words if word.strip()]
