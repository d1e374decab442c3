"""Many networks of one structure as one: their weights lie in one tensor (M, P)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lowland import checks
from lowland.core import ParamLayout, Point, Task
from lowland.core.autograd import explain_vmap_errors
from lowland.core.buffers import load_buffers
from lowland.core.data import move
from lowland.core.names import join_names
from lowland.core.template import Template
from lowland.errors import ConfigError, DataError, LayoutError
from lowland.trajectory.moments import Moments


class Members(nn.Module):
    """M independent networks as one module with one parameter, `weights` (M, P).

    One vmapped call does the work of M, and what acts on each weight alone acts on (M, P) as it
    does on M vectors: SGD with momentum and weight decay, Adam, SWA, SWAG, EMA. So
    `ParamLayout(members)` is the layout for collectors, and `split` gives each network's moments.

    Args:
        models: networks of one structure, in any number; an iterable that makes them one by one is
            never held as a whole. They are copied and not changed.
        device: where to compute; None: where the first is.

    Attributes:
        layout: of one network. weights: (M, P), row m is network m.

    Raises:
        LayoutError: networks of different structures. ConfigError: none, parameters of several
            dtypes, or operations that vmap does not know, once they are called.

    >>> members = Members(nn.Linear(1, 1, bias=False) for _ in range(3))
    >>> with torch.no_grad():
    ...     _ = members.weights.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    >>> members(torch.ones(3, 1, 1)).flatten()  # a batch a network
    tensor([1., 2., 3.], grad_fn=<...>)
    """

    def __init__(
        self, models: Iterable[nn.Module], *, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        if not isinstance(models, Iterable):
            raise ConfigError(
                f"members: expected networks, got {type(models).__name__}; give as many as there "
                "are to train, such as (make(seed) for seed in range(5))."
            )
        weights: list[Tensor] = []
        others: list[dict[str, Tensor]] = []  # of each network: state that is not part of w
        for model in models:
            if not weights:
                self.layout = ParamLayout(model)
                self.template = Template(model, device=device)
            else:
                self.layout.require_same(
                    ParamLayout(model), what=f"network {len(weights)}: its layers"
                )
            weights.append(self.layout.flatten(model).to(self.template.device))
            others.append(self._other_state(model))
        if not weights:
            raise ConfigError("members: expected at least one network.")
        kinds = {entry.dtype for entry in self.layout.entries}
        if kinds != {self.layout.dtype}:
            raise ConfigError(
                f"members: expected parameters in {self.layout.dtype}, got "
                f"{', '.join(sorted(map(str, kinds)))}; train such networks one by one."
            )
        self.weights = nn.Parameter(torch.stack(weights))
        # frozen parameters and buffers: those that all agree in, and (M, ...) of the others
        self.shared, self.per_member = self._split_shared(others)
        self.train(self.template.module.training)

    def _other_state(self, model: nn.Module) -> dict[str, Tensor]:
        device, statistics = self.template.device, self.template.statistics
        state = self.layout.state_of(model)
        return {n: t.to(device, copy=True) for n, t in state.items() if n not in statistics}

    @staticmethod
    def _split_shared(
        others: list[dict[str, Tensor]],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        first, *rest = others
        shared, per_member = {}, {}
        for name, tensor in first.items():
            values = [tensor, *(other[name] for other in rest if name in other)]
            if len(values) != len(others) or any(t.shape != tensor.shape for t in values):
                raise LayoutError(
                    f"{name}: expected a tensor {tuple(tensor.shape)} in every network; build them "
                    "by the same code."
                )
            if all(torch.equal(t, tensor) for t in values):
                shared[name] = tensor
            else:
                per_member[name] = torch.stack(values)
        return shared, per_member

    def __len__(self) -> int:
        return len(self.weights)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Outputs (M, B, ...) of inputs (M, B, ...): a batch a network."""
        if not self.training and self.template.layers:
            raise ConfigError(
                "BatchNorm statistics are not tracked side by side: predict with each network, "
                "ll.predict(surface, members.weights[m]), which refreshes them."
            )

        def one(w: dict[str, Tensor], own: dict[str, Tensor], inputs: Any) -> Any:
            return self._call(w, own, *inputs)

        return self._vmap(one, (args, kwargs))

    def losses(
        self, task: Task, batch: Any, keep: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Each network's mean NLL (M,) of its own batch, its items (M,), and the outputs.

        `keep` (M, B) masks the examples that count, where others pad a batch.
        """

        def one(
            w: dict[str, Tensor], own: dict[str, Tensor], inputs: tuple[Any, ...]
        ) -> tuple[Tensor, Tensor, Tensor]:
            batch, *masks = inputs
            args, kwargs, target = task.parts(batch)
            output = task.output(self._call(w, own, args, kwargs))
            mask, each = task.valid(target), task.items_nll(output, target)
            for keep in masks:
                if each.shape != keep.shape:
                    raise DataError(
                        "side by side, splits of different sizes are for tasks with one item an "
                        "example; use drop_last=True, or splits of as many examples."
                    )
                mask = keep if mask is None else mask & keep
                each = each * keep
            items = torch.tensor(task.count(batch)) if mask is None else mask.sum()
            items = items.to(each.device)
            return each.sum() / items.clamp_min(1), items, output

        nll, items, outputs = self._vmap(one, (batch,) if keep is None else (batch, keep))
        return nll, items, outputs

    def _call(self, w: dict[str, Tensor], own: dict[str, Tensor], args: Any, kwargs: Any) -> Any:
        mode = "train" if self.training else "eval"
        # frozen parameters are named like those of w: the template takes any by name
        return self.template({**self.shared, **own, **w}, {}, args, kwargs, mode=mode)

    def _vmap(self, function: Any, inputs: Any) -> Any:
        # dropout differs between networks
        mapped = torch.func.vmap(function, randomness="different")
        with explain_vmap_errors(
            self.template.module, instead="train them one by one, with ll.sgd"
        ):
            return mapped(self.layout.unflatten(self.weights), self.per_member, inputs)

    def point(self, m: int) -> Point:
        """Network m: its weights, and its buffers where they are its own."""
        m = checks.whole("m", m, least=0, most=len(self) - 1)
        buffers = {n: t[m] for n, t in self.per_member.items() if n in self.template.buffers}
        return Point(self.weights[m].detach(), buffers or None)

    def load_(self, model: nn.Module, m: int) -> nn.Module:
        """Writes network m into `model`, in place, and returns it: its trained weights, and its
        frozen parameters and buffers, but for BatchNorm statistics, which are not tracked."""
        m = checks.whole("m", m, least=0, most=len(self) - 1)
        load_buffers(self.layout.load_(model, self.weights[m]), self._other_state_of(m))
        return model

    def require_no_state(self, task: Task, batch: Any) -> None:
        """Raises `ConfigError` for layers whose running state training side by side would lose."""
        parts = task.parts(move(batch, self.weights.device))
        rest = self._other_state_of(0)
        parameters = {n: t for n, t in rest.items() if n not in self.template.buffers}
        parameters |= self.layout.unflatten(self.weights[0].detach())
        changed = self.template.state_changed_by_training(parameters, rest, parts)
        if changed:
            raise ConfigError(
                f"training changes {join_names(changed)}, which networks side by side would lose; "
                "train them one by one, with ll.sgd."
            )

    def _other_state_of(self, m: int) -> dict[str, Tensor]:
        return {**self.shared, **{name: tensor[m] for name, tensor in self.per_member.items()}}

    def split(self, moments: Moments) -> list[Any]:
        """The moments of each network, views of those of all.

        >>> members = Members(nn.Linear(1, 1) for _ in range(2))
        >>> from lowland.trajectory import SWA
        >>> swa = SWA(ParamLayout(members))
        >>> swa.update(members)
        >>> [one.mean.shape for one in members.split(swa)]
        [torch.Size([2]), torch.Size([2])]
        """
        ParamLayout(self).require_same(moments.layout, what="the moments")
        each = moments.split(self.layout)
        for m, one in enumerate(each):
            one.buffers_from(self.point(m))
        return each

    def extra_repr(self) -> str:
        return f"{len(self)} of {type(self.template.module).__name__}, P={self.layout.size}"


class MemberSGD(torch.optim.SGD):
    r"""SGD with momentum in which each network has its own learning rate and weight decay.

    \(v_m \leftarrow \mu v_m + \eta_m (\nabla L_m + \lambda_m w_m),\ w_m \leftarrow w_m - f v_m\),
    where f = 1 is what schedules change: torch's SGD at \(\eta_m f\), however f changes, since its
    v does not contain the learning rate. One run of `sgd_members` then searches a whole grid of
    settings.

    Args:
        params: of `Members`: one tensor (M, P). lr, weight_decay: a number, or one a network.
        momentum: of all.

    Raises:
        ConfigError: learning rates that do not fit the networks.

    >>> members = Members(nn.Linear(1, 1, bias=False) for _ in range(2))
    >>> optimizer = MemberSGD(members.parameters(), lr=[0.1, 0.2], momentum=0.0)
    >>> before = members.weights.detach().clone()
    >>> members.weights.sum().backward()
    >>> _ = optimizer.step()
    >>> (before - members.weights).detach().flatten().round(decimals=4)
    tensor([0.1000, 0.2000])
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float | Sequence[float],
        momentum: float = 0.9,
        weight_decay: float | Sequence[float] = 0.0,
    ) -> None:
        (weights,) = params
        momentum = checks.number("momentum", momentum, least=0)
        super().__init__([weights], lr=1.0, momentum=momentum)
        # plain numbers in the group: a checkpoint stores them, and refuses others
        options = (("rates", "lr", lr), ("decays", "weight_decay", weight_decay))
        for name, option, value in options:
            values = checks.numbers(option, value, least=0)
            if not isinstance(value, Sequence) and not getattr(value, "ndim", 0):
                values = values * len(weights)
            if len(values) != len(weights):
                raise ConfigError(
                    f"{option}: expected a number for each of {len(weights)} networks, got "
                    f"{len(values)}."
                )
            self.param_groups[0][name] = values

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step of all networks."""
        (group,) = self.param_groups
        (weights,) = group["params"]
        if weights.grad is not None:
            lrs, decays = weights.new_tensor([group["rates"], group["decays"]])[:, :, None]
            weights.grad.addcmul_(weights, decays).mul_(lrs)
        return super().step(closure)
