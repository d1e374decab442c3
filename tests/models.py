"""The zoo of tiny models that "any model" means: what every room's contract suite runs on.

A `Case` builds its model, task and batches anew at every call, seeded, so that tests cannot see one
another. `CASES` is what to parametrise over; `mlp`, `conv_bn` and `blobs` can be used alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import lowland as ll

ROWS = (8, 8, 5)  # rows a batch: the last one is ragged


@dataclass(frozen=True)
class Case:
    """A model, its task and its batches. `unbatched`: the operator that vmap does in a loop;
    `maps`: what vmap gives of it, values and gradients, values alone, or nothing."""

    name: str
    build: Callable[[], nn.Module]
    task: Callable[[], ll.Task]
    batches: Callable[[], list[Any]]
    unbatched: str = ""
    plain: Callable[[nn.Module], nn.Module] = lambda model: model  # to be called in user's loops
    maps: tuple[str, ...] = ("values", "gradients")

    def model(self) -> nn.Module:
        """The model, the same at every call."""
        torch.manual_seed(0)
        return self.build()

    def surface(self, model: nn.Module | None = None, **options: Any) -> ll.LossSurface:
        """L(w) of the model over the batches."""
        model = self.model() if model is None else model
        return ll.LossSurface(model, self.task(), self.batches(), **options)


# -- data ------------------------------------------------------------------------------------------


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own, so that tests do not depend on one another."""
    return torch.Generator().manual_seed(seed)


def blobs(
    sizes: tuple[int, ...] = ROWS, features: int = 6, classes: int = 3
) -> list[tuple[Tensor, Tensor]]:
    """Batches of (features, class)."""
    g = generator()
    return [
        (torch.randn(n, features, generator=g), torch.randint(classes, (n,), generator=g))
        for n in sizes
    ]


def images(sizes: tuple[int, ...] = ROWS, classes: int = 3) -> list[tuple[Tensor, Tensor]]:
    """Batches of (2 x 5 x 5 images, class)."""
    g = generator()
    return [
        (torch.randn(n, 2, 5, 5, generator=g), torch.randint(classes, (n,), generator=g))
        for n in sizes
    ]


def tokens(sizes: tuple[int, ...] = ROWS, words: int = 11, length: int = 6) -> list[dict[str, Any]]:
    """Batches of token ids with a mask of padding."""
    g = generator()
    out = []
    for n in sizes:
        ids = torch.randint(words, (n, length), generator=g)
        mask = torch.ones_like(ids)
        mask[0, -2:] = 0
        out.append({"input_ids": ids, "attention_mask": mask})
    return out


def targets(sizes: tuple[int, ...] = ROWS, features: int = 4) -> list[tuple[Tensor, Tensor]]:
    """Batches of (features, one real target)."""
    g = generator()
    return [(torch.randn(n, features, generator=g), torch.randn(n, 1, generator=g)) for n in sizes]


def places() -> list[tuple[Tensor, Tensor]]:
    """Batches of (one feature, one real target)."""
    return targets(features=1)


# -- models ----------------------------------------------------------------------------------------


def mlp(features: int = 6, hidden: int = 7, classes: int = 3) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, classes))


def conv_bn(classes: int = 3) -> nn.Module:
    """Two convolutions, each with BatchNorm: the second's statistics depend on the first's."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Conv2d(4, 3, 3, stride=2),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(12, classes),
    )
    with torch.no_grad():  # statistics and scales that are not the initial ones
        for layer in (model[1], model[4]):
            layer.weight.uniform_(0.5, 1.5)
            layer.bias.normal_()
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
    return model


def conv_dropout() -> nn.Module:
    """Convolution, BatchNorm and both kinds of dropout."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.BatchNorm2d(4),
        nn.Dropout2d(0.3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(36, 3),
    )


class TiedLM(nn.Module):
    """Embedding, a layer, and the embedding again as the head."""

    def __init__(self, words: int = 11, width: int = 5) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.body = nn.Linear(width, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SimpleNamespace:
        hidden = self.embed(input_ids)
        hidden = torch.tanh(self.body(hidden.cumsum(1)))
        return SimpleNamespace(logits=self.head(hidden))


class Logits(nn.Module):
    """Takes a dict batch by name and gives an object with `.logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, pixels: Tensor, scale: Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=None, logits=self.net(pixels * scale))


def dict_batches() -> list[dict[str, Tensor]]:
    """Blobs by name; `scale` has no dimension of rows."""
    return [{"pixels": x, "scale": torch.tensor(0.5), "labels": y} for x, y in blobs()]


class TwoInputs(nn.Module):
    """Two positional inputs; gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(6, 4)
        self.right = nn.Linear(2, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.sigmoid(self.left(x) * self.right(z))
        return self.head(hidden), hidden


def two_input_batches() -> list[tuple[Tensor, ...]]:
    """Blobs with a second input."""
    return [(x, x[:, :2].flip(1), y) for x, y in blobs()]


def frozen() -> nn.Module:
    """The first layer does not train, and a BatchNorm layer is held in evaluation mode."""
    model = nn.Sequential(
        nn.Linear(6, 7), nn.BatchNorm1d(7), nn.Tanh(), nn.BatchNorm1d(7), nn.Linear(7, 3)
    )
    model[0].requires_grad_(False)
    with torch.no_grad():
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    model[1].eval()
    return model


def weight_norm() -> nn.Module:
    """Weights that are computed from a direction and a length, by parametrisation."""
    model = mlp()
    nn.utils.parametrizations.weight_norm(model[0])
    return model


def weight_norm_by_hook() -> nn.Module:
    """The same by torch's older hook, which leaves computed tensors on the module."""
    model = mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(model[0])
        nn.utils.weight_norm(model[2])
    model(torch.zeros(2, 6))  # the computed weight now has a graph, which deepcopy refuses
    return model


class Attention(nn.Module):
    """`nn.MultiheadAttention` over six positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x.unsqueeze(-1))
        mixed, _ = self.attention(hidden, hidden, hidden, need_weights=False)
        return self.head(mixed.mean(1))


class Transformer(nn.Module):
    """`nn.TransformerEncoderLayer`, which has a fast path of its own in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(1, 4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x.unsqueeze(-1))).mean(1))


