"""The method to use: the one of the lowest NLL on validation examples, or a cheaper one as good."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs
from lowland.averaging import select
from lowland.averaging.validation import Validation
from lowland.files import write_json
from lowland.progress import Report
from lowland.runs.methods import Method
from lowland.runs.weights import save_point
from lowland.schema import read_json

if TYPE_CHECKING:
    from lowland.runs.run import Run

MODEL, BUFFERS, POSTERIOR, CHOICE = (
    "model.safetensors",
    "buffers.safetensors",
    "posterior.safetensors",
    "best.json",
)


class BestMethod(Artifact):
    """The method to use, with its weights.

    The lowest NLL on validation examples wins. A method that needs fewer networks for a prediction,
    or less training, is preferred where its NLL is at most one paired standard error higher.
    """

    kind = "best"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.methods: dict[str, Method] = {method.label(run): method for method in run.methods}
        rows = [run.row(method) for method in run.methods]
        tunings = [run.tuning(method) for method in run.methods]
        needs = [each for method in run.methods for each in method.needs(run)]
        super().__init__(
            "best",
            [*rows, *tunings, *needs, *run.statistics()],
            {"rows": list(self.methods)},
            title="best method",
        )

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> dict[str, Any]:
        label, choice = self._choose(inputs)
        self._save_weights(self.methods[label], inputs, checkpoint.folder)
        return choice

    def _choose(self, inputs: Inputs) -> tuple[str, dict[str, Any]]:
        run = self.run
        nlls = {
            label: inputs[run.tuning(method).name].nll for label, method in self.methods.items()
        }
        rows = {label: inputs[run.row(method).name] for label, method in self.methods.items()}
        cost = {label: (float(row.samples[0]), float(row.epochs[0])) for label, row in rows.items()}
        lowest = min(nlls, key=lambda label: float(nlls[label].mean().nan_to_num(math.inf)))
        groups = self._groups(len(nlls[lowest]))
        against = select(nlls, default=lowest, groups=groups)
        as_good = [
            label
            for label, more, error in zip(
                against.names, against.difference, against.difference_se, strict=True
            )
            if more <= error or label == lowest
        ]
        best = min(as_good, key=lambda label: cost[label])
        first = next(iter(self.methods))
        to_first = select({first: nlls[first], best: nlls[best]}, default=first, groups=groups)
        i = to_first.names.index(best)
        return best, {
            "method": best,
            "nll": float(to_first.nll[i]),
            "nll_se": float(to_first.nll_se[i]),
            "compared_with": first,
            "difference": float(to_first.difference[i]),
            "difference_se": float(to_first.difference_se[i]),
            "networks": cost[best][0],
            "training": cost[best][1] / (run.config.train.epochs * run.config.train.passes),
            "retrained": run.retrains,
            "tuned": dict(inputs[run.tuning(self.methods[best]).name]),
        }

    def _groups(self, items: int) -> Tensor | None:
        """(items,), the example of each pixel or token; None: each example is one item."""
        setup = self.run.setup
        if getattr(setup.validation, "num_examples", None) == items:
            return None
        return Validation(setup.surface, setup.validation).groups

    def _save_weights(self, method: Method, inputs: Inputs, folder: Path) -> None:
        setup, config = self.run.setup, self.run.config
        tuned = inputs[self.run.tuning(method).name]
        posterior = method.scaled(self.run, inputs, tuned)
        if posterior.support == 1:
            point = setup.surface.estimated(posterior.point(0))
            save_point(folder / MODEL, folder / BUFFERS, setup.model(0), setup.layout, point)
        else:
            frozen: Any = posterior
            frozen.freeze(setup.surface, samples=config.samples).save(folder / POSTERIOR)

    def save(self, result: dict[str, Any], folder: Path) -> None:
        write_json(folder / CHOICE, result)

    def load(self, folder: Path) -> dict[str, Any]:
        return read_json(folder / CHOICE, dict[str, Any])

    def view(self) -> Mapping[str, str]:
        return {name: f"best/{name}" for name in (MODEL, BUFFERS, POSTERIOR, CHOICE)}


def advice(choice: Mapping[str, Any]) -> str:
    """The choice in a line: which method to use, and why.

    >>> choice = {"method": "SWA", "nll": 0.5, "nll_se": 0.02, "compared_with": "SGD"}
    >>> choice |= {"difference": -0.1, "difference_se": 0.03, "networks": 1.0, "training": 1.15}
    >>> advice(choice)
    'Use SWA: its validation NLL is 0.500 ± 0.020, 0.100 ± 0.030 lower than that of SGD. It ...'
    """
    nll = f"{choice['nll']:.3f} ± {choice['nll_se']:.3f}"
    networks = choice["networks"]
    passes = "one network" if networks == 1 else f"{networks:.0f} networks"
    if choice["method"] == choice["compared_with"]:
        compared = ", and no method is clearly better"
    else:
        less, error = -choice["difference"], choice["difference_se"]
        compared = f", {less:.3f} ± {error:.3f} lower than that of {choice['compared_with']}"
    weights = "Its weights are in best/."
    if choice.get("retrained"):
        weights = "Its weights, trained again on all examples, are in best/."
    return (
        f"Use {choice['method']}: its validation NLL is {nll}{compared}. It takes {passes} a "
        f"prediction and {choice['training']:.2f} times the training of SGD. {weights}"
    )
