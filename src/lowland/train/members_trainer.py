"""Training many networks side by side: one step does what a step of each would."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lowland.core.data import map_tensors
from lowland.errors import ConfigError, NonFiniteError
from lowland.records import TrainingLog
from lowland.train.members import Members
from lowland.train.sam import TINY
from lowland.train.trainer import Trainer


class MembersTrainer(Trainer):
    """Trains M networks at once: losses are (M,), and network m has row m of the weights."""

    model: Members
    data: Any  # a `MemberBatches`

    def __init__(self, *rest: Any, diverged: str, **more: Any) -> None:
        self.on_divergence = diverged
        super().__init__(*rest, **more)
        if self.needs_closure:
            raise self._closure_error()
        many = len(self.model)
        self.log.sums |= {"loss": torch.zeros(many, dtype=torch.float64)}
        self.log.columns = {"loss": torch.zeros(0, many, dtype=torch.float64)}
        self.is_diverged = torch.zeros(many, dtype=torch.bool)

    def _closure_error(self) -> ConfigError:
        name = type(self.optimizer).__name__
        return ConfigError(
            f"optimizer: {name} evaluates the loss again within a step, by all weights at once, "
            "and networks side by side would see each other; train them one by one, with ll.sgd."
        )

    def _epoch_batches(self) -> Iterator[Any]:
        yield from self.data.epoch(self.epoch, start=self.batch)

    def _backward(self, batch: Any) -> None:
        losses, items, outputs = self.model.losses(self.task, *batch)
        if self.epoch == 0:
            self._check(batch[0], outputs.detach())
        if self.sam is not None:
            self.step_batches.append(batch)
        values = losses.detach()
        new = ~torch.isfinite(values).cpu() & ~self.is_diverged
        if bool(new.any()):
            self._handle_divergence(new, f"the loss is {float(values[int(new.int().argmax())])}")
        self.log.sums["loss"] += (values.double() * items).cpu()
        self.log.sums["items"] = self.log.sums["items"] + items.cpu().double()
        # a NaN stays in its network: nothing that follows mixes rows of the weights
        (losses.sum() / self.options.accumulate).backward()

    @torch.enable_grad()
    def _evaluate_again(self) -> Tensor:
        total = torch.zeros((), device=self.device)
        for batch in self.step_batches:
            loss = self.model.losses(self.task, *batch)[0].sum() / self.options.accumulate
            loss.backward()
            total += loss.detach()
        return total

    @contextmanager
    def _perturbed(self, group: dict[str, Any]) -> Iterator[None]:
        """Each network is perturbed as by `SAM` within, by the norm of its own gradient."""
        weights, gradient = self.model.weights, self.model.weights.grad
        if gradient is None:
            yield
            return
        original = weights.detach().clone()
        scale = original.abs() + group["eta"] if group["adaptive"] else torch.ones_like(original)
        slope = scale * gradient
        norms = slope.norm(dim=1, keepdim=True).clamp_min(TINY)  # (M, 1)
        weights.add_(scale * slope * (group["rho"] / norms))
        weights.grad = None
        try:
            yield
        finally:
            weights.copy_(original)

    def _check(self, batch: Any, outputs: Tensor) -> None:
        alive = torch.isfinite(outputs).flatten(1).all(1) & ~self.is_diverged.to(outputs.device)
        if bool(alive.any()):

            def as_one_batch(tensor: Tensor) -> Tensor:  # (M, B, ...), of all networks
                return tensor[alive].flatten(0, 1)

            target = self.task.parts(map_tensors(batch, as_one_batch)).target
            self.task.check(as_one_batch(outputs), target)

    def _handle_divergence(self, new: Tensor, what: str) -> None:
        which = new.nonzero().flatten().tolist()
        if self.on_divergence == "stop":
            some = ", ".join(map(str, which[:5])) + ("..." if len(which) > 5 else "")
            raise NonFiniteError(
                f"{what} in network {some} of {len(self.model)} at step {self.step + 1} (epoch "
                f"{self.epoch + 1}, batch {self.batch + 1}); lower the learning rate, or go on "
                "without with diverged='drop'. The last checkpoint and the iterates stored before "
                "it are whole."
            )
        self.is_diverged |= new

    @torch.no_grad()
    def _optimizer_step(self, accumulated: int) -> None:
        weights = self.model.weights
        if self.sam is not None:
            with self._perturbed(self.sam.param_groups[0]):
                self._evaluate_again()
            self.step_batches.clear()
        if accumulated < self.options.accumulate and weights.grad is not None:
            weights.grad.mul_(self.options.accumulate / accumulated)  # the last batches of an epoch
        if self.options.clip is not None and weights.grad is not None:
            norms = weights.grad.norm(dim=1, keepdim=True)  # (M, 1)
            weights.grad.mul_((self.options.clip / (norms + 1e-6)).clamp_max(1.0))
        try:
            self.optimizer.step()
        except Exception as error:
            missing = any(word in str(error) for word in ("closure", "NoneType"))
            if self.needs_closure is False or not missing:
                raise
            raise self._closure_error() from error
        self.needs_closure = False
        if self.schedule is not None:
            self.schedule.step()
        self._zero_diverged(weights)
        # a finite loss may still have a gradient that overflows; a sum is one read of all weights
        if not math.isfinite(float(weights.sum())):
            new = ~torch.isfinite(weights).all(1).cpu()
            if bool(new.any()):
                self._handle_divergence(new, "weights are NaN or infinite")
                self._zero_diverged(weights)
        self.step += 1
        for collector in self.collectors:
            collector.step(self.model)

    def _zero_diverged(self, weights: Tensor) -> None:
        if bool(self.is_diverged.any()):
            weights[self.is_diverged.to(weights.device)] = 0.0

    def _close_epoch(self) -> None:
        losses = self.log.sums["loss"] / self.log.sums["items"]
        losses[self.is_diverged] = math.nan
        self.log.columns["loss"] = torch.cat([self.log.columns["loss"], losses[None]])
        for name, value in (
            ("epoch", self.epoch + 1.0),
            ("lr", float(self.optimizer.param_groups[0]["lr"])),
            ("seconds", self.log.sums["seconds"]),
        ):
            self.log.columns.setdefault(name, []).append(value)
        self.log.sums = {"loss": torch.zeros_like(losses), "items": 0.0, "seconds": 0.0}
        self.epoch += 1
        self.batch = 0

    def _settings(self) -> dict[str, Any]:
        return super()._settings() | {
            "data": self.data.settings(),
            "diverged": self.on_divergence,
        }

    def _state_dict(self) -> dict[str, Any]:
        return super()._state_dict() | {"dead": self.is_diverged}

    def _load_state_dict(self, state: dict[str, Any]) -> None:
        super()._load_state_dict(state)
        self.is_diverged = state["dead"]

    def logs(self) -> list[TrainingLog]:
        many = len(self.model)
        columns = {
            name: torch.as_tensor(values, dtype=torch.float64)
            for name, values in self.log.columns.items()
        }
        columns["seconds"] = columns["seconds"] / many
        losses = columns.pop("loss")
        return [
            TrainingLog({"epoch": columns["epoch"], "loss": losses[:, m]} | columns)
            for m in range(many)
        ]
