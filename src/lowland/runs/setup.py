"""From a configuration to model, task and data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import Any

import torch
from torch import nn

from lowland.alignment import align
from lowland.core import Classification, LanguageModeling, LossSurface, Point, Regression, Task
from lowland.core.data import first_examples, is_sliceable, move
from lowland.core.half_precision import has_half_precision
from lowland.core.names import Where
from lowland.core.options import EvalOptions
from lowland.core.seeds import seed_for
from lowland.errors import ConfigError, DataError, LowlandError
from lowland.evaluate import predict
from lowland.posteriors import Posterior
from lowland.posteriors.base import draw_count
from lowland.progress import Progress
from lowland.records import Predictive
from lowland.runs.batch_check import check_first_batches
from lowland.runs.multiplications import multiplications
from lowland.runs.plan import RunPlan
from lowland.runs.pretrained import Pretrained
from lowland.runs.sections import Config, Validation
from lowland.runs.validation import with_all_examples, with_validation
from lowland.train import Batches, best_threads
from lowland.train.batches import full_batches
from lowland.train.rng import fork_global_rng

SPLITS = ("train", "validation", "test")
_TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
    "language": LanguageModeling,
}

_SMALL = 1000  # training examples, which are all read in any case


class Setup:
    """Model, task and data of a run.

    The data callable returns a mapping with "train", "validation" and "test": tuples of tensors,
    data sets or loaders. "clean" may add the training examples without augmentation, "batchnorm"
    other examples for BatchNorm statistics, such as training examples with one augmentation each,
    "transform" a function (batch, generator) -> batch for the training batches, and "normalise" the
    (means, deviations) that images were standardised with. It may also return "task", a `Task` in
    place of the configuration's, such as a `Regression` in the target's units, and "model", keyword
    arguments for the model, which those of the configuration override.

    Without "validation", examples for it are held out of the training examples.

    Attributes:
        notes: what a user should know before the run begins, a sentence each. held_out: the setup
            that does not train on the validation examples, where this one does.
    """

    held_out: Setup | None = None

    def __init__(self, config: Config, plan: RunPlan | None = None) -> None:
        self.config = config
        self.notes: list[str] = []
        self.device = self._device()
        data = self._original = config.data.call()
        if isinstance(data, Mapping) and "train" in data:
            data = self._with_validation(data)
        if not isinstance(data, Mapping) or any(name not in data for name in SPLITS):
            keys = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise ConfigError(
                f"{config.data.name}: expected a dict with train, validation and test, got {keys}."
            )
        self.data = data
        self._note_emulation()
        if config.train.sam is not None:
            self.notes.append(
                "train.sam: a step takes two passes over its batch, so that the table counts an "
                "epoch of training as two."
            )
        self.task = self._task()
        self.validation = self._loader("validation")
        self.test = self._loader("test")
        self.plan = plan
        self._take_training_examples()

    def _take_training_examples(self) -> None:
        self.clean = self.shuffled("clean" if "clean" in self.data else "train")
        self.batchnorm = self._loader("batchnorm") if "batchnorm" in self.data else None
        with fork_global_rng(self.config.seed), torch.no_grad():
            model = self.model(0)
            self.task = self.task.for_model(model)
            check_first_batches(self, model)
        self.surface = self.surface_of(self.model(0))
        self.layout = self.surface.layout

    def _with_validation(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        """The splits; where they have no validation examples, some are held out."""
        settings = self.config.validation
        if settings is None and "validation" not in data:
            settings = Validation()
            self.notes.append(
                f"{self.config.data.name} gives no validation examples: {settings.share:.0%} of "
                "the training examples are held out; `validation:` chooses which, and how many. "
                + self._retraining()
            )
        return data if settings is None else with_validation(data, settings)

    def _retraining(self) -> str:
        if self.config.average.retrain:
            return "After all choices, networks are trained again on all examples."
        return (
            "`average: {retrain: true}` gives them back: after all choices, networks are trained "
            "again on all examples."
        )

    @cached_property
    def with_all_examples(self) -> Setup:
        """The same model and task, with the validation examples among the training examples."""
        setup = copy(self)
        setup.held_out = self
        try:
            setup.data = with_all_examples(self.data, self._original)
        except DataError as error:
            raise DataError(f"{self.config.data.name}: {error}") from error
        setup._take_training_examples()
        return setup

    @cached_property
    def multiplications(self) -> float:
        """Of a forward pass, for one example."""
        device = torch.device(self.device)
        with fork_global_rng(self.config.seed):
            batch = self.task.parts(next(iter(self.validation)))
            few = first_examples(batch, 2) if is_sliceable(batch) else batch
            with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
                return multiplications(self.model(0), move(few, device))

    def surface_of(self, model: nn.Module, *, where: Where = None) -> LossSurface:
        """The loss of a model over the training examples."""
        return LossSurface(
            model,
            self.task,
            self.clean,
            where=where,
            device=self.device,
            autocast=self.autocast,
            bn_loader=self.batchnorm,
            bn_rows=self.config.bn_rows,
            reestimate=self.config.reestimate,
            channels_last=self.config.channels_last,
            options=self._options(),
        )

    def follow(self, plan: RunPlan) -> None:
        """Evaluates by a plan from now on."""
        if self.held_out is not None:
            self.held_out.follow(plan)
        self.plan = plan
        self.surface.options = self._options()

    def density_options(self) -> EvalOptions:
        """How samplers evaluate log densities."""
        options = self.surface.options
        return options if self.plan is None else options.with_plan(self.plan.density)

    def _options(self) -> EvalOptions:
        options = EvalOptions()
        return options if self.plan is None else options.with_plan(self.plan.evaluation)

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype to compute in, or None."""
        name = self.config.autocast
        return None if name is None else getattr(torch, name)

    def _note_emulation(self) -> None:
        """Notes half precision that the processor does not have: torch emulates it."""
        cpu = torch.device(self.device).type == "cpu"
        if self.autocast is not None and cpu and not has_half_precision(self.device):
            self.notes.append(
                f"autocast: {self.config.autocast}: this processor computes in it about ten times "
                "more slowly than in float32; autocast=auto avoids it."
            )

    def aligned(self, first: Point, other: Point) -> Point:
        """The other network, its hidden units in the order that is nearest to the first one's."""
        batch = self.task.parts(next(iter(self.clean)))
        return align(self.model(0), first, other, inputs=batch.kwargs or batch.args)

    def predict(
        self, post: Posterior, loader: Any, *, draws: int, seed: int, progress: Progress
    ) -> Predictive:
        """The model average of a posterior: of all its members, or of `draws` where it has none."""
        return predict(
            self.surface,
            post,
            loader,
            samples=draw_count(post, draws),
            seed=seed,
            progress=progress,
        )

    def seed(self, number: int) -> int:
        """The seed of one of the run's networks, which no run of another seed has."""
        return seed_for("network", self.config.seed, number)

    def model(self, number: int) -> nn.Module:
        """One of the run's networks before it is trained, on the device."""
        keywords = self.data.get("model", {})
        if not isinstance(keywords, Mapping):
            raise ConfigError(
                f"{self.config.data.name}: expected keyword arguments by name under 'model', got "
                f"{type(keywords).__name__}."
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed_for("first weights", self.seed(number)))
            model = self.config.model.call(**keywords)
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f"{self.config.model.name}: expected an nn.Module, got {type(model).__name__}."
            )
        if self.pretrained is not None:
            self.pretrained.load_into(model)
        return model.to(self.device)

    @cached_property
    def pretrained(self) -> Pretrained | None:
        """The network that all trainings start from; None: each starts with weights of its own."""
        path = self.config.start_from
        return None if path is None else Pretrained(path)

    def batches(self, seed: int) -> Any:
        """Training batches in the order of a seed."""
        train = self.data["train"]
        if not is_loader(train):
            train = self._batches(
                "train",
                batch_size=self.config.train.batch_size,
                seed=seed,
                transform=self.data.get("transform"),
            )
        return full_batches(train, self.task) if self.config.train.drop_last else train

    def share_of(self, examples: int | None) -> float:
        """What part of the training examples so many are; 1 where their number is not known."""
        total = getattr(self.clean, "num_examples", None)
        return 1.0 if examples is None or not total else min(1.0, examples / total)

    def length(self) -> int:
        """Batches in an epoch."""
        try:
            return len(self.batches(0))
        except TypeError:
            raise ConfigError(
                f"{self.config.data.name}: train is a loader without a length, and a budget in "
                "epochs needs one: give it a __len__, the batches of an epoch."
            ) from None

    def threads(self) -> int:
        """The number in the configuration, or the fastest for a training step."""
        if self.config.threads != "auto":
            return self.config.threads
        if self.surface.device.type != "cpu":
            return torch.get_num_threads()
        batch = next(iter(self.batches(0)))
        return best_threads(
            self.model(0),
            self.task,
            batch,
            autocast=self.autocast,
            channels_last=self.config.channels_last,
        )

    def _task(self) -> Task:
        setting = self.config.task
        task = self.data.get("task")
        if task is None:
            task = _TASKS[setting]() if isinstance(setting, str) else setting.call()
        if not isinstance(task, Task):
            raise ConfigError(f"task: expected a lowland Task, got {type(task).__name__}.")
        return task

    def _device(self) -> str:
        name = self.config.device or "cpu"
        try:
            torch.zeros(1, device=name).item()
        except Exception as error:
            what = str(error).partition("\n")[0]
            raise ConfigError(f"device: {name} cannot be used here ({what}).") from error
        return name

    def _loader(self, split: str) -> Any:
        data = self.data[split]
        if isinstance(data, Iterator):
            raise DataError(
                f"{self.config.data.name}: {split} is an iterator, which ends after one pass; give "
                "a loader, a list of batches or a data set."
            )
        if is_loader(data):
            return data
        return self._batches(split, batch_size=self.config.eval_batch_size, shuffle=False)

    def shuffled(self, split: str) -> Any:
        """The examples of a split in a random order: BatchNorm statistics and losses over fewer
        examples take the first ones, which may come class by class."""
        loader = self._loader(split)
        if not isinstance(loader, Batches) or loader.num_examples <= _SMALL:
            return loader
        size = self.config.eval_batch_size
        return self._batches(split, batch_size=size, shuffle=True, fixed=True)

    def _batches(self, split: str, **options: Any) -> Batches:
        try:
            return Batches(self.data[split], **options)
        except LowlandError as error:
            raise DataError(f"{self.config.data.name}: {split}: {error}") from error


def is_loader(data: Any) -> bool:
    """Whether `data` gives batches: neither tensors nor something to index."""
    if isinstance(data, torch.Tensor | tuple | Mapping):
        return False
    indexed = hasattr(data, "__getitem__") and not isinstance(data, list)
    return hasattr(data, "__iter__") and not indexed
