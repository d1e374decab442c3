"""Data that the networks of a run were not trained for: corrupted images, other data sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import ValidationInfo, field_validator
from torch import Tensor

from lowland.artifacts import Source
from lowland.core import Classification
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.runs.config import check_section, read_value
from lowland.runs.keys import Section, key
from lowland.runs.sections import Factory
from lowland.runs.setup import Setup, is_loader
from lowland.runs.sources import content_of
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

OOD = "ood/"  # the beginning of the names of out-of-distribution sets
NOISE = {"noise": "gaussian", "uniform": "uniform"}  # generated sets
BASELINES = ("temperature", "dropout", "laplace")
RANDOM = ("gaussian_noise",)  # corruptions that depend on the seed


class CompareOptions(Section):
    """The options of the command line; None: what fits the run."""

    kinds: list[str] | None = key(
        None,
        f"corruptions, of {', '.join(CORRUPTIONS)}; none for none; `null`: all, where the data are "
        "images",
    )
    strengths: list[int] = key(list(STRENGTHS), "strengths of corruption", min_length=1)
    ood: list[str] | None = None
    baselines: list[str] | None = key(
        None,
        f"rows made from the annealed SGD run, of {', '.join(BASELINES)}; none for none; `null`: "
        "those that fit",
    )
    examples: int = key(
        2000, "examples of the test split that are corrupted, and of each other set", ge=2
    )
    seed: int = key(0, "seed of the noise of corruptions and sets", ge=0)

    @field_validator("kinds", "strengths", "baselines")
    @classmethod
    def _require_choices(cls, values: list[Any] | None, info: ValidationInfo) -> list[Any] | None:
        """Each once, in the order of the strengths."""
        if values is None:
            return None
        every: Any = {"kinds": CORRUPTIONS, "strengths": STRENGTHS, "baselines": BASELINES}
        choices = every[info.field_name]
        if not set(values) <= set(choices):
            raise ValueError(f"expected some of {', '.join(map(str, choices))}")
        values = list(dict.fromkeys(values))
        return sorted(values) if info.field_name == "strengths" else values


@dataclass(frozen=True)
class Corruption:
    """The settings of a corrupted test set.

    Attributes:
        seed: of its noise; 0 where it has none. examples: the first so many of the test split.
        mean, std: those that the images were standardised with.
    """

    kind: str
    strength: int
    seed: int
    examples: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        """Of the set."""
        return f"corrupted/{self.kind}-{self.strength}"

    def loader(self, setup: Setup) -> Corrupted:
        """The batches of the test split of a run, corrupted."""
        return Corrupted(
            setup.test,
            setup.task,
            [(self.kind, self.strength)],
            seed=self.seed,
            examples=self.examples,
            normalise=Normalisation(self.mean, self.std),
        )


@dataclass(frozen=True)
class ShiftedSet:
    """A corrupted or an out-of-distribution set.

    Attributes:
        name: of its predictions. size: its number of examples. corruption: its settings, where it
            is corrupted. sources: what its predictions are built from, where it is another set.
    """

    name: str
    loader: Iterable[Any]
    size: int
    corruption: Corruption | None = None
    sources: tuple[Source, ...] = ()


class ShiftedData:
    """The corrupted and the out-of-distribution examples for the networks of a run.

    Attributes:
        examples: the size of each corrupted set. corruptions: one for each kind and strength; empty
            where the data cannot be corrupted. sets: out-of-distribution inputs by name, (n, ...).
        notes: what was left out because it does not fit, and why.
    """

    def __init__(self, setup: Setup, options: CompareOptions) -> None:
        self.setup = setup
        self.notes: list[str] = []
        self.normalise = _normalisation(setup)
        self.inputs = self._inputs(options)
        self.examples = 0 if self.inputs is None else len(self.inputs)
        self.corruptions = self._corruptions(options)
        self.sets = self._sets(options)

    def passes(self, prefix: str) -> list[list[ShiftedSet]]:
        """The sets with targets and those without: each list can be predicted in one pass.

        `prefix`: of the names of sources.
        """
        corrupted = [
            ShiftedSet(each.name, each.loader(self.setup), each.examples, each)
            for each in self.corruptions
        ]
        others = []
        for name, inputs in self.sets.items():
            batches = [(batch,) for batch in inputs.split(self.setup.config.eval_batch_size)]
            source = Source(f"{prefix}/{OOD}{name}", inputs, content_of(inputs))
            others.append(ShiftedSet(OOD + name, batches, len(inputs), sources=(source,)))
        return [corrupted, others]

    def _inputs(self, options: CompareOptions) -> Tensor | None:
        """The first inputs of the test split; None where they are no examples of one tensor."""
        try:
            inputs = _first(self.setup.test, self.setup, options.examples)
            if inputs.ndim < 2 or not inputs.is_floating_point():
                raise DataError(
                    f"expected floating-point inputs (N, C, ...), got {tuple(inputs.shape)} of "
                    f"{inputs.dtype}."
                )
            return inputs
        except LowlandError as error:
            if options.kinds or options.ood:
                raise DataError(f"the test examples of the run: {error}") from error
            self.notes.append(f"No corrupted and no out-of-distribution examples: {error}")
            return None

    def _corruptions(self, options: CompareOptions) -> list[Corruption]:
        kinds = list(CORRUPTIONS) if options.kinds is None else options.kinds
        if self.inputs is None or not kinds:
            return []
        wide = (torch.as_tensor(part, dtype=torch.float64) for part in self.normalise)
        mean, std = (tuple(part.tolist()) for part in wide)
        corruptions = [
            Corruption(
                kind, strength, options.seed if kind in RANDOM else 0, self.examples, mean, std
            )
            for kind in kinds
            for strength in options.strengths
        ]
        try:
            if not isinstance(self.setup.task, Classification):
                raise DataError(
                    f"corruptions are for classification, not for {type(self.setup.task).__name__}."
                )
            next(iter(corruptions[0].loader(self.setup)))
        except LowlandError as error:
            if options.kinds:
                raise DataError(f"--kinds: {error}") from error
            self.notes.append(f"No corrupted examples: {error}")
            return []
        return corruptions

    def _sets(self, options: CompareOptions) -> dict[str, Tensor]:
        specs = ["noise"] if options.ood is None else options.ood
        if self.inputs is None:
            return {}
        sets: dict[str, Tensor] = {}
        for spec in specs:
            if spec in NOISE:
                name, inputs = spec, noise_like(self.inputs, kind=NOISE[spec], seed=options.seed)
            else:
                name, inputs = self._callable(spec, options.examples)
            sets[name if name not in sets else spec] = inputs
        return sets

    def _callable(self, spec: str, count: int) -> tuple[str, Tensor]:
        """The name and the inputs of the set that a callable returns."""
        factory = _parse(spec)
        data = factory.call()
        title = factory.name.rpartition(":")[2]
        normalise: Normalisation | None = None
        if isinstance(data, Mapping):
            if "test" not in data:
                raise ConfigError(
                    f"--ood {factory.name}: expected a dict with test, or examples alone."
                )
            normalise = Normalisation(*data.get("normalise", ()))
            title = str(data.get("name", title))
            data = data["test"]
        try:
            inputs = _first(data, self.setup, count)
        except Exception as error:  # of the user's own data set, too
            raise DataError(f"--ood {factory.name}: {error_line(error)}") from error
        assert self.inputs is not None
        expected = tuple(self.inputs.shape[1:])
        if tuple(inputs.shape[1:]) != expected or not inputs.is_floating_point():
            raise DataError(
                f"--ood {factory.name}: expected examples of shape {expected}, as the run's, got "
                f"{tuple(inputs.shape[1:])} of {inputs.dtype}; bring images to that shape with "
                "lowland.zoo:resize_to_match, or other examples in a callable of your own."
            )
        if not bool(torch.isfinite(inputs).all()):
            raise DataError(
                f"--ood {factory.name}: its examples hold NaN or infinity; leave those out."
            )
        if normalise is not None and inputs.ndim == 4:
            inputs = self.normalise.apply(normalise.invert(inputs))
        return title, inputs.to(self.inputs)


def _parse(spec: str) -> Factory:
    """`package.module:callable`, or `{name: package.module:callable, args: {...}}`."""
    value = read_value(spec, where=f"--ood {spec!r}") if spec.lstrip().startswith("{") else spec
    if isinstance(value, str) and ":" not in value:
        alone = "none stands alone; " if value == "none" else ""
        raise ConfigError(
            f"--ood {value}: {alone}expected {', '.join(NOISE)}, package.module:callable, or "
            "'{name: package.module:callable, args: {...}}'."
        )
    body = {"name": value} if isinstance(value, str) else value
    return check_section(Factory, body, where=f"--ood {spec}")


def _first(data: Any, setup: Setup, count: int) -> Tensor:
    """The inputs of the first examples of tensors, a data set or a loader."""
    if isinstance(data, Tensor):
        return data[:count]
    loader: Iterable[Any] = data
    if not is_loader(data):
        loader = Batches(data, batch_size=setup.config.eval_batch_size, shuffle=False)
    parts, size = [], 0
    for batch in loader:
        parts.append(one_input(setup.task.parts(batch))[: count - size])
        size += len(parts[-1])
        if size >= count:
            break
    if not size:
        raise DataError("it gave no examples; check its data set.")
    return torch.cat(parts)


def _normalisation(setup: Setup) -> Normalisation:
    value = setup.data.get("normalise", ())
    try:
        normalise = Normalisation(*value)
        mean, std = (torch.as_tensor(part, dtype=torch.float64) for part in normalise)
        fits = mean.ndim == std.ndim == 1 and bool((std > 0).all())
    except (TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        raise ConfigError(
            f"{setup.config.data.name}: normalise: expected (means, deviations), a number a "
            f"channel each, got {value!r}."
        )
    return normalise