class Scaled(nn.Module):
    """`scaled_dot_product_attention` by hand, causal."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(1, 12)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x.unsqueeze(-1)).unsqueeze(1).chunk(3, -1)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.head(mixed.squeeze(1).mean(1))


class Mixed(nn.Module):
    """A body in bfloat16, a head in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8).to(torch.bfloat16)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.body(x.to(torch.bfloat16))).float())


class Double(nn.Module):
    """One parameter in float64 among others in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.temperature = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).double() / self.temperature


class Lazy(nn.Module):
    """Buffers that a state dict does not hold, that are None until used, that have a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()
        self.register_buffer("mask", None)  # filled by the first forward pass
        self.register_buffer("scale", torch.linspace(0.5, 1.5, 3), persistent=False)
        self.register_buffer("cache", None, persistent=False)  # computed, so it has a graph
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self(torch.zeros(2, 6))
        self.mask = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = (x[0] > 0).to(x.dtype)  # depends on who calls first
        self.cache = self.net[0].weight.sum()
        self.calls += 1  # a write in evaluation mode too
        return self.net(x * (1 + self.mask)) * self.scale + self.calls


class Shared(nn.Module):
    """One BatchNorm module under two names, used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.second = nn.Linear(5, 5)
        self.again = self.norm
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.again(self.second(torch.tanh(self.norm(self.first(x))))))


class Residual(nn.Module):
    """u'' + u of a network u: it differentiates inside its forward pass, as a PINN does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        u = self.net(x)
        (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        (ddu,) = torch.autograd.grad(du.sum(), x, create_graph=True)
        return ddu + u


class Checkpointed(nn.Module):
    """Two blocks whose activations the backward pass computes again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 7), nn.Tanh())
        self.second = nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 5))
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = checkpoint(self.first, x, use_reentrant=False)
        return self.head(checkpoint(self.second, hidden, use_reentrant=False))


class Tagger(nn.Module):
    """Logits (N, T, C): a class for each token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(input_ids).cumsum(1)))


def tagged() -> list[dict[str, Tensor]]:
    """Tokens with labels of which padding's does not count; as many tokens as classes, once."""
    out = []
    for length, batch in zip((6, 6, 3), tokens(), strict=True):
        batch = {name: tensor[:, :length] for name, tensor in batch.items()}
        labels = (batch["input_ids"] % 3).masked_fill(batch["attention_mask"] == 0, -100)
        out.append({**batch, "labels": labels})
    return out


def segmented() -> list[tuple[Tensor, Tensor]]:
    """Images with a class for each pixel, of which some do not count."""
    g = generator()
    labels = [torch.randint(3, (len(x), 5, 5), generator=g) for x, _ in images()]
    for each in labels:
        each[torch.rand(each.shape, generator=g) < 0.3] = 255
    return [(x, y) for (x, _), y in zip(images(), labels, strict=True)]


def forecasts() -> list[tuple[Tensor, Tensor]]:
    """Sequences (N, 5, 4) and two real targets at each step."""
    g = generator()
    return [(torch.randn(n, 5, 4, generator=g), torch.randn(n, 5, 2, generator=g)) for n in ROWS]


def maps() -> list[tuple[Tensor, Tensor]]:
    """Images and one real target at each pixel."""
    g = generator()
    return [(x, torch.randn(len(x), 1, 5, 5, generator=g)) for x, _ in images()]


def pixelwise(outputs: int) -> nn.Module:
    """An output for each pixel."""
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, outputs, 1))


def spectral_by_hook() -> nn.Module:
    """Spectral norm by torch's older hook, its vectors at convergence."""
    model = conv_in()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.spectral_norm(model[0], n_power_iterations=100)
        nn.utils.spectral_norm(model[4], n_power_iterations=100)
    model.train()(torch.randn(4, 2, 5, 5))
    return model


def spectral() -> nn.Module:
    """Spectral norm by parametrisation, of a convolution and of a linear layer."""
    model = conv_in()
    nn.utils.parametrizations.spectral_norm(model[0], n_power_iterations=100)
    nn.utils.parametrizations.spectral_norm(model[4], n_power_iterations=100)
    model.train()(torch.randn(4, 2, 5, 5))
    return model


