"""The last-layer Laplace approximation, a baseline computed by laplace-torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core import Classification, EvalOptions, LossSurface, Point, Regression, Task
from lowland.core.buffers import load_buffers
from lowland.core.call import check_batch
from lowland.core.data import ReplayableLoader
from lowland.core.model_copy import private_copy
from lowland.core.seeds import fork_torch_rng, seed_for
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.evaluate.batch_groups import batch_groups
from lowland.evaluate.model_average import ModelAverage
from lowland.evaluate.predictive_builder import PredictiveBuilder
from lowland.progress import Progress, reporting
from lowland.records import Predictive
from lowland.uncertainty.corruption import one_input

STRUCTURES = ("full", "kron", "diag")
PRECISIONS = tuple(10 ** (0.5 * i) for i in range(-4, 13))  # of the prior, to choose from


class LastLayerLaplace:
    r"""\(N(w_\text{last}; \hat w, (H + \delta I)^{-1})\), H the generalised Gauss-Newton matrix.

    The Laplace approximation over the last linear layer (MacKay 1992, Daxberger et al. 2021), by
    laplace-torch (`pip install "lowland[baselines]"`). Predictions are those of the network
    linearised in its last layer.

    Args:
        surface: the approximation is fitted to its examples. The task is a multiclass
            `Classification` or a `Regression` with a number for noise variance; the network has
            one input tensor and a linear last layer.
        w: a trained weight vector.
        structure: structure of H: "full", "kron" or "diag".
        validation: examples on which the prior precision \(\delta\) of the lowest NLL is chosen,
            from 0.01 to 10^6 in half decades; None: the one of the highest marginal likelihood,
            which for the last layer alone is often far too small.
        batchnorm: as for `predict`.

    Raises:
        LowlandError: laplace-torch is not installed, or refuses the network. ConfigError: another
            task or structure.

    >>> net = nn.Sequential(nn.Identity(), nn.Linear(1, 1, bias=False))
    >>> x = torch.ones(4, 1)
    >>> surface = LossSurface(net, Regression(noise_variance=1.0), [(x, 2 * x)])
    >>> pred = LastLayerLaplace(surface, torch.full((1,), 2.0)).predict([x])
    >>> bool((pred.variance > 1).all())  # the noise variance 1, and that of the weight
    True
    """

    def __init__(
        self,
        surface: LossSurface,
        w: Tensor | Point,
        *,
        structure: str = "kron",
        validation: Iterable[Any] | None = None,
        batchnorm: str | None = None,
    ) -> None:
        checks.choice("structure", structure, STRUCTURES)
        self.surface = surface
        self.task, likelihood = _likelihood(surface.task)
        Laplace = laplace_class()
        options = surface.options.override(batchnorm=batchnorm)
        network = _Network(surface, surface.point(w), options)
        try:
            with warnings.catch_warnings(), fork_torch_rng(0, surface.device):
                warnings.simplefilter("ignore")  # about its own parts, and its default link
                self.laplace = Laplace(
                    network,
                    subset_of_weights="last_layer",
                    hessian_structure=structure,
                    **likelihood,
                )
                with torch.enable_grad():
                    self.laplace.fit(_Loader(surface.data))
                    if validation is None:
                        self.laplace.optimize_prior_precision(method="marglik")
                if validation is not None:
                    self._tune_prior(surface.replayable(validation).cached())
        except LowlandError:
            raise
        except Exception as error:
            raise LowlandError(
                f"laplace-torch refuses this network ({type(error).__name__}: {error}); it takes "
                "networks of one input tensor whose last layer is nn.Linear."
            ) from error

    def predict(
        self,
        loader: Iterable[Any] | None = None,
        *,
        link: str = "probit",
        samples: int = 30,
        seed: int = 0,
        keep: str = "probs",
        progress: Progress = False,
    ) -> Predictive:
        """The prediction for a loader, as `lowland.predict` returns it; its `samples` is 1.

        Args:
            loader, keep, progress: as for `lowland.predict`.
            link: "probit" approximates the integral of the softmax by MacKay's closed form, "mc"
                by `samples` draws of the outputs with this seed; regression needs neither.
        """
        checks.choice("link", link, ("probit", "mc"))
        samples, seed = checks.whole("samples", samples, least=1), checks.seed(seed)
        data = self.surface.replayable(loader)
        builder, task, done = PredictiveBuilder(keep), self.task, 0
        with (
            torch.no_grad(),
            fork_torch_rng(seed_for("laplace", seed), self.surface.device),
            reporting(progress, "Laplace") as report,
        ):
            for group, _ in batch_groups(self.surface, data, keep):
                average = ModelAverage(task, keep=keep, example=self.surface.example)
                for index, batch in enumerate(group):
                    inputs, target = one_input(batch), batch.target
                    output = self._output(inputs, link, samples)
                    check_batch(self.task, inputs, output, target)
                    average.add(index, output.unsqueeze(0), target)
                    done += len(inputs)
                    report(done, data.num_examples)
                average.end(0, 1)
                builder.add(average)
                task = average.task
        return builder.predictive()

    def _tune_prior(self, validation: ReplayableLoader) -> None:
        """Sets the prior precision whose predictions have the lowest NLL."""
        nlls = []
        for precision in PRECISIONS:
            self.laplace.prior_precision = precision
            metrics = self.predict(validation, keep="none").metrics()
            if "nll" not in metrics:
                raise DataError("a prior precision is chosen by NLL: give examples with targets.")
            nlls.append(metrics["nll"])
        self.laplace.prior_precision = PRECISIONS[nlls.index(min(nlls))]

    def _output(self, inputs: Tensor, link: str, samples: int) -> Tensor:
        """The outputs that `self.task` expects: log probabilities, or means and variances."""
        if isinstance(self.task, Regression):
            mean, covariance = self.laplace(inputs, pred_type="glm")
            variance = covariance.diagonal(dim1=1, dim2=2) + self.laplace.sigma_noise**2
            return torch.cat([mean, variance], 1)
        probs: Tensor = self.laplace(inputs, pred_type="glm", link_approx=link, n_samples=samples)
        return probs.clamp_min(torch.finfo(probs.dtype).tiny).log()


def laplace_class() -> Any:
    """laplace-torch's function; raises `LowlandError` where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its dependencies
        return checks.package("laplace", extra="baselines", purpose="the Laplace baseline").Laplace


