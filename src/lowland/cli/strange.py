"""Rows that a run's networks were not made for: corrupted ones, and those of another data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lowland.core import Classification
from lowland.core.data import example_hashes
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.runs.config import check_section, read_value
from lowland.runs.sections import Factory
from lowland.runs.setup import Setup, is_loader
from lowland.runs.user_code import error_line
from lowland.train import Batches
from lowland.uncertainty.corruption import (
    CORRUPTIONS,
    STRENGTHS,
    Corrupted,
    Normalisation,
    one_input,
)
from lowland.uncertainty.ood import noise_like

NOISE = {"noise": "gaussian", "uniform": "uniform"}  # sets that are made here


@dataclass(frozen=True)
class Asked:
    """What the command line asked for; None: what fits the run."""

    kinds: list[str] | None = None
    strengths: tuple[int, ...] = STRENGTHS
    ood: list[str] | None = None
    baselines: list[str] | None = None
    examples: int = 2000
    seed: int = 0


class Strange:
    """The corrupted rows and the out-of-distribution rows for a run's networks.

    Attributes:
        shifts: (kind, strength) of each set of corrupted rows; empty where there are none.
        rows: how many rows of the test split each set has. sets: out-of-distribution inputs by
            name, (n, ...). notes: what was left out because it does not fit, and why.
    """

    def __init__(self, setup: Setup, asked: Asked) -> None:
        self.setup = setup
        self.notes: list[str] = []
        self.normalise = _normalise(setup)
        self.inputs = self._inputs(asked)
        self.rows = 0 if self.inputs is None else len(self.inputs)
        self.shifts = self._shifts(asked)
        self.seed = asked.seed
        self.sets = self._sets(asked)

    def corrupted(self, shifts: list[tuple[str, int]] | None = None) -> Corrupted:
        """A loader of all corrupted rows, shift after shift."""
        return Corrupted(
            self.setup.test,
            self.setup.task,
            self.shifts if shifts is None else shifts,
            seed=self.seed,
            examples=self.rows,
            normalise=self.normalise,
        )

    def unlabelled(self) -> list[tuple[Tensor]]:
        """Batches of all out-of-distribution rows, set after set."""
        size = self.setup.config.eval_batch_size
        return [(batch,) for inputs in self.sets.values() for batch in inputs.split(size)]

    def fingerprint(self, name: str) -> int:
        """A number that changes with the rows of an out-of-distribution set."""
        inputs = self.sets[name]
        return int(example_hashes(inputs, len(inputs)).sum())

    def _inputs(self, asked: Asked) -> Tensor | None:
        """The first inputs of the test split; None where they are no rows of one tensor."""
        try:
            inputs = _first(self.setup.test, self.setup, asked.examples)
            if inputs.ndim < 2 or not inputs.is_floating_point():
                raise DataError(
                    f"expected floating-point inputs (N, C, ...), got {tuple(inputs.shape)} of "
                    f"{inputs.dtype}."
                )
            return inputs
        except LowlandError as error:
            if asked.kinds or asked.ood:
                raise DataError(f"the test rows of the run: {error}") from error
            self.notes.append(f"No corrupted and no strange rows: {error}")
            return None

    def _shifts(self, asked: Asked) -> list[tuple[str, int]]:
        kinds = list(CORRUPTIONS) if asked.kinds is None else asked.kinds
        for kind in kinds:
            if kind not in CORRUPTIONS:
                raise ConfigError(
                    f"--kinds: expected some of {', '.join(CORRUPTIONS)}, or none, got {kind!r}."
                )
        if self.inputs is None or not kinds:
            return []
        shifts = [(kind, strength) for kind in kinds for strength in asked.strengths]
        try:
            if not isinstance(self.setup.task, Classification):
                raise DataError(
                    f"corruptions are for classification, not for {type(self.setup.task).__name__}."
                )
            self.seed = asked.seed
            next(iter(self.corrupted(shifts)))
        except LowlandError as error:
            if asked.kinds:
                raise DataError(f"--kinds: {error}") from error
            self.notes.append(f"No corrupted rows: {error}")
            return []
        return shifts

    def _sets(self, asked: Asked) -> dict[str, Tensor]:
        wanted = ["noise"] if asked.ood is None else asked.ood
        if self.inputs is None:
            return {}
        sets: dict[str, Tensor] = {}
        for text in wanted:
            if text in NOISE:
                name, inputs = text, noise_like(self.inputs, kind=NOISE[text], seed=asked.seed)
            else:
                name, inputs = self._named(text, asked.examples)
            sets[name if name not in sets else text] = inputs
        return sets

    def _named(self, text: str, rows: int) -> tuple[str, Tensor]:
        named = _spec(text)
        found = named.call()
        title = named.name.rpartition(":")[2]
        normalise: Normalisation | None = None
        if isinstance(found, Mapping):
            if "test" not in found:
                raise ConfigError(f"--ood {named.name}: expected a dict with test, or rows alone.")
            normalise = Normalisation(*found.get("normalise", ()))
            title = str(found.get("name", title))
            found = found["test"]
        try:
            inputs = _first(found, self.setup, rows)
        except Exception as error:  # of the user's own data set, too
            raise DataError(f"--ood {named.name}: {error_line(error)}") from error
        assert self.inputs is not None
        expected = tuple(self.inputs.shape[1:])
        if tuple(inputs.shape[1:]) != expected or not inputs.is_floating_point():
            raise DataError(
                f"--ood {named.name}: expected rows of shape {expected}, as the run's, got "
                f"{tuple(inputs.shape[1:])} of {inputs.dtype}; bring images to that shape with "
                "lowland.zoo:resize_to_match, or other rows in a callable of your own."
            )
        if not bool(torch.isfinite(inputs).all()):
            raise DataError(f"--ood {named.name}: its rows hold NaN or infinity; leave those out.")
        if normalise is not None and inputs.ndim == 4:
            inputs = self.normalise.apply(normalise.invert(inputs))
        return title, inputs.to(self.inputs)


def _spec(text: str) -> Factory:
    """`package.module:callable`, or `{name: package.module:callable, args: {...}}`."""
    value = read_value(text, where=f"--ood {text!r}") if text.lstrip().startswith("{") else text
    if isinstance(value, str) and ":" not in value:
        alone = "none stands alone; " if value == "none" else ""
        raise ConfigError(
            f"--ood {value}: {alone}expected {', '.join(NOISE)}, package.module:callable, or "
            "'{name: package.module:callable, args: {...}}'."
        )
    body = {"name": value} if isinstance(value, str) else value
    return check_section(Factory, body, where=f"--ood {text}")


def _first(data: Any, setup: Setup, rows: int) -> Tensor:
    """The inputs of the first rows of tensors, a data set or a loader."""
    if isinstance(data, Tensor):
        return data[:rows]
    loader: Iterable[Any] = data
    if not is_loader(data):
        loader = Batches(data, batch_size=setup.config.eval_batch_size, shuffle=False)
    parts, seen = [], 0
    for batch in loader:
        parts.append(one_input(setup.task.parts(batch))[: rows - seen])
        seen += len(parts[-1])
        if seen >= rows:
            break
    if not seen:
        raise DataError("it gave no rows; check its data set.")
    return torch.cat(parts)


def _normalise(setup: Setup) -> Normalisation:
    found = setup.data.get("normalise", ())
    try:
        made = Normalisation(*found)
        mean, std = (torch.as_tensor(part, dtype=torch.float64) for part in made)
        fits = mean.ndim == std.ndim == 1 and bool((std > 0).all())
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        raise ConfigError(
            f"{setup.config.data.name}: normalise: expected (means, deviations), a number a "
            f"channel each, got {found!r}."
        )
    return made
