"""SWA, SWAG and trajectories in Lightning's Trainer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError as error:
    raise ImportError(
        'lowland.integrations.lightning needs Lightning: pip install "lowland[integrations]".'
    ) from error

from lowland.core.layout import Where
from lowland.integrations.collecting import Collecting, Target


class CollectorCallback(Callback):
    """Collects the iterates of a fit: `Trainer(callbacks=[CollectorCallback()])` makes SWAG.

    Iterates are taken after the optimizer's step, so that none is lost at the end of training. The
    state goes into Lightning's checkpoints, and `fit(ckpt_path=...)` goes on with it. With several
    processes the first one collects; parameters must not be sharded.

    Args:
        targets: what to collect into: functions of the layout, such as `SWA`, `SWAG` (when none is
            given) or `partial(SWAG, rank=5)`, and paths of trajectories to write.
        module: the attribute of the LightningModule that is the network, such as "net"; None: all
            of it.
        start: share of the budget after which iterates are taken.
        every_epochs, every_steps: how often; one epoch where neither is given.
        where: which parameters, see `ParamLayout`.

    Attributes:
        targets: the averages and stores, from the start of the fit on.

    >>> callback = CollectorCallback("walk", module="net", start=0.5, every_steps=100)
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
        self._collecting = Collecting(
            targets, start=start, every_epochs=every_epochs, every_steps=every_steps, where=where
        )
        self._module = module
        self._key = {"module": module, "every_epochs": every_epochs, "every_steps": every_steps}
        self._step = 0  # of the trainer, when last looked at

    @property
    def targets(self) -> tuple[Any, ...]:
        """What is collected into."""
        return self._collecting.targets

    @property
    def state_key(self) -> str:
        """Lightning's name for the state of this callback among others of the class."""
        key: str = self._generate_state_key(**self._key)
        return key

    def _network(self, pl_module: LightningModule) -> Any:
        return pl_module if self._module is None else attrgetter(self._module)(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Builds the targets, or goes on with those of the checkpoint."""
        self._step = trainer.global_step
        if not trainer.is_global_zero:
            self._collecting.load_state_dict({})  # every process was given the checkpoint's
            return
        self._collecting.begin(
            self._network(pl_module),
            total=trainer.estimated_stepping_batches,
            epoch=_steps_an_epoch(trainer),
            done=trainer.global_step,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Counts the batches at whose end the optimizer has stepped."""
        if trainer.global_step > self._step and trainer.is_global_zero:
            self._collecting.step(self._network(pl_module))
        self._step = trainer.global_step

    def state_dict(self) -> dict[str, Any]:
        """For Lightning's checkpoints."""
        return self._collecting.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """From Lightning's checkpoints."""
        self._collecting.load_state_dict(state)


def _steps_an_epoch(trainer: Trainer) -> float:
    batches = trainer.num_training_batches
    return (
        math.ceil(batches / trainer.accumulate_grad_batches) if math.isfinite(batches) else batches
    )
