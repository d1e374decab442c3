"""Artifacts of the mixtures that regressions average: `lowland compare` has their exact CRPS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lowland.artifacts import Artifact, Checkpoint, Inputs, Settings
from lowland.core import Regression
from lowland.errors import DataError
from lowland.evaluate.mixture_components import components
from lowland.posteriors import PointMass
from lowland.posteriors.base import draw_count
from lowland.progress import Report
from lowland.records import Predictive
from lowland.runs.methods import Method
from lowland.runs.results import Results
from lowland.runs.setup import Setup
from lowland.tensor_files import read_tensors, write_tensors

if TYPE_CHECKING:
    from lowland.cli.predictions import MethodPredictions

MOST = 20_000_000  # numbers of a mixture's components that are held
Components = tuple[Tensor, Tensor]  # means and variances, (S, N, D)
_FILE = "components.safetensors"


class MixtureComponents(Artifact):
    """Components of a mixture of Gaussians; None where they are too many or none.

    Args:
        kind: how they are made. compute: makes them of the inputs. title: of its progress bar;
            empty: none, for it takes a moment.
    """

    intermediate = True

    def __init__(
        self,
        kind: str,
        name: str,
        inputs: Sequence[Artifact],
        compute: Callable[[Inputs], Components | None],
        *,
        settings: Settings | None = None,
        title: str = "",
    ) -> None:
        self.kind = kind
        self.quick = not title
        self.compute = compute
        super().__init__(f"components/{name}", inputs, settings, title=title)

    def build(self, inputs: Inputs, checkpoint: Checkpoint, progress: Report) -> Components | None:
        return self.compute(inputs)

    def save(self, result: Components | None, folder: Path) -> None:
        if result is not None:
            means, variances = (tensor.contiguous() for tensor in result)
            write_tensors(folder / _FILE, {"means": means, "variances": variances}, {})

    def load(self, folder: Path) -> Components | None:
        if not (folder / _FILE).is_file():
            return None
        tensors, _ = read_tensors(folder / _FILE)
        return tensors["means"], tensors["variances"]


def method_components(results: Results, method: Method, test: Predictive) -> Components | None:
    """The components that a method of a run averages on its test examples."""
    few = test.mean is not None and test.samples * test.mean.numel() <= MOST
    post, _ = results.posterior(method)
    if not few or isinstance(post, PointMass):
        return None
    setup, config = results.run.setup, results.run.config
    _require_order(setup, test)
    samples = draw_count(post, config.samples)
    return components(setup.surface, post, setup.test, samples=samples, seed=config.seed)


def pooled_components(name: str, runs: Sequence[MethodPredictions]) -> MixtureComponents:
    """The components of all runs; a single network counts as the Gaussian that it predicts."""

    def compute(inputs: Inputs) -> Components | None:
        parts: list[Components] = []
        for run in runs:
            test = inputs[run.test.name]
            mixture = None if run.components is None else inputs[run.components.name]
            if mixture is not None:
                parts.append(mixture)
            elif test.samples == 1 and test.mean is not None and test.variance is not None:
                parts.append((test.mean.unsqueeze(0), test.variance.unsqueeze(0)))
        if len(parts) < len(runs) or len({len(mean) for mean, _ in parts}) != 1:
            return None
        if sum(mean.numel() for mean, _ in parts) > MOST:
            return None
        means, variances = zip(*parts, strict=True)
        return torch.cat(means), torch.cat(variances)

    artifacts = [each for run in runs for each in (run.test, run.components) if each is not None]
    return MixtureComponents("pooled-components", name, artifacts, compute)


def _require_order(setup: Setup, test: Predictive) -> None:
    """Raises `DataError` where the test examples come in another order than in the run."""
    task = setup.task
    assert isinstance(task, Regression)
    assert test.targets is not None
    targets = torch.cat([task.parts(batch).target.cpu() for batch in setup.test]).double()
    shift, std = task.units(targets)
    now = targets * std + shift
    if now.shape != test.targets.shape or not torch.allclose(now, test.targets.double()):
        raise DataError(
            f"{setup.config.data.name}: test gives its examples in another order each time, and "
            "predictions of the run are compared with them; give it shuffle=False."
        )
