"""Arguments that have another name elsewhere: what Python's TypeError does not say."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack

from lowland.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])

#: an argument's name here -> what it is called in other libraries and papers
OTHER_NAMES = {
    "accumulate": "accumulate_grad_batches gradient_accumulation_steps accumulation_steps",
    "autocast": "amp precision mixed_precision dtype fp16 bf16",
    "batch_size": "bs batchsize",
    "batchnorm": "bn update_bn bn_update",
    "bends": "n_bends num_bends control_points",
    "bn_loader": "bn_data bn_update_loader",
    "bn_rows": "bn_examples bn_samples",
    "chains": "n_chains num_chains walkers n_walkers",
    "channels_last": "memory_format",
    "checkpoint": "ckpt checkpoint_path ckpt_path resume save_path",
    "clip": "grad_clip clip_grad clip_norm max_norm max_grad_norm gradient_clip_val",
    "collectors": "callbacks callback hooks",
    "compile": "torch_compile",
    "data": "loader dataloader train_loader train_dataloader dataset",
    "decay": "beta gamma alpha ema_decay",
    "device": "accelerator map_location",
    "epochs": "epoch n_epochs num_epochs max_epochs nb_epochs num_train_epochs",
    "loader": "data dataloader data_loader test_loader val_loader dataset",
    "margin": "padding border",
    "noise_variance": "noise sigma sigma_noise noise_std noise_scale variance obs_noise",
    "normalise": "normalize normalization norm",
    "optimizer": "opt optim optimiser lr learning_rate momentum",
    "points": "n_points num_points steps num",
    "prior_scale": "prior_std prior_sigma prior_variance prior_precision sigma",
    "progress": "verbose pbar tqdm show_progress progressbar progress_bar",
    "radius": "rho epsilon eps sigma",
    "rank": "k n_components num_components max_rank max_num_models low_rank dim",
    "resolution": "n_points num_points steps grid grid_size",
    "sampler": "kernel algorithm method",
    "samples": "n s n_samples num_samples nsamples draws n_draws num_draws mc_samples",
    "scale": "var_scale covariance_scale cov_scale",
    "schedule": "scheduler lr_scheduler lr_schedule",
    "seed": "random_state rng random_seed rng_seed key",
    "start": "init initial initial_params x0",
    "temperature": "t temp",
    "thin": "thinning",
    "top": "k n n_eigs num_eigs top_n num_eigenthings eigenvalues",
    "probes": "num_vectors n_v n_vectors num_samples trace_num_samples",
    "validate": "val evaluate eval_fn validation",
    "validation": "val val_loader val_data valid",
    "warmup": "burn burnin burn_in num_warmup n_warmup tune n_tune warmup_steps",
    "weight_decay": "wd l2",
    "where": "filter include only param_filter subset",
    "workers": "num_workers n_workers n_jobs",
}
_SUGGESTIONS = {
    "optimizer": "optimizer=lambda params: torch.optim.SGD(params, lr=0.1)",
    "noise_variance": "noise_variance=, the square of a standard deviation,",
    "prior_scale": "prior_scale=, a standard deviation,",
}


def hinted(function: F) -> F:
    """The same function, whose wrong calls end in a message that says which argument is meant.

    >>> @hinted
    ... def train(model, *, epochs, optimizer=None):
    ...     pass
    >>> train("net", n_epochs=3)
    Traceback (most recent call last):
    lowland.errors.ArgumentError: train: there is no argument n_epochs=; write epochs= instead.
    >>> inspect.signature(train)
    <Signature (model, *, epochs, optimizer=None)>
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            wrong = explain(function, args, kwargs) or _explain_forwarded(function, kwargs, error)
            if wrong is None:  # the call is right, and what went wrong is inside
                raise
        raise wrong from None

    return call  # type: ignore[return-value]


