"""SWA, SWAG and trajectories in the Trainer of Hugging Face's transformers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

try:
    from transformers import TrainerCallback
except ImportError as error:
    raise ImportError(
        'lowland.integrations.transformers needs transformers: pip install "lowland[integrations]".'
    ) from error

from lowland.core.names import Where
from lowland.integrations.iterate_collector import IterateCollector, Target
from lowland.tensor_files import load_tree, restoring, save_tree
from lowland.warn import warn

FILE = "lowland.safetensors"  # in each checkpoint folder
_KIND = "trainer callback"


class CollectorCallback(TrainerCallback):
    """Collects the iterates of a run: `Trainer(..., callbacks=[CollectorCallback()])` for SWAG.

    Iterates are collected after optimizer steps, and a summary is printed at the end of training.
    The state is written into each checkpoint folder as `lowland.safetensors`, and
    `train(resume_from_checkpoint=...)` continues with it. With several processes the first one
    collects; parameters must not be sharded.

    Args:
        targets: what to collect into: functions of the layout, such as `SWA`, `SWAG` (when none is
            given) or `partial(SWAG, rank=5)`, and paths of trajectories to write.
        start: share of the budget after which iterates are taken.
        every_epochs, every_steps: how often; every epoch if neither is given.
        where: which parameters, see `ParamLayout`.
        resume_from: the folder with the checkpoint folders of the resumed run; None: the Trainer's
            `output_dir`.

    Attributes:
        targets: the averages and stores, from the start of training on.

    >>> callback = CollectorCallback("iterates", start=0.5, every_steps=100)
    """

    def __init__(
        self,
        *targets: Target,
        start: float = 0.75,
        every_epochs: int | None = None,
        every_steps: int | None = None,
        where: Where = None,
        resume_from: str | None = None,
    ) -> None:
        self._collector = IterateCollector(
            targets, start=start, every_epochs=every_epochs, every_steps=every_steps, where=where
        )
        self._resume_from = resume_from
        self._length: int | None = None  # steps an epoch

    @property
    def targets(self) -> tuple[Any, ...]:
        """What is collected into."""
        return self._collector.targets

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Builds the targets, or continues those of the checkpoint."""
        if not state.is_world_process_zero:
            return
        if state.global_step:
            file = _folder(self._resume_from or args.output_dir, state.global_step) / FILE
            if file.is_file():  # else the checkpoint is from before this callback
                with restoring(file, _KIND):
                    self._collector.load_state_dict(load_tree(file, kind=_KIND))
        self._length = _steps_an_epoch(kwargs["train_dataloader"], args.gradient_accumulation_steps)
        step = state.global_step
        self._collector.begin(
            kwargs["model"],
            length=self._length is not None,
            done=step,
            share=step / state.max_steps,
            epoch=step // (self._length or 1),
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Takes the iterate where it is due."""
        if not state.is_world_process_zero:
            return
        step = state.global_step
        epoch, rest = divmod(step, self._length) if self._length else (0, 1)
        self._collector.step(
            kwargs["model"],
            step=step,
            share=step / state.max_steps,
            epoch=None if rest else epoch,
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Prints what was collected, or warns that it is too little."""
        if state.is_world_process_zero:
            text = self._collector.end()
            if args.should_log:
                print(f"lowland: {text}")  # as the Trainer itself does with its last metrics

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes the state beside the checkpoint that was just written."""
        if not state.is_world_process_zero:
            return
        folder = _folder(args.output_dir, state.global_step)
        if folder.is_dir():
            save_tree(folder / FILE, self._collector.state_dict(), kind=_KIND)
        else:  # a search over hyperparameters has folders of its own
            warn(
                f"{folder} is not there, so that what was collected is not saved: a run that goes "
                "on from this checkpoint begins to collect anew.",
            )


def _folder(output: str, step: int) -> Path:
    return Path(output) / f"checkpoint-{step}"


def _steps_an_epoch(loader: Any, accumulate: int) -> int | None:
    try:
        return math.ceil(len(loader) / accumulate)
    except TypeError:
        return None
