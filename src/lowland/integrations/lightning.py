"""SWA, SWAG and trajectories in Lightning's Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities import rank_zero_info
except ImportError as error:
    raise ImportError(
        'lowland.integrations.lightning needs Lightning: pip install "lowland[integrations]".'
    ) from error

from lowland.core.names import Where
from lowland.integrations.iterate_collector import IterateCollector, Target


class CollectorCallback(Callback):
    """Collects the iterates of a fit: `Trainer(callbacks=[CollectorCallback()])` for SWAG.

    Iterates are collected at the ends of batches in which the network's weights changed: after one
    step or several, of one optimizer or several, also with manual optimization. The last one is
    included. At the end of training Lightning logs what was collected. Lightning's checkpoints
    include the state, and `fit(ckpt_path=...)` continues with it. With several processes the first
    one collects; parameters must not be sharded.

    Args:
        targets: what to collect into: functions of the layout, such as `SWA`, `SWAG` (when none is
            given) or `partial(SWAG, rank=5)`, and paths of trajectories to write.
        module: the attribute of the LightningModule that is the network, such as "net"; None: all
            of it.
        start: share of the budget, of `max_steps` or `max_epochs`, after which iterates are taken.
        every_epochs, every_steps: how often; every epoch if neither is given. Each batch counts as
            one step.
        where: which parameters, see `ParamLayout`.

    Attributes:
        targets: the averages and stores, from the start of the fit on.

    >>> callback = CollectorCallback("iterates", module="net", start=0.5, every_steps=100)
    """

    def __init__(
        self,
        *targets: Target,
        module: str | None = None,
        start: float = 0.75,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        where: Where = None,
    ) -> None:
        self._collector = IterateCollector(
            targets, start=start, every_epochs=every_epochs, every_steps=every_steps, where=where
        )
        self._module = module
        self._key = {"module": module, "every_epochs": every_epochs, "every_steps": every_steps}

    @property
    def targets(self) -> tuple[Any, ...]:
        """What is collected into."""
        return self._collector.targets

    @property
    def state_key(self) -> str:
        """Lightning's name for the state of this callback among others of the class."""
        key: str = self._generate_state_key(**self._key)
        return key

    def _network(self, pl_module: LightningModule) -> Any:
        return pl_module if self._module is None else attrgetter(self._module)(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds the targets, or continues those of the checkpoint."""
        if not trainer.is_global_zero:
            self._collector.load_state_dict({})  # every process was given the checkpoint's
            return
        share = _share(trainer, 0)
        self._collector.begin(
            self._network(pl_module),
            budget=share is not None,
            length=math.isfinite(trainer.num_training_batches),
            done=trainer.global_step,
            share=share or 0.0,
            epoch=trainer.current_epoch,
        )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Takes the iterate where it is due."""
        if not trainer.is_global_zero:
            return
        last = batch_idx + 1 == trainer.num_training_batches
        self._collector.step(
            self._network(pl_module),
            step=trainer.global_step,
            share=_share(trainer, batch_idx + 1) or 0.0,
            epoch=trainer.current_epoch + 1 if last else None,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints what was collected, or warns that it is too little."""
        if trainer.is_global_zero:
            rank_zero_info(f"lowland: {self._collector.end()}")

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return self._collector.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From Lightning's checkpoints."""
        self._collector.load_state_dict(state)


def _share(trainer: Trainer, batches: int) -> float | None:
    """How much of the budget is used up after so many batches of this epoch; None: it has none."""
    shares = []
    if trainer.max_steps > 0:
        shares.append(trainer.global_step / trainer.max_steps)
    length, epochs = trainer.num_training_batches, trainer.max_epochs
    if epochs is not None and epochs > 0 and math.isfinite(length):
        shares.append((trainer.current_epoch + batches / max(length, 1)) / epochs)
    return max(shares, default=None)
