"""Figure 1 of subspace inference (Izmailov et al. 2019): one input, one target, many posteriors.

From the project's root: `python studies/regression1d/run.py`. In two parts, each kept in `--out`
(`runs/regression1d`) as it is done, so that a stopped run goes on where it was:

- published: in the plane of the published curve, where quadrature gives the truth: every sampler
  against it, in Monte Carlo standard errors, and how many samples a second each draws;
- trained: networks, a walk and a curve trained here by the paper's protocol; random, PCA and curve
  subspaces by elliptical slice sampling, NUTS, a variational Gaussian and a flow, beside SWAG, an
  ensemble, and a variational Gaussian over all weights.

What is compared was fixed before the first run: temperatures and prior scales are the paper's.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from problem import DATA, GRID, published, rows, surface
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
from lines import Lines  # noqa: E402
from readme import rewrite  # noqa: E402

MODES, EPOCHS, WALK, CURVE, RANK = 5, 3000, 2000, 6000, 10
SAMPLERS: dict[str, samplers.Sampler] = {
    "ESS": samplers.EllipticalSlice(),
    "NUTS": samplers.NUTS(),
    "VI": samplers.Variational(),
    "flow": samplers.Flow(draws=64, steps=2000),  # usually twice as many draws, for hours here
}
#: subspace -> temperature and prior scale (the paper's)
SETTINGS = {"random": (0.15, 1.0), "PCA": (1.5, 5.0), "curve": (0.75, 1.0)}
DIMENSIONS = {"random": 2, "PCA": 2, "curve": 2}
SAMPLES, LONG = 250, 1000  # of each of 16 chains, where they are trained here and published
SHOWN = 50  # functions of a band
VI_STEPS = 5000  # over all weights


class Study:
    """Where things lie, and the records that are there already."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out = data, out
        self.surface = surface(data)
        out.mkdir(parents=True, exist_ok=True)

    def chain(
        self, name: str, sub: ll.Subspace, sampler: samplers.Sampler, **options: Any
    ) -> Chain:
        """Samples, or what was sampled before."""
        file = self.out / f"{name}.npz"
        if file.is_file():
            return Chain.load(file).within(sub)
        print(f"{name} ...", flush=True)
        began = time.perf_counter()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            chain = ll.infer(
                sub,
                self.surface,
                sampler=sampler,
                samples=LONG if name.startswith("published") else SAMPLES,
                checkpoint=self.out / f"{name}.chains",
                **options,
            )
        chain.about["wall"] = time.perf_counter() - began
        chain.about["warnings"] = " ".join(str(one.message) for one in told)
        chain.save(file)
        return chain

    def figures(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Numbers that are made once."""
        file = self.out / f"{name}.json"
        if not file.is_file():
            write_text(file, json.dumps(make(), indent=1) + "\n")
        found: dict[str, Any] = json.loads(file.read_text())
        return found


# -- the published plane ---------------------------------------------------------------------------


def published_part(study: Study) -> list[dict[str, Any]]:
    """Every sampler against quadrature."""
    sub = published(study.data)
    temperature, scale = SETTINGS["curve"]
    options = {"temperature": temperature, "prior_scale": scale}
    truth = study.chain("published-grid", sub, samplers.Grid(), **options)
    found = [of_grid(truth)]
    for title, sampler in (SAMPLERS | {"slice": samplers.Slice()}).items():
        name = f"published-{sampler.name}"
        chain = study.chain(name, sub, sampler, **options)
        found.append(study.figures(name, lambda c=chain: against(c, truth)))
        found[-1]["sampler"] = title
    return found


def of_grid(truth: Chain) -> dict[str, Any]:
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


def against(chain: Chain, truth: Chain) -> dict[str, Any]:
    """How far means and second moments are off, in Monte Carlo standard errors."""
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


# -- what is trained here --------------------------------------------------------------------------


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.95)


def batches(data: Path, seed: int) -> ll.Batches:
    return ll.Batches(rows(data), batch_size=50, seed=seed)


def walks(study: Study) -> tuple[Tensor, list[ll.SWAG]]:
    """The networks side by side, (5, P), and the moments of their walks' last third.

    Trained by squared error, as the paper does: the noise's variance would scale the rate.
    """
    members = ll.Members(Regression1dNet() for _ in seeded(MODES))
    swag = ll.SWAG(ll.ParamLayout(members), rank=RANK)
    steps = len(batches(study.data, 0))
    ll.sgd_members(
        members,
        ll.Regression(noise_variance=1.0),
        [batches(study.data, seed) for seed in range(MODES)],
        epochs=EPOCHS,
        optimizer=lambda p: ll.MemberSGD(p, lr=[0.01] * MODES, momentum=0.95),
        collectors=[ll.Collector(swag, when=ll.Every(steps, start=WALK / EPOCHS))],
        checkpoint=study.out / "walks.safetensors",
        progress=Lines("networks"),
    )
    return members.weights.detach(), members.split(swag)


def seeded(n: int) -> Any:
    for seed in range(n):
        torch.manual_seed(seed)
        yield seed


def curve_of(study: Study, w: Tensor) -> ll.Bezier:
    file = study.out / "curve.safetensors"
    if file.is_file():
        return ll.Bezier.load(file)
    plain = ll.LossSurface(
        Regression1dNet(), ll.Regression(noise_variance=1.0), batches(study.data, 0)
    )
    curve = ll.fit(
        ll.Bezier.between(w[0], w[1]),
        plain,
        epochs=CURVE,
        optimizer=sgd,
        schedule=None,
        checkpoint=study.out / "curve.checkpoint",
        progress=Lines("curve"),
    )
    curve.save(file)
    return curve


def trained_part(study: Study) -> dict[str, FunctionsResult]:
    """The functions that each posterior draws."""
    w, swags = walks(study)
    curve = curve_of(study, w)
    subs = {
        "random": ll.Subspace.random(swags[0].mean, rank=DIMENSIONS["random"]),
        "PCA": ll.Subspace.pca(swags[0], rank=DIMENSIONS["PCA"]),
        "curve": ll.Subspace.from_curve(curve),
    }
    found = {}
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
            found[f"{kind}, {title}"] = band(study, chain.posterior())
    found["SWAG"] = band(study, swags[0].posterior())
    found["ensemble"] = band(study, ll.Ensemble(list(w)))
    found["VI, all weights"] = band(study, everywhere(study, w[0]))
    return found


def everywhere(study: Study, w: Tensor) -> ll.Gaussian:
    """A variational Gaussian over all weights, one variance a weight, about a trained network.

    Prior N(0, I), T = 1; Adam on the ELBO, four reparameterised draws a step.
    """
    file = study.out / "everywhere.safetensors"
    if file.is_file():
        tree = load_tree(file, kind="everywhere")
        return ll.Gaussian(tree["mean"], tree["variance"])
    batch, n = rows(study.data), len(rows(study.data)[0])
    mean = w.clone().requires_grad_()
    log_sd = torch.full_like(w, -5.0).requires_grad_()
    optimizer = torch.optim.Adam([mean, log_sd], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    tell = Lines("VI over all weights")
    nll = torch.func.vmap(lambda one: study.surface.loss(one, batch))
    for step in range(VI_STEPS):
        noise = torch.randn(4, len(w), generator=generator)
        loss = n * nll(mean + log_sd.exp() * noise).mean()
        loss = loss + 0.5 * (mean.square() + (2 * log_sd).exp() - 2 * log_sd - 1).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        tell(step + 1, VI_STEPS)
    found = ll.Gaussian(mean.detach(), (2 * log_sd.detach()).exp())
    save_tree(file, {"mean": mean.detach(), "variance": found.variance}, kind="everywhere")
    return found


def band(study: Study, post: Any) -> FunctionsResult:
    """Functions of a posterior on the grid."""
    return ll.functions(study.surface, post, GRID, samples=SHOWN, data=rows(study.data))


# -- pictures --------------------------------------------------------------------------------------


def draw(study: Study, bands: dict[str, FunctionsResult], pictures: Path) -> None:
    """The published plane with what was sampled in it, and the bands."""
    pictures.mkdir(exist_ok=True)
    sub = published(study.data)
    truth = Chain.load(study.out / "published-grid.npz")
    scanned = ll.posterior_plane(
        sub,
        study.surface,
        truth,
        resolution=201,
        store=study.out / "published-plane.scan",
        progress=Lines("plane"),
    )
    for title, sampler in SAMPLERS.items():
        chain = Chain.load(study.out / f"published-{sampler.name}.npz")
        plots.save(
            plots.posterior(scanned, chain=chain), pictures / f"published-{title.lower()}.png"
        )
    for name, found in bands.items():
        file = name.lower().replace(", ", "-").replace(" ", "-")
        plots.save(plots.functions(found), pictures / f"{file}.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path("runs/regression1d"))
    asked = parser.parse_args()
    with using_threads(1):
        study = Study(asked.data, asked.out)
        compared = published_part(study)
        bands = trained_part(study)
        draw(study, bands, HERE / "pictures")
        rewrite(HERE / "README.md", results(compared, bands))
    return 0


if __name__ == "__main__":
    sys.exit(main())
