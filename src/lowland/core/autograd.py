"""Calls of models that use autograd themselves.

Some differentiate inside their forward pass, as physics-informed networks do: gradients must be on
where only a value is asked for. Others compute activations anew in the backward pass, as
`torch.utils.checkpoint` and reversible networks do: the module must then still hold the weights of
the forward pass. A model shows which it is at its first calls.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from lowland.core.data import map_tensors, tensors
from lowland.errors import ConfigError

T = TypeVar("T")
Call = Callable[[nn.Module, Any, Any], Any]  # (module, args, kwargs) -> what the module returns

# what a call needs: nothing, gradients on, or inputs that require gradients besides
_PLAIN, _GRADIENTS, _INPUTS = range(3)
_HOOKS = "saved tensors are computed anew in the backward pass"


class ForwardPass:
    """Calls a module with parameters that `run` puts into it, as its use of autograd asks for.

    The forward pass of a model that recomputes is that of a copy: its graph holds the copy, and
    calls in the meantime, with other weights or in other modes, do not reach it.

    >>> forward = ForwardPass(nn.Linear(1, 1))
    >>> forward(lambda module, args, kwargs: module(*args), (torch.ones(2, 1),), {}, mode="eval")
    tensor([[...], [...]], grad_fn=<...>)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.recomputes = False
        self._needs = _PLAIN
        self._differentiates: bool | None = None  # None: not known yet
        self._seen: set[str] = set()  # modes whose graph was looked at

    def __call__(self, run: Call, args: Any, kwargs: Any, *, mode: str) -> Any:
        """What `run(module, args, kwargs)` returns.

        Without gradients, too, it may have a graph: that of the model's own derivatives.
        """
        for needs in range(self._needs, _INPUTS + 1):
            try:
                out = self._call_with(needs, run, args, kwargs, mode)
            except RuntimeError as error:
                if needs == _INPUTS or not lacks_gradients(error):
                    raise
            else:
                self._needs = needs
                return out

    def _call_with(self, needs: int, run: Call, args: Any, kwargs: Any, mode: str) -> Any:
        gradients = torch.is_grad_enabled()
        if needs == _PLAIN and not gradients and self._differentiates is False:
            return run(self.module, args, kwargs)
        if needs > _PLAIN and torch.is_inference_mode_enabled():
            raise ConfigError(
                f"{type(self.module).__name__} differentiates inside its forward pass, which torch "
                "cannot do in inference mode; use torch.no_grad() in its place."
            )
        if needs > _PLAIN and not gradients:
            # apart from the caller's, whose flags and gradients stay as they are
            args, kwargs = map_tensors((args, kwargs), _detached)
        if needs == _INPUTS:
            args, kwargs = map_tensors((args, kwargs), _with_gradient)
        # steps of training are the model's own affair
        watched = self._differentiates is not False and mode != "train"
        with KeepGraph() if watched else nullcontext() as inside:
            if gradients:
                out = self._differentiable(run, args, kwargs, mode)
            else:
                with torch.set_grad_enabled(needs > _PLAIN):
                    out = run(self.module, args, kwargs)
        if inside is not None:
            self._differentiates = self._differentiates or inside.used
        return out

    def _differentiable(self, run: Call, args: Any, kwargs: Any, mode: str) -> Any:
        mapped = torch._C._are_functorch_transforms_active()
        new = mode not in self._seen and not mapped
        gradients = refuse_reentrant(self.module) if new else nullcontext()
        if self.recomputes and not mapped:
            with gradients:
                out = run(_copy_sharing_tensors(self.module), args, kwargs)
            self._inspect_graph(out, mode)
            return out
        before = _random_state() if new else None
        try:
            with disable_saved_tensors_hooks(_HOOKS), gradients:
                out = run(self.module, args, kwargs)
            if mapped or not self._inspect_graph(out, mode):
                return out
        except RuntimeError as error:
            if _HOOKS not in str(error):
                raise
        self.recomputes = True
        if mapped:
            raise ConfigError(
                f"{type(self.module).__name__} recomputes activations in the backward pass "
                "(torch.utils.checkpoint), which torch.func and vmap cannot do; take weights one "
                "by one and gradients by torch.autograd, values under torch.no_grad(), or switch "
                "checkpointing off."
            )
        if before is not None:  # noise is drawn as if this had been the first call
            _set_random_state(before)
        return self._differentiable(run, args, kwargs, mode)

    def _inspect_graph(self, out: Any, mode: str) -> bool:
        """Whether the graph has operations of Python's own, which may call the module's parts in
        the backward pass; the first graph of each mode is looked at."""
        if mode in self._seen:
            return False
        nodes = python_nodes(out)
        if nodes is None:
            return False
        require_differentiable(nodes, self.module)
        self._seen.add(mode)
        return bool(nodes)


