"""Figure 1 of subspace inference (Izmailov et al. 2019): one input, one target, many posteriors.

Start `python studies/regression1d/run.py` in the project's root. Finished steps are stored in
`--out` (`runs/regression1d`), from which the same command resumes. The study has two parts:

- the plane of the published curve, where quadrature gives the exact moments: the errors of every
  sampler in Monte Carlo standard errors, and the samples that it draws a second;
- networks, SGD iterates and a curve trained here by the paper's protocol: random, PCA and curve
  subspaces by elliptical slice sampling, NUTS, a variational Gaussian and a flow, beside SWAG, an
  ensemble, and a variational Gaussian over all weights.

The settings were fixed before the first run: temperatures and prior scales are the paper's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from problem import DATA, GRID, examples, published_plane, surface
from report import results
from torch import Tensor

import lowland as ll
from lowland import plots, samplers
from lowland.core.threads import using_threads
from lowland.files import write_text
from lowland.records import Chain, FunctionsResult
from lowland.tensor_files import load_tree, save_tree
from lowland.zoo import Regression1dNet

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from progress import ProgressLines  # noqa: E402
from readme import rewrite  # noqa: E402

MODES, EPOCHS, CURVE_EPOCHS, RANK = 5, 3000, 6000, 10
START = 2000  # epoch from which SGD iterates are collected
SAMPLERS: dict[str, samplers.Sampler] = {
    "ESS": samplers.EllipticalSlice(),
    "NUTS": samplers.NUTS(),
    "VI": samplers.Variational(),
    "flow": samplers.Flow(
        draws=64, steps=2000
    ),  # the default has twice as many draws and takes hours here
}
#: subspace -> temperature and prior scale (the paper's)
SETTINGS = {"random": (0.15, 1.0), "PCA": (1.5, 5.0), "curve": (0.75, 1.0)}
DIMENSIONS = {"random": 2, "PCA": 2, "curve": 2}
#: samples of each of 16 chains, in the subspaces trained here and in the published plane
SAMPLES, PUBLISHED_SAMPLES = 250, 1000
FUNCTIONS = 50  # in a band
VI_STEPS = 5000  # of the Gaussian over all weights


class Study:
    """The surface, and a folder of finished records."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.surface = surface(data)
        out.mkdir(parents=True, exist_ok=True)

    def chain(
        self, name: str, sub: ll.Subspace, sampler: samplers.Sampler, **options: Any
    ) -> Chain:
        """Samples of `sampler`, from `name.npz` where that is there."""
        file = self.out / f"{name}.npz"
        if file.is_file():
            return Chain.load(file).within(sub)
        print(f"{name} ...", flush=True)
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chain = ll.infer(
                sub,
                self.surface,
                sampler=sampler,
                samples=PUBLISHED_SAMPLES if name.startswith("published") else SAMPLES,
                checkpoint=self.out / f"{name}.chains",
                **options,
            )
        chain.about["wall"] = time.perf_counter() - start
        chain.about["warnings"] = " ".join(str(warning.message) for warning in caught)
        chain.save(file)
        return chain

    def summary(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Numbers from `name.json`, computed where that is missing."""
        file = self.out / f"{name}.json"
        if not file.is_file():
            write_text(file, json.dumps(compute(), indent=1) + "\n")
        numbers: dict[str, Any] = json.loads(file.read_text())
        return numbers


# -- the published plane ---------------------------------------------------------------------------


def compare_samplers(study: Study) -> list[dict[str, Any]]:
    """A summary of quadrature, then one of every sampler."""
    sub = published_plane(study.data)
    temperature, scale = SETTINGS["curve"]
    options = {"temperature": temperature, "prior_scale": scale}
    truth = study.chain("published-grid", sub, samplers.Grid(), **options)
    summaries = [quadrature_summary(truth)]
    for title, sampler in (SAMPLERS | {"slice": samplers.Slice()}).items():
        name = f"published-{sampler.name}"
        chain = study.chain(name, sub, sampler, **options)
        summaries.append(study.summary(name, lambda c=chain: sampler_summary(c, truth)))
        summaries[-1]["sampler"] = title
    return summaries


def quadrature_summary(truth: Chain) -> dict[str, Any]:
    return {
        "sampler": "quadrature",
        "mean": truth.mean.tolist(),
        "sd": truth.covariance.diagonal().sqrt().tolist(),
        "log_evidence": truth.log_evidence,
        "evaluations": truth.evaluations,
        "seconds": truth.about["wall"],
        "told": truth.about["warnings"],
        "about": {k: v for k, v in truth.about.items() if isinstance(v, int | float)},
    }


def sampler_summary(chain: Chain, truth: Chain) -> dict[str, Any]:
    """Moments, and the largest error of a first or second moment in Monte Carlo standard errors."""
    from arviz_stats.base import array_stats

    middle = truth.mean
    centred = chain.coords - middle
    products = torch.stack([centred[..., 0] ** 2, centred[..., 1] ** 2, centred.prod(-1)], -1)
    values = torch.cat([centred, products], -1)
    second = truth.covariance
    expected = torch.stack([*torch.zeros(2), second[0, 0], second[1, 1], second[0, 1]]).double()
    n = array_stats.ess(values.numpy(), chain_axis=0, draw_axis=1, method="mean")
    off = values.flatten(0, 1).mean(0) - expected
    error = values.flatten(0, 1).std(0) / torch.as_tensor(n).sqrt()
    seconds = chain.about["wall"]
    return {
        "mean": chain.mean.tolist(),
        "sd": chain.covariance.diagonal().sqrt().tolist(),
        "off": float((off / error).abs().max()),
        "rhat": float(chain.rhat.max()),
        "ess": float(chain.ess.min()),
        "draws": len(chain.draws),
        "evaluations": chain.evaluations,
        "seconds": seconds,
        "bound": chain.log_evidence_bound,
        "told": chain.about["warnings"],
    }


# -- trained here ----------------------------------------------------------------------------------


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.95)


def batches(data: Path, seed: int) -> ll.Batches:
    return ll.Batches(examples(data), batch_size=50, seed=seed)


def train_networks(study: Study) -> tuple[Tensor, list[ll.SWAG]]:
    """Weights of the networks, (5, P), and the moments of the SGD iterates in the last third.

    The loss is the squared error, as in the paper: the noise variance would scale the learning
    rate.
    """
    members = ll.Members(networks(MODES))
    swag = ll.SWAG(ll.ParamLayout(members), rank=RANK)
    steps = len(batches(study.data, 0))
    ll.sgd_members(
        members,
        ll.Regression(noise_variance=1.0),
        [batches(study.data, seed) for seed in range(MODES)],
        epochs=EPOCHS,
        optimizer=lambda p: ll.MemberSGD(p, lr=[0.01] * MODES, momentum=0.95),
        collectors=[ll.Collector(swag, when=ll.Every(steps, start=START / EPOCHS))],
        checkpoint=study.out / "walks.safetensors",
        progress=ProgressLines("networks"),
    )
    return members.weights.detach(), members.split(swag)


def networks(n: int) -> Iterator[Regression1dNet]:
    for seed in range(n):
        torch.manual_seed(seed)
        yield Regression1dNet()


def fit_curve(study: Study, w: Tensor) -> ll.Bezier:
    file = study.out / "curve.safetensors"
    if file.is_file():
        return ll.Bezier.load(file)
    squared_error = ll.LossSurface(
        Regression1dNet(), ll.Regression(noise_variance=1.0), batches(study.data, 0)
    )
    curve = ll.fit(
        ll.Bezier.between(w[0], w[1]),
        squared_error,
        epochs=CURVE_EPOCHS,
        optimizer=sgd,
        schedule=None,
        checkpoint=study.out / "curve.checkpoint",
        progress=ProgressLines("curve"),
    )
    curve.save(file)
    return curve


def compute_bands(study: Study) -> dict[str, FunctionsResult]:
    """Functions drawn from each posterior."""
    w, swags = train_networks(study)
    curve = fit_curve(study, w)
    subs = {
        "random": ll.Subspace.random(swags[0].mean, rank=DIMENSIONS["random"]),
        "PCA": ll.Subspace.pca(swags[0], rank=DIMENSIONS["PCA"]),
        "curve": ll.Subspace.from_curve(curve),
    }
    bands = {}
    for kind, sub in subs.items():
        temperature, scale = SETTINGS[kind]
        for title, sampler in SAMPLERS.items():
            chain = study.chain(
                f"{kind.lower()}-{sampler.name}",
                sub,
                sampler,
                temperature=temperature,
                prior_scale=scale,
            )
            bands[f"{kind}, {title}"] = band(study, chain.posterior())
    bands["SWAG"] = band(study, swags[0].posterior())
    bands["ensemble"] = band(study, ll.Ensemble(list(w)))
    bands["VI, all weights"] = band(study, gaussian_over_all_weights(study, w[0]))
    return bands


def gaussian_over_all_weights(study: Study, w: Tensor) -> ll.Gaussian:
    """A variational Gaussian over all weights, one variance per weight, from a trained network on.

    Prior N(0, I), T = 1; Adam on the ELBO, four reparameterised draws per step.
    """
    file = study.out / "everywhere.safetensors"
    if file.is_file():
        tree = load_tree(file, kind="everywhere")
        return ll.Gaussian(tree["mean"], tree["variance"])
    batch, n = examples(study.data), len(examples(study.data)[0])
    mean = w.clone().requires_grad_()
    log_sd = torch.full_like(w, -5.0).requires_grad_()
    optimizer = torch.optim.Adam([mean, log_sd], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    progress = ProgressLines("VI over all weights")
    nll = torch.func.vmap(lambda weights: study.surface.loss(weights, batch))
    for step in range(VI_STEPS):
        noise = torch.randn(4, len(w), generator=generator)
        loss = n * nll(mean + log_sd.exp() * noise).mean()
        loss = loss + 0.5 * (mean.square() + (2 * log_sd).exp() - 2 * log_sd - 1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress(step + 1, VI_STEPS)
    gaussian = ll.Gaussian(mean.detach(), (2 * log_sd.detach()).exp())
    save_tree(file, {"mean": mean.detach(), "variance": gaussian.variance}, kind="everywhere")
    return gaussian


def band(study: Study, post: Any) -> FunctionsResult:
    """Functions drawn from a posterior, on the grid."""
    return ll.functions(study.surface, post, GRID, samples=FUNCTIONS, data=examples(study.data))


# -- pictures --------------------------------------------------------------------------------------


def save_pictures(study: Study, bands: dict[str, FunctionsResult], pictures: Path) -> None:
    """Pictures of the published plane with each sampler's samples, and of the bands."""
    pictures.mkdir(exist_ok=True)
    sub = published_plane(study.data)
    truth = Chain.load(study.out / "published-grid.npz")
    plane = ll.posterior_plane(
        sub,
        study.surface,
        truth,
        resolution=201,
        store=study.out / "published-plane.scan",
        progress=ProgressLines("plane"),
    )
    for title, sampler in SAMPLERS.items():
        chain = Chain.load(study.out / f"published-{sampler.name}.npz")
        plots.save(plots.posterior(plane, chain=chain), pictures / f"published-{title.lower()}.png")
    for name, functions in bands.items():
        file = name.lower().replace(", ", "-").replace(" ", "-")
        plots.save(plots.functions(functions), pictures / f"{file}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("runs/regression1d"))
    options = parser.parse_args()
    with using_threads(1):
        study = Study(options.data, options.out)
        comparisons = compare_samplers(study)
        bands = compute_bands(study)
        save_pictures(study, bands, HERE / "pictures")
        rewrite(HERE / "README.md", results(comparisons, bands))
    return 0


if __name__ == "__main__":
    sys.exit(main())
