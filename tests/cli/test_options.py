"""Options of a command are made from the keys of a section, which checks their values."""

from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner

from lowland.cli.options import Keys, help_text, with_section_options
from lowland.errors import ConfigError
from lowland.runs.keys import Section, key, keys_of


class Fit(Section):
    kinds: list[Literal["line", "curve"]] = key(["line"], "curves to fit", min_length=1)
    weight_decay: float = key(0.5, "weight decay", ge=0)
    steps: int | None = key(None, "length of the fit", unit="steps", ge=1)
    others: list[str] | None = key(None, "other curves")
    hidden: int = key(3, "what is no option")
    align: bool = key(False, "align them")
    plane: bool = key(True, "draw a plane")


def call(*args):
    """The arguments that a command receives, or the error of its section."""
    received = {}

    def command(
        name: Annotated[str, typer.Argument()],
        fit: Annotated[Fit, Keys(but=("hidden",), names={"kinds": "--kind"})],
        seed: Annotated[int, typer.Option()] = 0,
    ) -> None:
        received.update(name=name, fit=fit, seed=seed)

    app = typer.Typer()
    app.command()(with_section_options(command))
    result = CliRunner().invoke(app, args)
    if isinstance(result.exception, ConfigError):
        raise result.exception
    return result, received


def test_values_reach_the_section_and_defaults_are_its_own():
    _, received = call("a", "--weight-decay", "1e-3", "--kind", "curve", "--seed", "4")
    assert received["name"] == "a"
    assert received["seed"] == 4
    assert received["fit"] == Fit(kinds=["curve"], weight_decay=1e-3)
    assert received["fit"].model_fields_set == {"kinds", "weight_decay"}
    assert call("a")[1]["fit"].model_fields_set == set()


@pytest.mark.parametrize("text", ["line,curve", "line, curve", "[line, curve]"])
def test_a_list_is_words_or_yaml(text):
    assert call("a", "--kind", text)[1]["fit"].kinds == ["line", "curve"]


@pytest.mark.parametrize(("text", "kinds"), [("none", []), ("null", None), ("curve", ["curve"])])
def test_a_list_may_be_empty_or_absent(text, kinds):
    _, received = call("a", "--others", text)
    assert received["fit"].others == kinds


@pytest.mark.parametrize(
    ("words", "align", "plane"),
    [([], False, True), (["--align"], True, True), (["--no-plane"], False, False)],
)
def test_a_key_that_is_true_or_false_is_a_flag(words, align, plane):
    fit = call("a", *words)[1]["fit"]
    assert (fit.align, fit.plane) == (align, plane)
    assert len(fit.model_fields_set) == len(words)


def test_a_key_may_be_no_option():
    result, received = call("a", "--hidden", "4")
    assert result.exit_code == 2
    assert not received


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--weight-decay", "-1"], "--weight-decay: expected greater than or equal to 0, got -1"),
        (["--kind", "circle"], "expected 'line' or 'curve', got 'circle'"),
        (["--kind", "{"], "--kind: its value is not YAML"),
    ],
)
def test_the_section_refuses_what_is_no_value_of_a_key(options, message):
    with pytest.raises(ConfigError, match=message):
        call("a", *options)


def test_help_names_unit_values_and_default():
    texts = {each.name: help_text(each) for each in keys_of(Fit)}
    assert texts["weight_decay"] == "Weight decay (number >= 0; default: 0.5)."
    assert texts["steps"] == "Length of the fit (steps; integer >= 1)."
