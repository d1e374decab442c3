"""`lowland subspace`: the posterior in a few dimensions about a network, and its model average."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from lowland.artifacts import Artifact, Inputs, Source
from lowland.artifacts.order import complete
from lowland.cli.arguments import RunFolderPath, out_option
from lowland.cli.console import Terminal, say
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.load_runs import load_runs
from lowland.cli.options import Keys, with_section_options
from lowland.cli.origins import Place
from lowland.cli.stage_folder import open_trajectory
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.cli.tables import show_metrics
from lowland.cli.trust import Trust
from lowland.errors import ConfigError, LowlandError
from lowland.geometry import Curve
from lowland.posteriors import PointMass, Posterior
from lowland.records import Chain
from lowland.runs import chains as posteriors
from lowland.runs.chains import PosteriorPlane, SampledChain, SpannedSubspace
from lowland.runs.folder import RunFolder
from lowland.runs.keys import key
from lowland.runs.pictures import chain_pictures, samples_picture
from lowland.runs.posterior_predictions import AveragesTable, PosteriorPrediction
from lowland.runs.run import Run
from lowland.runs.shape_sections import Inference
from lowland.runs.sources import hash_of
from lowland.trajectory import Trajectory


class SubspaceOptions(Inference):
    """A posterior in a subspace, and the average over it."""

    trajectory: str = key("swa-0", "SGD iterates for pca, in trajectory/")
    seed: int = key(0, "seed of everything random", ge=0)
    draws: int = key(30, "networks in the average", ge=1)
    plane: bool = key(
        True,
        "draw the log posterior over the first two coordinates, at 961 points: with BatchNorm that "
        "takes long",
    )


@with_section_options
def subspace(
    run: RunFolderPath,
    options: Annotated[SubspaceOptions, Keys()],
    around: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Weights at the centre of random and hessian. Default: average-0, or sgd-0 in a "
            "run without it.",
        ),
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of `lowland connect`. Default: RUN/connect."),
    ] = None,
    out: Annotated[Path | None, out_option("RUN/subspace/KIND-SAMPLER")] = None,
    trust: Trust = False,
) -> None:
    """Sample the posterior in a subspace of the weights, and average over it.

    Stop it at any moment; the same command goes on where it stopped.
    """
    finished_runs = load_runs([run], trust=trust)
    root = finished_runs[0].folder
    path = out or root.path / "subspace" / f"{options.kind}-{options.sampler}"
    folder = SubspaceFolder(path, finished_runs, _center_names(root, options.kind, around))
    curve_path = (curve or root.path / "connect").expanduser()
    spanning: Curve | None = None
    origins: dict[str, list[Place]] = {}
    if options.kind == "curve":
        kind, spanning = _load_curve(curve_path, trust=trust)
        origins["curve"] = [(curve_path, f"shapes/{kind}.safetensors")]
    elif options.kind == "pca":
        origins["iterates"] = [(root.path, f"trajectory/{options.trajectory}")]
    execute(folder, options, curve=spanning, origins=origins)


def execute(
    folder: SubspaceFolder,
    options: SubspaceOptions,
    *,
    curve: Curve | None,
    origins: Mapping[str, Sequence[Place]],
) -> Chain:
    """Builds the chains of a folder and the averages over them, and prints both."""
    console = Terminal()
    root, store = folder.runs[0].folder, None
    if options.kind == "pca":
        store = open_trajectory(root, options.trajectory, folder.setup, option="--kind pca")
    # raises before the folder is claimed, where other settings would be refused
    posteriors.require(folder.setup, options, iterates=store, curve=curve)
    _ = folder.weights
    if note := posteriors.missing_diagnostics(options):
        say(console, f"Note: {note}")
    folder.claim(options.model_dump(exclude={"draws", "plane"}), origins)
    run = folder.run
    subspace = SpannedSubspace(run, options, _basis(folder, store, curve), seed=options.seed)
    chain = SampledChain(run, subspace)
    dimensions = len(curve.anchors) - 1 if curve is not None else options.rank
    several = options.plane and dimensions > 1
    surface = PosteriorPlane(run, chain, file="plane.npz") if several else None
    averages = AveragesTable(_predictions(run, subspace, chain, options))
    pictures = chain_pictures(chain, surface)
    pictures.append(samples_picture(averages.parts))
    builder = folder.builder(console)
    builder.build(complete([averages, *pictures]))
    result: Chain = builder.load(chain)
    if result.about.get("warnings"):
        say(console, f"Note: {result.about['warnings']}")
    _show_chain(result, builder.graph.seconds(chain), console)
    show_metrics(builder.load(averages), "test", "Test data", console)
    builder.say_results()
    return result


def _predictions(
    run: Run, subspace: SpannedSubspace, chain: SampledChain, settings: SubspaceOptions
) -> list[PosteriorPrediction]:
    """The centre of the subspace, and the average over the chains in it."""

    def center(inputs: Inputs) -> Posterior:
        sub = inputs[subspace.name]
        return PointMass(sub.point(torch.zeros(sub.k)))

    def posterior(inputs: Inputs) -> Posterior:
        return chain.within(inputs).posterior()

    label = posteriors.posterior_title(subspace.inference)
    options: dict[str, Any] = {"draws": settings.draws, "seed": settings.seed}
    return [
        PosteriorPrediction(run, "center", "Centre", [subspace], center, **options),
        PosteriorPrediction(run, "posterior", label, [subspace, chain], posterior, **options),
    ]


def _center_names(folder: RunFolder, kind: str, around: str | None) -> list[str]:
    """The name of the weights at the centre; none where iterates or a curve give the centre."""
    if kind in ("pca", "curve"):
        if around is not None:
            where = "the iterates' mean" if kind == "pca" else "the middle of the curve's ends"
            raise ConfigError(
                f"--around: --kind {kind} lies about {where}; leave it out, or take --kind random "
                "or hessian."
            )
        return []
    if around is None:
        around = "average-0" if "average-0" in folder.weight_names() else "sgd-0"
    return [around]


def _basis(folder: SubspaceFolder, store: Trajectory | None, curve: Curve | None) -> Artifact:
    """The artifact that spans the subspace, or lies at its centre."""
    if store is not None:
        return Source("iterates", store, {"hash": hash_of([len(store), store.swa()])})
    if curve is not None:
        return Source("curve", curve, {"hash": hash_of(curve.anchors)})
    return folder.sources()[0]


def _load_curve(path: Path, *, trust: bool) -> tuple[str, Curve]:
    """The first fitted curve of a folder, and its kind."""
    if not CurveFolder.is_at(path):
        raise ConfigError(
            f"--kind curve: {path} holds no curve; run `lowland connect` first, or name its "
            "folder with --curve."
        )
    curves = CurveFolder.open(path, trust=trust).curves()
    fitted = [(kind, curve) for kind, curve in curves.items() if kind != "line"]
    if not fitted:
        raise ConfigError(
            f"--kind curve: {path} holds a line alone; run `lowland connect --kind bezier`."
        )
    return fitted[0]


def _show_chain(chain: Chain, seconds: float, console: Console) -> None:
    """Prints what the chain cost, and whether it converged."""
    temperature = f"T = {chain.temperature:g}, prior scale {chain.prior_scale:g}"
    cost = f"{posteriors.evaluations(chain):,} log densities in {seconds:.1f} s"
    say(console, f"{temperature}; {cost}.")
    if chain.log_evidence_bound is not None:  # of a fitted density, whose draws are independent
        khat = chain.about.get("khat")
        note = (
            "" if khat is None else f"; Pareto's k {khat:.2f}, above 0.7 weights cannot correct it"
        )
        say(console, f"ELBO {chain.log_evidence_bound:.2f}{note}.")
    elif chain.log_weights is None and len(chain.coords) > 1:
        with suppress(LowlandError):  # without arviz-stats: printed before
            worst, least = float(chain.rhat.max()), float(chain.ess.min())
            line = f"R-hat {worst:.3f}, effective samples {least:.0f} of {len(chain.draws)}."
            if math.isnan(worst) or math.isnan(least):
                line = "R-hat is not known: too few samples, or chains that never moved."
            say(console, line)