def explain(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ArgumentError | None:
    """What is wrong with a call, and what to write; None where its arguments fit."""
    signature = inspect.signature(function)
    name, parameters = _name(function), signature.parameters
    names = _argument_names(function)
    unknown = next((n for n in kwargs if n not in names), None)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        reason = str(error)
    else:  # options of any name are another function's to look at
        if collected_keywords(function) is None or unknown is None:
            return None
    if unknown is not None:
        return ArgumentError(
            f"{name}: there is no argument {unknown}=; {_instead(unknown, names)}.",
            unknown=unknown,
        )
    by_name = [n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY]
    if by_name and "too many positional" in reason:
        by_place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        most = sum(p.kind is by_place and n not in ("self", "cls") for n, p in parameters.items())
        return ArgumentError(
            f"{name}: expected {most} arguments by position, got more; write the others by name, "
            f"such as {by_name[0]}=."
        )
    return ArgumentError(f"{name}: {reason}.")


def _explain_forwarded(
    function: Callable[..., Any], kwargs: Mapping[str, Any], error: TypeError
) -> ArgumentError | None:
    """What to write where an unknown argument was handed on as one of the options of another
    function, and is like one of this function's own."""
    unknown = error.unknown if isinstance(error, ArgumentError) else None
    names = _argument_names(function)
    if unknown is None or unknown not in kwargs or not _similar_names(unknown, names):
        return None
    return ArgumentError(
        f"{_name(function)}: there is no argument {unknown}=; {_instead(unknown, names)}.",
        unknown=unknown,
    )


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", "call").removesuffix(".__init__").lstrip("_")


def _argument_names(function: Callable[..., Any]) -> list[str]:
    """What can be given by name."""
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = [n for n, p in inspect.signature(function).parameters.items() if p.kind in kinds]
    return own + list(collected_keywords(function) or ())


def _similar_names(unknown: str, names: list[str]) -> list[str]:
    """Arguments that an unknown name may be of, the likeliest first."""
    arguments = [n for n in names if n not in ("self", "cls")]
    similar = [n for n in arguments if unknown.lower() in OTHER_NAMES.get(n, "").split()]
    return similar or difflib.get_close_matches(unknown.lower(), arguments, n=2)


def collected_keywords(function: Callable[..., Any]) -> dict[str, Any] | None:
    """The keyword arguments that a function collects by `**options: Unpack[...]`, with their types;
    None: it has no such.

    >>> class Size(typing.TypedDict, total=False):
    ...     width: int
    >>> def draw(**options: Unpack[Size]): ...
    >>> collected_keywords(draw)
    {'width': <class 'int'>}
    """
    function = inspect.unwrap(function)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            annotation = parameter.annotation
            if isinstance(annotation, str):
                annotation = eval(annotation, function.__globals__)
            if typing.get_origin(annotation) is Unpack:
                return typing.get_type_hints(typing.get_args(annotation)[0])
    return None


def _instead(unknown: str, names: list[str]) -> str:
    arguments = [n for n in names if n not in ("self", "cls")]
    if similar := _similar_names(unknown, names):
        return f"write {' or '.join(_SUGGESTIONS.get(n, f'{n}=') for n in similar)} instead"
    return f"it takes {', '.join(f'{n}=' for n in arguments)}" if arguments else "it takes none"


def hint(namespace: dict[str, Any], names: Iterable[str]) -> None:
    """Makes public functions, and the methods of public classes, `hinted` wherever they are held.

    In one place, so that none is forgotten, and that the sources read as they are called.
    """
    functions: dict[int, Any] = {}
    for name in names:
        thing = namespace[name]
        if inspect.isclass(thing):
            for base in thing.__mro__:
                if base.__module__.startswith("lowland."):
                    _hint_methods(base)
        elif inspect.isfunction(thing):
            functions[id(thing)] = thing, hinted(thing)
    modules = [m for n, m in sys.modules.items() if n == "lowland" or n.startswith("lowland.")]
    for module in modules:
        for key, value in list(vars(module).items()):
            if id(value) in functions:
                setattr(module, key, functions[id(value)][1])


def _hint_methods(cls: type) -> None:
    for key, member in list(vars(cls).items()):
        function = getattr(member, "__func__", member)
        if not inspect.isfunction(function) or hasattr(function, "__hinted__"):
            continue
        by_name = inspect.unwrap(function).__code__.co_kwonlyargcount
        # others are called by position, and often
        if key in ("__init__", "__call__") or (by_name and not key.startswith("_")):
            wrapped = hinted(function)
            wrapped.__hinted__ = True  # type: ignore[attr-defined]
            kind = type(member) if isinstance(member, classmethod | staticmethod) else lambda f: f
            setattr(cls, key, kind(wrapped))
