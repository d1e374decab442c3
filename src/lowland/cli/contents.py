"""The contents of averaged checkpoints, and what an average did with each tensor and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from rich.console import Console
from torch import Tensor

from lowland.cli.console import say
from lowland.core import ParamLayout
from lowland.trajectory.moments import Moments
from lowland.trajectory.singular_vectors import spectral_norms
from lowland.trajectory.tensor_kinds import Kind, kinds_of

_SHOWN = 6  # names in a line; average.json has all
_AVERAGED = (Kind.WEIGHT, Kind.STATISTICS, Kind.RANGES)  # floating-point buffers of a model
_PARAMETERS = re.compile(r"weight|bias|lora_|original\d*$")  # in the last part of a name


class Outcome(NamedTuple):
    """What an average did with tensors of one kind; `{}` in the text is how many they are."""

    text: str
    names: list[str]


@dataclass(frozen=True)
class Contents:
    """The tensors of a checkpoint, and the other entries of its file.

    Attributes:
        tensors: by name; quantised weights in float32. kinds: of the tensors.
        dequantized: names of quantised weights. extra: names of entries that are no tensors.
            foreign: names of tensors that the model of a configuration does not have.
    """

    tensors: dict[str, Tensor]
    kinds: dict[str, Kind]
    dequantized: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()

    def of_model(self, tensors: dict[str, Tensor]) -> Contents:
        """The contents that belong to a model: its tensors under its names."""
        own = {id(tensor) for tensor in tensors.values()}
        foreign = tuple(name for name, t in self.tensors.items() if id(t) not in own)
        return replace(self, tensors=tensors, kinds=kinds_of(tensors), foreign=foreign)

    def rest(self, layout: ParamLayout) -> list[str]:
        """The names of tensors that are not averaged."""
        return [n for n in self.tensors if layout.aliases.get(n, n) not in layout.names]

    def outcomes(self, layout: ParamLayout, average: Moments | None = None) -> Iterator[Outcome]:
        """What was done with tensors that are not averaged, and with those that may be buffers.

        `average`: the moments with the buffers of a model; None: without a model.
        """
        fresh = set() if average is None else {*(average.statistics or {})}
        means = set() if average is None else {*(average.buffers or {})} - fresh
        yield Outcome(
            "Quantised weights ({}) were averaged and are written in float32, without their scales",
            list(self.dequantized),
        )
        if average is None:
            yield Outcome(
                "Tensors whose names contain neither weight nor bias ({}) were averaged; exclude "
                "buffers with --where, or name the model with --config",
                [n for n in layout.names if not _PARAMETERS.search(n.rpartition(".")[2])],
            )
        rest = self.rest(layout)
        # vectors stay with a weight that is not averaged
        left = {n for norm in spectral_norms(self.tensors) if norm.weight in rest for n in norm}
        kinds = self.kinds | dict.fromkeys(left, Kind.WEIGHT)
        for kind in Kind:
            title, outcome = kind.title, kind.outcome
            if kind is Kind.WEIGHT:
                title, outcome = "What --where leaves out", "is the last checkpoint's"
                if average is not None:
                    title = "Frozen parameters and what --where leaves out"
            names = [n for n in rest if kinds[n] is kind]
            new = [n for n in names if n in fresh]
            averaged = [n for n in names if n in means and kind in _AVERAGED]
            old = [n for n in names if n not in {*new, *averaged}]
            yield Outcome(f"{title} ({{}}) {outcome}", old)
            title = "Buffers" if kind is Kind.WEIGHT else title
            again = "; calibrate them again" if kind is Kind.RANGES else ""
            yield Outcome(f"{title} ({{}}) were averaged, as the weights are{again}", averaged)
            yield Outcome(f"{title} were re-estimated for the averages ({{}})", new)
        yield Outcome("Entries that are no tensors ({}) were left out", list(self.extra))
        yield Outcome(
            "Tensors that the model of the configuration does not have ({}) were left out",
            list(self.foreign),
        )


def report(outcomes: Iterable[Outcome], console: Console) -> None:
    """Prints outcomes, a line each."""
    for text, names in outcomes:
        if names:
            count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
            more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            say(console, f"{text.format(count)}: {', '.join(names[:_SHOWN])}{more}.")


def reasons(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """What was done with each tensor, by name.

    >>> reasons([Outcome("Masks ({}) are the last checkpoint's", ["mask"])])
    {'mask': "Masks are the last checkpoint's"}
    """
    return {name: text.replace(" ({})", "") for text, names in outcomes for name in names}