@torch.no_grad()
def resolve_task(model: nn.Module) -> nn.Module:
    """The same model, its vectors of spectral norm brought to convergence by torch itself."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if type(hook).__name__ == "SpectralNorm":
                hook.compute_weight(module, do_power_iteration=True)
        for name, chain in getattr(module, "parametrizations", {}).items():
            if any("SpectralNorm" in type(step).__name__ for step in chain):
                mode = chain.training
                chain.train()
                getattr(module, name)
                chain.train(mode)
    return model


def conv_in() -> nn.Module:
    """A convolution, and InstanceNorm that keeps statistics."""
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(36, 3),
    )
    with torch.no_grad():
        model[1].running_mean.normal_()
        model[1].running_var.uniform_(0.5, 2)
    return model


class Normaliser(nn.Module):
    """Takes the running mean of its inputs away, and counts training passes: state of its own."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("passes", torch.tensor(0))
        self.register_buffer("bound", torch.full((features,), -torch.inf))  # a constant

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.lerp_(x.detach().mean(0), 0.5)
            self.passes += 1
        return torch.maximum(x - self.mean, self.bound)


def own_statistics() -> nn.Module:
    """Statistics that a layer of the user's own keeps."""
    model = nn.Sequential(Normaliser(6), *mlp())
    with torch.no_grad():
        model[0].mean.normal_()
    return model


def data_parallel() -> nn.Module:
    """`module.` before every name."""
    return nn.DataParallel(conv_bn())


def compiled() -> nn.Module:
    """`_orig_mod.` before every name, and inside of one; compiled by the eager backend."""
    inner = mlp()
    inner[0] = torch.compile(inner[0], backend="eager")
    return torch.compile(inner, backend="eager")  # type: ignore[return-value]


def uncompiled(model: nn.Module) -> nn.Module:
    """The same module without its compiled wrappers, sharing its parameters."""
    inner = model._orig_mod
    return nn.Sequential(inner[0]._orig_mod, *inner[1:])


CLASSES = ll.Classification
CASES = [
    Case("mlp", mlp, CLASSES, blobs),
    Case("conv_bn", conv_bn, CLASSES, images),
    Case("conv_dropout", conv_dropout, CLASSES, images),
    Case("tied_lm", TiedLM, ll.LanguageModeling, tokens),
    Case("dict_logits", Logits, CLASSES, dict_batches),
    Case("two_inputs", TwoInputs, CLASSES, two_input_batches),
    Case("frozen", frozen, CLASSES, blobs),
    Case("weight_norm", weight_norm, CLASSES, blobs, unbatched="_weight_norm"),
    Case("weight_norm_by_hook", weight_norm_by_hook, CLASSES, blobs, unbatched="_weight_norm"),
    Case("attention", Attention, CLASSES, blobs, unbatched="_native_multi_head_attention"),
    Case("transformer", Transformer, CLASSES, blobs, unbatched="_transformer_encoder_layer_fwd"),
    Case("scaled", Scaled, CLASSES, blobs, unbatched="_scaled_dot_product_flash"),
    Case("mixed", Mixed, CLASSES, blobs),
    Case("double", Double, CLASSES, blobs),
    Case("lazy", Lazy, CLASSES, blobs),
    Case("shared_bn", Shared, CLASSES, blobs),
    Case(
        "gaussian_head",
        lambda: ll.GaussianHead(mlp(4, 5, 2)),
        lambda: ll.Regression("learned"),
        targets,
    ),
    Case("tagger", Tagger, lambda: ll.Classification(class_dim=-1), tagged),
    Case(
        "segmentation",
        lambda: pixelwise(3),
        lambda: ll.Classification(ignore_index=255),
        segmented,
    ),
    Case("forecasts", lambda: mlp(4, 5, 4), ll.Regression, forecasts),
    Case("maps", lambda: pixelwise(1), lambda: ll.Regression(0.5), maps),
    Case("instance_norm", conv_in, CLASSES, images),
    Case("spectral_by_hook", spectral_by_hook, CLASSES, images),
    Case("spectral", spectral, CLASSES, images),
    Case("own_statistics", own_statistics, CLASSES, blobs),
    Case("data_parallel", data_parallel, CLASSES, images),
    Case("pinn", Residual, lambda: ll.Regression(noise_variance=1.0), places, maps=()),
    Case("checkpointed", Checkpointed, CLASSES, blobs, maps=("values",)),
    Case("compiled", compiled, CLASSES, blobs, plain=uncompiled),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def nearby(w: Tensor, seed: int = 1) -> Tensor:
    """Weights not far away."""
    noise = torch.randn(len(w), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (w.double() + 0.1 * noise).to(w.dtype)


@torch.no_grad()
def with_other_buffers(model: nn.Module, by: float = 1.5) -> nn.Module:
    """The model, its floating-point buffers multiplied: those of another network."""
    for buffer in model.buffers():
        if buffer.is_floating_point() and buffer.grad_fn is None:
            buffer.mul_(by)
    return model
