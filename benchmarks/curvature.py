"""Products with the Hessian, and spectra beside other libraries.

A product of `CurvatureOperator` against the cheaper of double backward and jvp of grad, written out
for the same function. Then the largest eigenvalue and the trace of three networks by
`ll.spectrum`, curvlinops, PyHessian and hessian-eigenthings on the same weights and examples: wall
time, number of products, and whether the numbers agree. Libraries that are not installed are left
out: `pip install --no-deps --target DIR pyhessian hessian-eigenthings`, with DIR on PYTHONPATH.
"""

from __future__ import annotations

import importlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from common import Row, ms, paired, ratio, report
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import lowland as ll
from lowland.curvature import CurvatureOperator
from lowland.zoo import MLP, PreResNet

PROBES = 10  # of the trace, for all libraries
EIGENTHINGS_STEPS = 20
EQUAL = 1e-3  # relative, of the largest eigenvalue
STEPS = 60  # of SGD before: at a start the spectrum has no leading eigenvalues


class Transformer(nn.Module):
    """Two layers of attention over patches of a small image."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.embedding = nn.Linear(192, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # (N, 3, 32, 32)
        patches = nn.functional.unfold(x, 8, stride=8).mT  # (N, 16, 192)
        logits: Tensor = self.head(self.layers(self.embedding(patches)).mean(1))
        return logits


class Problem(NamedTuple):
    """A network in evaluation mode, and its examples."""

    name: str
    model: nn.Module
    batches: list[tuple[Tensor, Tensor]]


def problems(names: list[str], *, examples: int = 1000) -> Iterator[Problem]:
    """Networks trained for a few steps on noisy class means; all, or those of these names."""
    for name, build, shape in (
        ("MLP", lambda: MLP(inputs=64, outputs=10, widths=(128, 128)), (64,)),
        ("PreResNet-20", lambda: PreResNet(depth=20, classes=10), (3, 32, 32)),
        ("transformer", Transformer, (3, 32, 32)),
    ):
        if names and name not in names:
            continue
        torch.manual_seed(0)
        y = torch.randint(10, (examples,))
        x = torch.randn(10, *shape)[y] + 2 * torch.randn(examples, *shape)
        batches = list(zip(x.split(examples // 4), y.split(examples // 4), strict=True))
        model = build().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
        for step in range(STEPS):
            inputs, labels = batches[step % len(batches)]
            part = slice(None, 64)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[part]), labels[part]).backward()
            optimizer.step()
        yield Problem(name, model.eval(), batches)


def product_cost(problem: Problem, rounds: int) -> Row:
    """A product against double backward and jvp of grad by hand, in turn."""
    x, y = problem.batches[0]
    surface = ll.LossSurface(problem.model, ll.Classification(), [(x, y)])
    w = surface.layout.flatten(problem.model)
    matrix = CurvatureOperator(surface, w, batchnorm="frozen")
    v = torch.randn_like(w)
    buffers = dict(problem.model.named_buffers())

    def loss(w: Tensor) -> Tensor:
        values = surface.layout.unflatten(w)
        return nn.functional.cross_entropy(
            torch.func.functional_call(problem.model, {**values, **buffers}, (x,)), y
        )

    def double_backward() -> Tensor:
        leaf = w.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        (product,) = torch.autograd.grad(gradient, leaf, v)
        return product

    def jvp_of_grad() -> Tensor:
        product: Tensor = torch.func.jvp(torch.func.grad(loss), (w,), (v,))[1]
        return product

    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        works = (lambda: matrix @ v, double_backward, jvp_of_grad)
        torch.testing.assert_close(works[0]().float(), works[1](), rtol=1e-2, atol=1e-4)
        ours, *others = paired(*works, rounds=rounds, warm=1)
    best = min(others, key=lambda times: sorted(times)[len(times) // 2])
    name = ("double backward", "jvp of grad")[others.index(best)]
    detail = f"{problem.name}: {ms(ours)} by {matrix.method}; " + ", ".join(
        f"{label} {ms(times)}"
        for label, times in zip(("double backward", "jvp of grad"), others, strict=True)
    )
    return Row("a product with the Hessian", name, ratio(ours, best), "<= 1.1", detail)


class Outcome(NamedTuple):
    """What a library computed."""

    eigenvalue: float
    trace: float
    products: int  # -1: it does not count
    seconds: float


def lowland(problem: Problem) -> tuple[Outcome, float]:
    """The result, and the half width of the trace's interval."""
    importlib.import_module("scipy.special")  # as for the others, imports are not timed
    start = time.perf_counter()
    surface = ll.LossSurface(problem.model, ll.Classification(), problem.batches)
    w = surface.layout.flatten(problem.model)
    result = ll.spectrum(surface, w, top=1, probes=PROBES, steps=1, batchnorm="frozen")
    seconds = time.perf_counter() - start
    low, high = result.trace_interval
    value = float(result.eigenvalues)
    return Outcome(value, result.trace, result.products, seconds), (high - low) / 2


