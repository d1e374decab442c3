"""A model as a function of its parameters and buffers: a private copy that calls never change."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from lowland import checks
from lowland.core import batchnorm as bn
from lowland.core import spectral
from lowland.core.autograd import ForwardPass, value_of
from lowland.core.buffers import Buffers
from lowland.core.call import call
from lowland.core.data import map_tensors, tensors
from lowland.core.model_copy import private_copy, unwrap
from lowland.core.names import clean_names, named_buffers
from lowland.core.places import computed_tensors, places_of, slots
from lowland.core.source import SourceModel
from lowland.errors import DataError

_HALF = (torch.bfloat16, torch.float16)  # to others torch does not autocast

Autocast = bool | str | torch.dtype | None


def autocast_dtype(autocast: Autocast, device: torch.device) -> torch.dtype | None:
    """What is meant: True is the device's usual one, which on a GPU is float16; None: none.

    >>> autocast_dtype("bfloat16", torch.device("cpu"))
    torch.bfloat16
    """
    if autocast is None or autocast is False:
        return None
    if autocast is True:
        return torch.get_autocast_dtype(device.type)
    return checks.dtype("autocast", autocast, among=_HALF)


class Template:
    """The structure of a model, called with parameters and buffers by name.

    The model that is passed in is copied and never touched: `functional_call` in training mode
    writes into the buffers of the module that it is given, which must be ours.

    Args:
        model: any module. device: where to compute; None: where the model is.
        autocast: True, or a half-precision dtype or its name, such as "bfloat16"; None: the model's
            own dtype.

    Attributes:
        buffers: the model's, as they were. layers: those that keep statistics of their inputs,
            BatchNorm and tracked InstanceNorm, by name. statistics: the names of their buffers.
        spectral: whether a weight is normalised by its spectral norm.

    >>> template = Template(nn.Linear(2, 1))
    >>> values = {"weight": torch.ones(1, 2), "bias": torch.zeros(1)}
    >>> template(values, {}, (torch.tensor([[1.0, 2.0]]),), {})
    tensor([[3.]])
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        device: torch.device | str | None = None,
        autocast: Autocast = None,
    ) -> None:
        self.module = private_copy(unwrap(model))
        self.device = next(self.module.parameters()).device
        if device is not None:
            self.device = checks.device(device)
        self.module.to(self.device)
        self.autocast = autocast_dtype(autocast, self.device)
        self.layers = bn.norm_layers(self.module)
        self.statistics = bn.statistics_names(self.layers)
        self._instance = {
            name: layer for name, layer in self.layers.items() if isinstance(layer, _InstanceNorm)
        }
        self._read_only = frozenset(bn.statistics_names(bn.all_norm_layers(self.module)))
        # what the user put into evaluation mode inside a model in training mode stays in it
        training = self.module.training
        self._always_eval = [m for m in self.module.modules() if training and not m.training]
        # modules whose state training changes; None: not known yet
        self._stateful: list[nn.Module] | None = None
        self._mode = ""
        self._replayable = False  # whether that is known
        # the module has one mode and one set of hooks at a time: threads take turns
        self.lock = threading.RLock()
        # some modules write to their parameters in the forward pass, which would be the caller's w
        self._writes = any(getattr(m, "max_norm", None) is not None for m in self.module.modules())
        self.places, self._unfilled = places_of(self.module)
        self._slots = slots(self.module)
        self._computed = computed_tensors(self.module)
        self._sites = spectral.sites(self.module)
        self.buffers: Buffers = {n: b.detach() for n, b in named_buffers(self.module).items()}
        self.module.requires_grad_(False)
        self.forward = ForwardPass(self.module)
        self.source = SourceModel(
            model, derived=self._read_only | spectral.vector_names(self._sites)
        )

    def __call__(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        mode: str = "eval",
    ) -> Any:
        """What the model returns; parameters and buffers that are not named are the model's own.

        `mode`: "eval", "train"; "batchnorm": layers with statistics normalise by the batch, all
        else as in evaluation; "statistics": InstanceNorm layers alone do; or the counterpart
        "dropout": all as in training but layers with running state, which leave it as it is.
        """
        if mode == "statistics" and not self._instance:
            mode = "eval"

        def run(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            with (
                self._with_values(self._values(parameters, buffers, mode), module),
                self.precision(),
            ):
                return call(module, args, kwargs)

        with self.lock:
            if mode == "dropout" and self._stateful is None:
                names = self.state_changed_by_training(parameters, buffers, (args, kwargs, None))
                places = (self.places[name][0].rpartition(".")[0] for name in names)
                self._stateful = [self.module.get_submodule(place) for place in places]
            self._set_mode(mode)
            return self.forward(run, args, kwargs, mode=mode)

    def buffers_after_training(
        self,
        names: Iterable[str],
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batches: Iterable[Any],
    ) -> Buffers:
        """The buffers `names` after a pass over batches with the modules that hold them in
        training mode, and layers with statistics normalising by the batch."""
        places = {name: self.places[name][0] for name in names}

        def run_batches() -> Buffers:
            with self._with_values(self._values(parameters, buffers, "batchnorm")):
                for args, kwargs, _ in batches:
                    call(self.module, args, kwargs)
                changed = {name: self._slots[place] for name, place in places.items()}
                return {name: slot[key].detach() for name, (slot, key) in changed.items()}

        with self.lock, self.precision():
            self._set_mode("batchnorm")
            self._mode = ""  # more than the mode says is in training mode
            for place in places.values():
                self.module.get_submodule(place.rpartition(".")[0]).training = True
            return value_of(run_batches)

    def state_changed_by_training(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], batch: Any
    ) -> list[str]:
        """The floating-point buffers that passes over a batch in training mode change, of layers
        with state of their own: what calls with many weights at once would lose."""
        names = [n for n in self.own_state if self.buffers[n].is_floating_point()]
        if not names:
            return []
        once = self.buffers_after_training(names, parameters, buffers, [batch])
        twice = self.buffers_after_training(names, parameters, {**buffers, **once}, [batch])
        # the vectors of spectral norm move with the weights, at convergence too
        vectors = spectral.vector_names(self._sites)
        return [n for n in names if n in vectors or not torch.equal(once[n], twice[n])]

    @property
    def own_state(self) -> list[str]:
        """The buffers that are no layer's statistics."""
        return [name for name in self.buffers if name not in self._read_only]

    @property
    def spectral(self) -> bool:
        return bool(self._sites)

    def spectral_vectors(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *,
        differentiable: bool = False,
    ) -> Buffers:
        """The vectors u and v of every spectral norm, of these weights: see `spectral`.

        As constants: a first derivative has no part that goes through them, a second one has.
        """
        if not self._sites:
            return {}
        short = clean_names(dict(self.module.named_buffers()))
        out: Buffers = {}
        values = self._values(parameters, buffers, "eval")
        with self.lock, torch.set_grad_enabled(differentiable), self._with_values(values):
            for site in self._sites:
                vectors = spectral.leading_vectors(site.matrix())
                for name, vector in zip((site.u, site.v), vectors, strict=True):
                    out[short[name]] = vector.to(self.buffers[short[name]])
        return out

    def _values(
        self, parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], mode: str
    ) -> dict[str, Tensor | None]:
        """What stands in each place of the module during a call."""
        values: dict[str, Tensor | None] = dict.fromkeys(self._unfilled)
        for name, buffer in {**self.buffers, **buffers}.items():
            # so that calls do not see one another's writes: copies of what a module may write to
            value = buffer if name in self._read_only else buffer.clone()
            for place in self.places[name]:
                values[place] = value
        for name, value in parameters.items():  # after the buffers: w has the last word
            for place in self.places[name]:
                values[place] = value.clone() if self._writes else value
        by_input = self._by_input(mode)
        if by_input:
            # without running statistics a layer normalises by its input and writes nothing,
            # which keeps the call pure: vmap has no rule for writing batched values into them
            for name in bn.statistics_names(by_input):
                # SyncBatchNorm insists on its counter
                counter = name.rpartition(".")[2] == "num_batches_tracked"
                for place in self.places[name]:
                    values[place] = self.buffers[name].clone() if counter else None
        return values

    @contextlib.contextmanager
    def _with_values(
        self, values: Mapping[str, Tensor | None], module: nn.Module | None = None
    ) -> Iterator[None]:
        """The module, or a copy of it, holds these values while the context is open."""
        ours = module is None or module is self.module
        by_place = self._slots if ours else slots(module)  # type: ignore[arg-type]
        # what `functional_call` does, with the places looked up once: it takes longer to find them
        # than a small network to be evaluated
        filled = [(*by_place[place], value) for place, value in values.items()]
        own = [slot[key] for slot, key, _ in filled]
        try:
            for slot, key, new in filled:
                slot[key] = new
            yield
        finally:
            if ours:  # the graph of a copy goes on to hold it
                for (slot, key, _), mine in zip(filled, own, strict=True):
                    slot[key] = mine
                # a hook's weight of this call, which vmap may have wrapped and nobody else can copy
                for slot, key, mine in self._computed:
                    slot[key] = mine

    def require_replayable(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Looks, once, whether the model writes into its inputs, which are held and seen again.

        Raises:
            DataError: where the same examples would give something else the second time.
        """
        if self._replayable or torch.is_inference_mode_enabled():
            return
        args, kwargs = map_tensors((args, dict(kwargs)), Tensor.clone)
        before = [tensor._version for tensor in tensors((args, kwargs))]
        with torch.no_grad():
            try:
                first = self({}, {}, args, kwargs)
            except Exception:  # what is wrong is for the call that is meant to say
                return
            if before != [tensor._version for tensor in tensors((args, kwargs))]:
                outputs = [tensor.clone() for tensor in tensors(first)]
                again = self({}, {}, args, kwargs)
                if not all(map(torch.equal, outputs, tensors(again))):
                    raise DataError(
                        "the model writes into its inputs, so that each evaluation sees other "
                        "values; let it work on a copy (x = x * 2 instead of x.mul_(2))."
                    )
        self._replayable = True

    def __getstate__(self) -> dict[str, Any]:
        left = ("lock", "_slots", "_sites", "_computed")
        return {name: value for name, value in vars(self).items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.lock = threading.RLock()
        self._slots = slots(self.module)
        self._computed = computed_tensors(self.module)
        self._sites = spectral.sites(self.module)

    def _by_input(self, mode: str) -> Mapping[str, nn.Module]:
        """The layers with statistics that normalise by what enters them in a mode."""
        if mode in ("train", "batchnorm"):
            return self.layers
        return self._instance if mode == "statistics" else {}

    def _set_mode(self, mode: str) -> None:
        if mode == self._mode:
            return
        self.module.train(mode in ("train", "dropout"))
        for module in self._always_eval:
            module.training = False
        for layer in self._by_input(mode).values():
            layer.training = True
        if mode == "dropout":  # not dropout layers alone: attention, F.dropout ask their module
            for module in self.module.modules():
                if isinstance(module, _NormBase):
                    module.training = False
            for module in self._stateful or ():
                module.training = False
        self._mode = mode

    def trainable(self) -> nn.Module:
        """A copy of the module in training mode that nobody else calls."""
        with self.lock:
            self._set_mode("train")
            return private_copy(self.module)

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        """The autocast that the model is called under."""
        if not self.autocast:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast)