class KeepGraph(TorchFunctionMode):
    """Derivatives inside the forward pass keep their graph, whatever `create_graph` says: else the
    gradient by the weights would lack what goes through them.

    Attributes:
        used: whether there were any.

    >>> x = torch.ones(1, requires_grad=True)
    >>> with KeepGraph() as inside:
    ...     (slope,) = torch.autograd.grad(x**2, x)
    >>> slope.requires_grad, inside.used
    (True, True)
    """

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.grad:
            self.used = True
            kwargs = {**kwargs, "create_graph": True}
        return func(*args, **kwargs)


@contextmanager
def explain_vmap_errors(module: nn.Module, *, instead: str) -> Iterator[None]:
    """Turns errors of vmap into a `ConfigError`, with `instead` as the advice.

    >>> with explain_vmap_errors(nn.Linear(1, 1), instead="take weights one by one"):
    ...     torch.func.vmap(lambda x: x.item())(torch.ones(2))
    Traceback (most recent call last):
    lowland.errors.ConfigError: Linear cannot be called with many weights at once (vmap: ...
    """
    try:
        yield
    except RuntimeError as error:
        if not any(word in str(error) for word in ("vmap", "Batching rule", "functorch")):
            raise
        raise ConfigError(
            f"{type(module).__name__} cannot be called with many weights at once "
            f"({str(error)[:120]}...); {instead}."
        ) from error


def value_of(function: Callable[[], T]) -> T:
    """What `function` gives without gradients, or with them where it differentiates itself.

    >>> x = torch.ones(1, requires_grad=True)
    >>> value_of(lambda: torch.autograd.grad((x**2).sum(), x))
    (tensor([2.]),)
    """
    try:
        with torch.no_grad():
            return function()
    except RuntimeError as error:
        if not lacks_gradients(error):
            raise
    with torch.enable_grad(), warnings.catch_warnings():
        # torch warns of float(x), of values that have a graph
        warnings.filterwarnings("ignore", "Converting a tensor with requires_grad")
        return function()


def lacks_gradients(error: RuntimeError) -> bool:
    """Whether torch says that something to differentiate, or to differentiate by, has no graph."""
    return "require grad" in str(error)


def python_nodes(out: Any) -> set[str] | None:
    """The names of the operations that are not torch's own in the graph of what a model returned:
    subclasses of `torch.autograd.Function`. None where nothing has a graph.

    >>> w = torch.ones(1, requires_grad=True)
    >>> python_nodes(w), python_nodes({"logits": 2 * w})
    (None, set())
    """
    nested = isinstance(out, Tensor | Mapping | tuple | list)
    contents = out if nested else getattr(out, "__dict__", ())
    waiting: list[Any] = [t.grad_fn for t in tensors(contents) if t.grad_fn is not None]
    if not waiting:
        return None
    visited = set(waiting)
    names = set()
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            names.add(type(node).__name__)
        for other, _ in node.next_functions:
            if other is not None and other not in visited:
                visited.add(other)
                waiting.append(other)
    return names


def require_differentiable(nodes: set[str], module: nn.Module) -> None:
    """Raises `ConfigError` for `python_nodes` that `torch.autograd.grad` cannot go through."""
    if "CheckpointFunctionBackward" in nodes:
        raise _reentrant(module)


@contextmanager
def refuse_reentrant(module: nn.Module) -> Iterator[None]:
    """Raises `ConfigError` for reentrant recomputation of inputs without a graph: its weights would
    have a gradient of 0, and there is no node in the graph to see it by. torch only warns.

    >>> from torch.utils.checkpoint import checkpoint
    >>> layer = nn.Linear(1, 1)
    >>> with refuse_reentrant(layer):
    ...     checkpoint(layer, torch.ones(1, 1), use_reentrant=True)
    Traceback (most recent call last):
    lowland.errors.ConfigError: Linear calls torch.utils.checkpoint with use_reentrant=True ...
    """
    warning = "None of the inputs have requires_grad"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=warning, category=UserWarning)
        try:
            yield
        except UserWarning as error:
            if warning not in str(error):
                raise
            raise _reentrant(module) from None


def _reentrant(module: nn.Module) -> ConfigError:
    return ConfigError(
        f"{type(module).__name__} calls torch.utils.checkpoint with use_reentrant=True (or without "
        "it, which means the same), whose gradient is no function of flat weights; say "
        "use_reentrant=False."
    )


def _copy_sharing_tensors(module: nn.Module) -> nn.Module:
    """A deep copy that shares every tensor with the module."""
    memo = {
        id(value): value
        for part in module.modules()
        for value in (*vars(part).values(), *part._parameters.values(), *part._buffers.values())
        if isinstance(value, Tensor)
    }
    return copy.deepcopy(module, memo)


def _detached(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _with_gradient(tensor: Tensor) -> Tensor:
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()


def _random_state() -> tuple[Tensor, list[Tensor]]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
