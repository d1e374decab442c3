"""The state of training at the end of an epoch, from which another call continues."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, TypedDict, get_type_hints

from torch import Tensor
from torch.optim import Optimizer

from lowland.artifacts.checkpoint import require_same
from lowland.errors import ConfigError
from lowland.files import PathLike
from lowland.schema import require
from lowland.tensor_files import load_tree, restoring, save_tree, tensor_checksum

KIND = "training checkpoint 2"
# of a checkpoint: all but its log and its collectors
_FIELDS = (
    *("rng", "epoch", "batch", "step", "model"),
    *("optimizer", "schedule", "scaler", "needs_closure"),
)


class _File(TypedDict):
    same: dict[str, Any]
    state: dict[str, Any]


class _Position(TypedDict):
    epoch: int
    batch: int
    step: int
    columns: dict[str, list[Any] | Tensor]  # of networks side by side: (epochs, M)
    partial: dict[str, Any]


def require_position(state: Mapping[str, Any], *, source: Any) -> None:
    """Checks the form of a checkpoint's position and log, see `schema.require`."""
    require({name: state[name] for name in get_type_hints(_Position)}, _Position, source=source)


@dataclass(frozen=True)
class TrainingState:
    """Weights, buffers, optimizer, schedule and random states at the end of an epoch of `sgd`.

    `sgd(..., start=state)` continues from it. With the same optimizer and schedule, a first part
    and its continuation equal one run bit by bit; `without_schedule` begins another schedule, so
    that several trainings share their first epochs.

    Attributes:
        settings: of the run that it comes from. state: of weights, optimizer and all else.

    >>> import tempfile, torch
    >>> from lowland.core import Regression
    >>> from lowland.train import Batches, sgd
    >>> x = torch.linspace(-1, 1, 32)[:, None]
    >>> data, file = Batches((x, 2 * x), batch_size=8), tempfile.mkdtemp() + "/run.safetensors"
    >>> net = torch.nn.Linear(1, 1)
    >>> log = sgd(net, Regression(noise_variance=1.0), data, epochs=3, checkpoint=file)
    >>> state = TrainingState.load(file)
    >>> state.epoch, state.step
    (3, 12)
    >>> log = sgd(net, Regression(noise_variance=1.0), data, epochs=2, start=state)
    >>> log.columns["epoch"].tolist()
    [4.0, 5.0]
    """

    settings: Mapping[str, Any]
    state: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """Epochs of training so far."""
        return int(self.state["epoch"])

    @property
    def step(self) -> int:
        """Steps of the optimizer so far."""
        return int(self.state["step"])

    @property
    def fingerprint(self) -> str:
        """What distinguishes it from other states, for the settings of a checkpoint."""
        weights = tensor_checksum(*self.state["model"].values())
        return f"{weights}, step {self.step}, {'its' if self.keeps_schedule else 'no'} schedule"

    @classmethod
    def of(cls, start: TrainingState | PathLike) -> TrainingState:
        """What a caller gave as `start=`."""
        return start if isinstance(start, TrainingState) else cls.load(start)

    @classmethod
    def load(cls, path: PathLike) -> TrainingState:
        """Reads the checkpoint of a finished `sgd`, or what `save` wrote.

        Raises:
            StoreError: no such file, a damaged or foreign one. ConfigError: a run that was stopped
                within an epoch.
        """
        body: _File = load_tree(path, kind=KIND, form=_File)
        with restoring(path, KIND):
            state = {key: body["state"][key] for key in _FIELDS}
            if state["batch"] != 0:
                raise ConfigError(
                    f"start: {path} is from the middle of an epoch; finish that run, or name the "
                    "checkpoint of one that ended."
                )
            return cls(body["same"], state)

    def save(self, path: PathLike) -> None:
        """Writes it as one safetensors file, whose bytes are a function of the training alone."""
        # without the number of epochs, no run takes it for its own checkpoint
        settings = {key: value for key, value in self.settings.items() if key != "epochs"}
        save_tree(path, {"same": settings, "state": dict(self.state)}, kind=KIND)

    def without_schedule(self) -> TrainingState:
        """The same state for another schedule: it begins at the optimizer's own learning rate."""
        return replace(self, state={**self.state, "schedule": None})

    @property
    def keeps_schedule(self) -> bool:
        """Whether the schedule continues."""
        return self.state["schedule"] is not None

    def require_fits(self, settings: Mapping[str, Any]) -> None:
        """Raises `ConfigError` for another model, optimizer, or schedule that cannot continue."""
        keys, advice = ["model", "optimizer"], "train the same model by the same optimizer"
        if self.keeps_schedule:
            keys.append("schedule")
            advice += " and schedule, or begin another schedule with state.without_schedule()"
        there, now = ({key: of[key] for key in keys} for of in (self.settings, settings))
        if not self.keeps_schedule:  # other learning rates are no obstacle
            for each in (there, now):
                each["optimizer"] = each["optimizer"].partition("(")[0]
        require_same("start", there, now, advice=advice)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The state of an optimizer to load, with its present learning rates where the schedule
        begins anew. A copy: optimizers write into what they load."""
        state: dict[str, Any] = deepcopy(self.state["optimizer"])
        if not self.keeps_schedule:
            now = optimizer.state_dict()["param_groups"]
            if [group["params"] for group in now] != [g["params"] for g in state["param_groups"]]:
                raise ConfigError(
                    "start: its optimizer trained other parameters, or groups of other sizes; give "
                    "an optimizer over the same ones."
                )
            state["param_groups"] = now
        return state