def _likelihood(task: Task) -> tuple[Task, dict[str, Any]]:
    """The task of the predictions, and the likelihood arguments of laplace-torch."""
    if isinstance(task, Regression) and isinstance(task.noise_variance, float):
        noise = math.sqrt(task.noise_variance)
        likelihood = {"likelihood": "regression", "sigma_noise": noise}
        return task.replace(noise_variance="learned"), likelihood
    if isinstance(task, Classification) and task.form in (None, "multiclass"):
        return task, {"likelihood": "classification"}
    raise ConfigError(
        f"the Laplace baseline takes multiclass Classification, and Regression with a number for "
        f"noise_variance; got {task!r}."
    )


class _Network(nn.Module):
    """The surface's network with fixed weights and buffers, in evaluation mode."""

    def __init__(self, surface: LossSurface, point: Point, options: EvalOptions) -> None:
        super().__init__()
        self.net = private_copy(surface.template.module)
        surface.layout.load_(self.net, point.weights)
        load_buffers(self.net, surface.buffers_for(point, options))
        self.net.requires_grad_(True)
        self.eval()
        self._task = surface.task

    def forward(self, inputs: Tensor) -> Tensor:
        return self._task.output(self.net(inputs))


class _Loader:
    """Examples as laplace-torch reads them: (inputs, target), and `len(loader.dataset)`."""

    def __init__(self, data: ReplayableLoader) -> None:
        self.data = data
        if data.num_examples is None:
            for _ in data:  # counted in a pass
                pass

    @property
    def dataset(self) -> range:
        return range(self.data.num_examples or 0)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.data:
            yield one_input(batch), batch.target