class Counted:
    """v -> A v by another library, with the number of calls."""

    def __init__(self, product: Callable[[Any], Any]) -> None:
        self.product = product
        self.count = 0

    def __call__(self, v: Any) -> Any:
        self.count += 1
        return self.product(v)


def curvlinops(problem: Problem) -> Outcome:
    """scipy's eigsh over its Hessian, and its Hutchinson's trace."""
    library = importlib.import_module("curvlinops")
    linalg = importlib.import_module("scipy.sparse.linalg")
    start = time.perf_counter()
    matrix = library.HessianLinearOperator(
        problem.model,
        nn.CrossEntropyLoss(),
        list(problem.model.parameters()),
        problem.batches,
        check_deterministic=False,
    )
    operator = matrix.to_scipy()
    product = Counted(operator.matvec)
    size = matrix.shape[0]
    counted = linalg.LinearOperator((size, size), matvec=product, dtype=operator.dtype)
    (value,) = linalg.eigsh(counted, k=1, which="LA", tol=1e-3, return_eigenvectors=False)
    trace = float(library.hutchinson_trace(matrix, num_matvecs=PROBES))
    return Outcome(float(value), trace, product.count + PROBES, time.perf_counter() - start)


def pyhessian(problem: Problem) -> Outcome:
    """Its power iteration, and its Hutchinson's trace."""
    library = importlib.import_module("pyhessian")
    start = time.perf_counter()
    matrix = library.hessian(
        problem.model, nn.CrossEntropyLoss(), dataloader=problem.batches, cuda=False
    )
    matrix.dataloader_hv_product = product = Counted(matrix.dataloader_hv_product)
    values, _ = matrix.eigenvalues(tol=1e-4, top_n=1)
    traces = matrix.trace(maxIter=PROBES, tol=0)
    trace = sum(traces) / len(traces)
    return Outcome(values[0], trace, product.count, time.perf_counter() - start)


def eigenthings(problem: Problem) -> Outcome:
    """Its Lanczos' method, and its Hutchinson's trace."""
    library = importlib.import_module("hessian_eigenthings")
    start = time.perf_counter()
    operator = library.HessianOperator(
        model=problem.model,
        dataloader=problem.batches,
        loss_fn=library.supervised_loss(nn.functional.cross_entropy),
    )
    operator.matvec = product = Counted(operator.matvec)
    # its default of 2 steps does not converge, and it does not stop where it has converged
    pairs = library.lanczos(operator, k=1, max_iter=EIGENTHINGS_STEPS, which="LA")
    value = float(pairs.eigenvalues[0])
    trace = float(library.hutchinson(operator, num_samples=PROBES).estimate)
    return Outcome(value, trace, product.count, time.perf_counter() - start)


LIBRARIES: dict[str, Callable[[Problem], Outcome]] = {
    "curvlinops": curvlinops,
    "PyHessian": pyhessian,
    "hessian-eigenthings": eigenthings,
}


def side_by_side(problem: Problem) -> list[Row]:
    """A row a library."""
    ours, half = lowland(problem)
    rows = []
    for name, compute in LIBRARIES.items():
        try:
            with warnings.catch_warnings(), sdpa_kernel(SDPBackend.MATH):
                warnings.simplefilter("ignore")
                theirs = compute(problem)
        except ImportError:
            continue
        except Exception as error:  # of other libraries
            print(f"{name} on {problem.name}: {error!r:.300}", file=sys.stderr)
            continue
        equal = abs(ours.eigenvalue / theirs.eigenvalue - 1) < EQUAL
        within = abs(ours.trace - theirs.trace) < 3 * half
        value, trace = (" (DIFFERS)" * (not same) for same in (equal, within))
        detail = (
            f"{problem.name}: {ours.seconds:.1f} s and {ours.products} products, "
            f"{theirs.seconds:.1f} s and {theirs.products}; largest eigenvalue "
            f"{ours.eigenvalue:.4f} and {theirs.eigenvalue:.4f}{value}, trace {ours.trace:.1f} ± "
            f"{half:.1f} and {theirs.trace:.1f}{trace}"
        )
        seconds = ours.seconds / theirs.seconds
        rows.append(Row("the largest eigenvalue and the trace", name, seconds, "<= 1.1", detail))
    return rows


def main() -> None:
    """`--brief`: fewer rounds and examples. Further arguments: the networks, such as MLP."""
    brief = "--brief" in sys.argv
    rounds, examples = (3, 100) if brief else (9, 1000)
    rows = []
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    for problem in problems(names, examples=examples):
        rows.append(product_cost(problem, rounds))
        rows += side_by_side(problem)
    report(rows)


if __name__ == "__main__":
    main()
