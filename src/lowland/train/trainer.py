"""The training loop: steps with mixed precision and collectors, and checkpoints at any step."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lowland import checks
from lowland.artifacts import Checkpoint
from lowland.core import ParamLayout, Task
from lowland.core.autograd import value_of
from lowland.core.call import call
from lowland.core.data import move
from lowland.core.template import autocast_dtype
from lowland.errors import ConfigError, DataError
from lowland.files import PathLike
from lowland.progress import reporting
from lowland.tensor_files import restoring
from lowland.train.batches import (
    Batches,
    full_batches,
    no_examples_error,
    num_batches,
    rest_of_epoch,
)
from lowland.train.closure import requires_closure, take_step
from lowland.train.epoch_log import EpochLog
from lowland.train.model_state import load_model_state, model_state
from lowland.train.options import (
    StepCollector,
    TrainOptions,
    require_collectors,
    training_settings,
)
from lowland.train.rng import fork_global_rng, rng_state, set_rng_state
from lowland.train.sam import SAM
from lowland.train.training_state import KIND, TrainingState, require_position

SAVE_SECONDS = 20.0  # between checkpoints


class Trainer:
    """Trains a model: from its present weights, a training state or a checkpoint. See `sgd`."""

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        data: Iterable[Any],
        options: TrainOptions,
        *,
        epochs: int,
        collectors: Sequence[StepCollector] = (),
        validate: Callable[[Any], Mapping[str, float]] | None = None,
        device: torch.device | str | None = None,
        start: TrainingState | PathLike | None = None,
    ) -> None:
        epochs = checks.whole("epochs", epochs, least=1)
        self.model = checks.module("model", model)
        self.task = task.for_model(model)
        self.data = full_batches(data, self.task) if options.drop_last else data
        self.options = options
        self.checkpoint = Checkpoint.of(options.checkpoint)
        require_collectors(collectors)
        checks.function("validate", validate, example="lambda model: {'error': ...}")
        self.collectors, self.validate = collectors, validate
        self.device = checks.device(next(model.parameters()).device if device is None else device)
        self.channels_last = options.channels_last
        model.to(self.device)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        # what is called: training state and names are those of the model itself
        self.network: Any = torch.compile(model) if options.compile else model
        trainable = [p for p in model.parameters() if p.requires_grad]
        optimizer = options.optimizer_of(trainable)
        self.sam = optimizer if isinstance(optimizer, SAM) else None
        # with SAM, the one that takes the step after the second pass
        self.optimizer: Optimizer = self.sam.base_optimizer if self.sam else optimizer
        self.needs_closure = requires_closure(self.optimizer)
        self.step_batches: list[Any] = []  # to evaluate the loss again
        self.schedule = options.schedule_of(self.optimizer)
        self.autocast = autocast_dtype(options.autocast, self.device)
        half = self.autocast is torch.float16 and self.device.type == "cuda"
        if half and self.needs_closure:
            raise ConfigError(
                f"optimizer: {type(self.optimizer).__name__} evaluates the loss again within a "
                "step, which torch's GradScaler does not support; use autocast=torch.bfloat16."
            )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        self.always_eval = [m for m in model.modules() if model.training and not m.training]
        self.layout = ParamLayout(model)
        self.start = None if start is None else TrainingState.of(start)
        self.epoch = self.first_epoch = 0 if self.start is None else self.start.epoch
        self.epochs = self.first_epoch + epochs  # when this ends, of all segments
        self.batch = 0  # batches done in this epoch
        self.step = self.first_step = 0 if self.start is None else self.start.step
        self.settings = self._settings()
        if self.start is not None:
            self.start.require_fits(self.settings)
        self.log = EpochLog()
        self.last_save = time.monotonic(), 0  # time and step of the last checkpoint

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Trains all epochs that the checkpoint does not have yet; modules keep their modes."""
        modes = {module: module.training for module in self.model.modules()}
        with (
            fork_global_rng(self.options.seed),
            reporting(self.options.progress, "train") as report,
        ):
            try:
                self.resume()
                while self.epoch < self.epochs:
                    self._train_epoch(report)
            finally:
                for module, training in modes.items():
                    module.training = training

    def _train_epoch(self, report: Any) -> None:
        self.model.train()
        for module in self.always_eval:
            module.training = False
        started = time.perf_counter()
        total = num_batches(self.data)
        if total is not None:
            total = math.ceil(total / self.options.accumulate) * (self.epochs - self.first_epoch)
        accumulated = 0  # batches since the last optimizer step
        for batch in self._epoch_batches():
            if accumulated == 0:
                self.optimizer.zero_grad(set_to_none=True)
            self._backward(batch)
            self.batch += 1
            accumulated += 1
            if accumulated == self.options.accumulate:
                self._optimizer_step(accumulated)
                accumulated = 0
                started = self._save_if_due(started)
                report(self.step - self.first_step, total)
        if self.batch == 0:
            raise no_examples_error(is_first_pass=self.epoch == self.first_epoch)
        if accumulated:
            self._optimizer_step(accumulated)
        self.log.check()
        self.log.sums["seconds"] += time.perf_counter() - started
        self._close_epoch()
        last = self.epoch == self.epochs
        # an epoch of a small network may take less time than a checkpoint
        if self.checkpoint.path is not None and (last or self._checkpoint_due()):
            self.save()
        report(self.step - self.first_step, total)

    def _backward(self, batch: Any) -> None:
        batch = self.task.parts(batch)
        batch = move(batch, self.device, channels_last=self.channels_last)
        if batch.target is None:
            raise DataError("the training batches have no target: give (inputs, target).")
        items = self.task.count(batch)
        loss = self._loss_and_gradient(batch, items)
        if self.needs_closure is not False or self.sam is not None:
            self.step_batches.append(batch)
        self.log.add(loss, items, step=self.step, epoch=self.epoch, batch=self.batch)

    def _loss_and_gradient(self, batch: Any, items: int) -> Tensor:
        """The batch's mean loss; its gradient is added to that of the parameters."""
        args, kwargs, target = batch
        with self._autocast():
            output = self.task.output(call(self.network, args, kwargs))
        if self.epoch == self.first_epoch:
            self.task.check(output, target)
        loss = self.task.items_nll(output, target).sum() / max(items, 1)
        self.scaler.scale(loss / self.options.accumulate).backward()
        return loss.detach()

    def _optimizer_step(self, accumulated: int) -> None:
        if self.sam is not None:
            with self.sam.perturbed():
                loss = self._evaluate_again()
            # checked, and no part of the mean
            self.log.add(loss, 0, step=self.step, epoch=self.epoch, batch=self.batch - 1)
        self._finish_gradient(accumulated)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            required = self.needs_closure
            self.needs_closure = take_step(self.optimizer, self._closure, required=required)
        self.step_batches.clear()
        if self.schedule is not None:
            self.schedule.step()
        self.step += 1
        for collector in self.collectors:
            collector.step(self.model)

    def _finish_gradient(self, accumulated: int) -> None:
        """The mean over the batches of a step, and clipped."""
        optimised = [p for group in self.optimizer.param_groups for p in group["params"]]
        if accumulated < self.options.accumulate:  # the last batches of an epoch
            for p in optimised:
                if p.grad is not None:
                    p.grad.mul_(self.options.accumulate / accumulated)
        if self.options.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(optimised, self.options.clip)

    def _closure(self) -> Tensor:
        """The loss of this step's batches and its gradient at the present weights, clipped."""
        loss = self._evaluate_again()
        self._finish_gradient(len(self.step_batches))
        return loss

    @torch.enable_grad()
    def _evaluate_again(self) -> Tensor:
        """The loss of this step's batches and its gradient at the present weights.

        Buffers stay as the first pass left them: statistics of batches count once a step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        buffers = self._training_buffers()
        before = [buffer.clone() for buffer in buffers]
        counts = map(self.task.count, self.step_batches)
        losses = list(map(self._loss_and_gradient, self.step_batches, counts))
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
        return torch.stack(losses).mean()

    def _training_buffers(self) -> list[Tensor]:
        """The buffers that a forward pass in training mode may change."""
        return list(self.model.buffers())

    def _save_if_due(self, started: float) -> float:
        """Saves in the middle of an epoch, where a checkpoint is due; returns the new start of the
        clock."""
        if self.checkpoint.path is None or not self._checkpoint_due():
            return started
        self.log.check()
        self.log.sums["seconds"] += time.perf_counter() - started
        self.save()
        return time.perf_counter()

    def _checkpoint_due(self) -> bool:
        every, (when, step) = self.options.checkpoint_steps, self.last_save
        if step == self.step:  # the last step of the epoch was saved already
            return False
        if every is None:
            return time.monotonic() - when >= SAVE_SECONDS
        return self.step % every == 0

    def _close_epoch(self) -> None:
        metrics, validate = {}, self.validate
        if validate is not None:
            self.model.eval()
            metrics = {k: float(v) for k, v in value_of(lambda: validate(self.model)).items()}
        self.log.close(self.epoch, float(self.optimizer.param_groups[0]["lr"]), metrics)
        self.epoch += 1
        self.batch = 0

    def _epoch_batches(self) -> Iterator[Any]:
        """The rest of this epoch."""
        if isinstance(self.data, Batches):
            return self.data.epoch(self.epoch, start=self.batch)
        return rest_of_epoch(self.data, self.epoch, done=self.batch, seed=self.options.seed)

    def _autocast(self) -> Any:
        if not self.autocast:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)

    # -- checkpoints -----------------------------------------------------------------------------

    def _settings(self) -> dict[str, Any]:
        """What must be the same for a run to continue: taken before its first step."""
        keys = ("accumulate", "clip", "seed")
        start = {} if self.start is None else {"start": self.start.fingerprint}
        return {
            "model": self.layout.fingerprint,
            "task": repr(self.task),
            **training_settings(self.data, self.optimizer, self.schedule),
            "epochs": self.epochs,
            **{key: getattr(self.options, key) for key in keys},
            **start,
        }

    def save(self) -> None:
        # a step may overflow whose loss was finite: such weights must not replace good ones
        self.layout.require_finite(
            self.layout.flatten(self.model), what=f"no checkpoint at step {self.step}: the weights"
        )
        self.checkpoint.save(self._state_dict(), kind=KIND, same=self.settings)
        self.last_save = time.monotonic(), self.step

    def _state_dict(self) -> dict[str, Any]:
        return {
            "rng": rng_state(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "columns": self.log.columns,
            "partial": self.log.sums,
            "model": model_state(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": None if self.schedule is None else self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "needs_closure": self.needs_closure,
            "collectors": [collector.state_dict() for collector in self.collectors],
        }

    def resume(self) -> None:
        state = self.checkpoint.load(kind=KIND, same=self.settings, form=dict[str, Any])
        if state is not None:
            with self.checkpoint.restoring(KIND):
                self._load_state_dict(state)
            return
        if self.start is not None:
            with restoring("start", KIND):
                optimizer = self.start.optimizer_state(self.optimizer)
                self._load_training_state({**self.start.state, "optimizer": optimizer})
        if self.checkpoint.path is not None:
            self.save()  # stores that are ahead of the next checkpoint can go back to this one

    def _load_training_state(self, state: Mapping[str, Any]) -> None:
        load_model_state(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None and state["schedule"] is not None:
            self.schedule.load_state_dict(state["schedule"])
        if state["scaler"]:  # else the state is of full precision
            self.scaler.load_state_dict(state["scaler"])
        self.needs_closure = state["needs_closure"]
        set_rng_state(state["rng"])

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        self._load_training_state(state)
        for collector, saved in zip(self.collectors, state["collectors"], strict=True):
            collector.load_state_dict(saved)
        require_position(state, source=self.checkpoint.path)
        self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
        self.log.columns, self.log.sums = state["columns"], state["partial"]
