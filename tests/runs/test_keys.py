"""What people read about a key comes from its declaration."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from docs._hooks.configuration import PAGE, with_tables
from pydantic import Field, ValidationError

from lowland.runs.keys import Section, default_text, key, keys_of, section_of
from lowland.runs.sections import Config

Positive = Annotated[float, Field(gt=0)]


class Inner(Section):
    x: int = key(1, "a number")


class Outer(Section):
    kind: Literal["a", "b"] = key("a", "a word")
    scale: Literal["tune"] | Positive | Annotated[list[Positive], Field(min_length=1)] = key(
        "tune", "a number or several"
    )
    share: float = key(0.5, "a share", ge=0, lt=1)
    steps: int | None = key(None, "a length", unit="steps", ge=1)
    arguments: dict[str, Any] = key({}, "arguments")
    needed: str = key(..., "a name")
    inner: Inner = Inner()


def test_values_are_those_that_the_section_accepts():
    values = {each.name: each.values for each in keys_of(Outer)}
    assert values == {
        "kind": "`a` or `b`",
        "scale": "`tune`, number > 0 or list of number > 0",
        "share": "number >= 0 and < 1",
        "steps": "integer >= 1 or `null`",
        "arguments": "`{name: value}`",
        "needed": "text",
    }
    for bad in ({"share": 1}, {"steps": 0}, {"scale": [0.0]}, {"kind": "c"}, {"other": 1}, {}):
        with pytest.raises(ValidationError):
            Outer.model_validate({"needed": "x"} | bad if bad else {})
    assert Outer(needed="x").steps is None


def test_units_defaults_and_what_is_required():
    keys = {each.name: each for each in keys_of(Outer)}
    assert (keys["steps"].unit, keys["share"].unit) == ("steps", "")
    assert (keys["share"].default, keys["needed"].default) == (0.5, None)
    assert [name for name, each in keys.items() if each.required] == ["needed"]
    assert default_text([0.1, None, False]) == "0.1, null, false"


def test_sections_are_found_in_unions():
    assert section_of(Inner | None) is Inner
    assert section_of(int | None) is None


def sections_of(section: type[Section]) -> set[type[Section]]:
    inner = {section_of(field.annotation) for field in section.model_fields.values()}
    return {section} | {each for each in inner if each is not None and not each.is_value}


SECTIONS = {section.__name__: section for section in sections_of(Config)}


@pytest.mark.parametrize(
    "section", [SECTIONS[name] for name in sorted(SECTIONS)], ids=sorted(SECTIONS)
)
def test_every_key_of_a_run_has_a_description(section):
    for each in keys_of(section):
        assert each.description, each.name
        assert not each.description.endswith("."), each.name


def test_the_page_has_the_declared_keys():
    page = PAGE.read_text(encoding="utf-8")
    assert with_tables(page) == page, "run `python docs/_hooks/configuration.py`"
    assert with_tables(page.replace("integer", "whole number")) == page  # a page that is behind
    for section in sections_of(Config):
        assert f"<!-- keys of {section.__name__} -->" in page
    assert Path(PAGE).name == "configuration.md"


def test_the_values_of_a_section_that_another_extends():
    class Base(Section):
        lr: float = key(0.1, "learning rate")
        epochs: int = key(3, "length")

    class More(Base):
        seed: int = key(0, "seed")

    assert More(lr=0.2).values_of(Base) == {"lr": 0.2, "epochs": 3}
    assert More().values_of(Base, but={"lr"}) == {"epochs": 3}
