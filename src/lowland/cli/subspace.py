"""`lowland subspace`: the posterior in a few dimensions about a network, and its model average."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from lowland.artifacts import Artifact, Graph, Inputs, Source
from lowland.artifacts.graph import complete
from lowland.cli import subspaces
from lowland.cli.building import drawn, outline
from lowland.cli.connection import Connection
from lowland.cli.console import Terminal, say
from lowland.cli.load_runs import load_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.subspaces import Subspaces
from lowland.cli.trust import Trust
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, LowlandError, StoreError
from lowland.geometry import Curve
from lowland.posteriors import PointMass, Posterior
from lowland.records import Chain
from lowland.runs import chains as posteriors
from lowland.runs.averaging import AveragesTable, PosteriorPrediction
from lowland.runs.chains import PosteriorPlane, SampledChain, SpannedSubspace
from lowland.runs.config import Inference, check_inference, read_value
from lowland.runs.pictures import SamplesPicture, chain_pictures
from lowland.runs.run import Run
from lowland.runs.sources import hash_of
from lowland.trajectory import Trajectory


def subspace(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `lowland run` made.")],
    kind: Annotated[
        str,
        typer.Option(
            help="pca: the walk's principal components; random: orthonormal directions; curve: of "
            "a curve that `lowland connect` made; hessian: its leading eigenvectors."
        ),
    ] = "pca",
    sampler: Annotated[
        str, typer.Option(help="ess, slice, nuts, sgld, vi, flow, or grid for 1 to 3 dimensions.")
    ] = "ess",
    rank: Annotated[
        int, typer.Option(min=1, help="Dimensions; a curve has as many as it has.")
    ] = 5,
    temperature: Annotated[
        str,
        typer.Option(
            help="By which the log-likelihood is divided: a number, several as [1, 10], or tune, "
            "which takes the best on validation data."
        ),
    ] = "tune",
    prior_scale: Annotated[
        str, typer.Option(help="The prior's standard deviation: likewise.")
    ] = "1.0",
    chains: Annotated[int, typer.Option(min=1, help="That are sampled at once.")] = 16,
    samples: Annotated[int, typer.Option(min=1, help="Of each chain.")] = 50,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Transitions before them: what suits the sampler.")
    ] = None,
    examples: Annotated[
        int | None, typer.Option(min=2, help="Training examples of the likelihood: all without it.")
    ] = None,
    around: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The middle of random and hessian: average-0 without it, or sgd-0 in a run that "
            "has none.",
        ),
    ] = None,
    walk: Annotated[
        str, typer.Option(metavar="NAME", help="The iterates of pca, in trajectory/.")
    ] = "swa-0",
    curve: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of `lowland connect`: RUN/connect without it."),
    ] = None,
    draws: Annotated[int, typer.Option(min=1, help="Networks in the average.")] = 30,
    plane: Annotated[
        bool,
        typer.Option(
            help="Whether to draw the log posterior over the first two coordinates, 961 points of "
            "it: with BatchNorm that takes long."
        ),
    ] = True,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where it goes: RUN/subspace/KIND-SAMPLER."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    trust: Trust = False,
) -> None:
    """Sample the posterior in a subspace of the weights, and average over it.

    Stop it at any moment; the same command goes on where it stopped.
    """
    inference = check_inference(
        {
            "kind": kind,
            "rank": rank,
            "sampler": sampler,
            "temperature": read_value(temperature, where="--temperature"),
            "prior_scale": read_value(prior_scale, where="--prior-scale"),
            "chains": chains,
            "samples": samples,
            "warmup": warmup,
            "examples": examples,
        },
        where="the options",
    )
    (opened,) = load_runs([run], trust=trust)
    place = out or opened.folder.path / "subspace" / f"{kind}-{sampler}"
    names = subspaces.middle(opened.folder, inference.kind, around)
    stage = Subspaces(place.expanduser(), [opened], names)
    joined = (curve or opened.folder.path / "connect").expanduser()
    bend = _curve(joined, trust=trust) if inference.kind == "curve" else None
    execute(stage, inference, walk=walk, curve=bend, draws=draws, plane=plane, seed=seed)


def execute(
    stage: Subspaces,
    inference: Inference,
    *,
    walk: str,
    curve: Curve | None,
    draws: int,
    plane: bool = True,
    seed: int,
) -> Chain:
    """Does what `lowland subspace` does."""
    console = Terminal()
    store = _walk(stage, walk) if inference.kind == "pca" else None
    # before the folder is taken: nothing else would fit it then
    posteriors.require(stage.setup, inference, iterates=store, curve=curve)
    stage.weights()
    if note := posteriors.missing_diagnostics(inference):
        say(console, f"Note: {note}")
    stage.claim(inference.model_dump() | {"walk": walk, "seed": seed})
    run = Run(stage.setup.config, stage.setup)
    subspace = SpannedSubspace(run, inference, _basis(stage, store, curve), seed=seed)
    chain = SampledChain(run, subspace)
    dimensions = len(curve.anchors) - 1 if curve is not None else inference.rank
    surface = PosteriorPlane(run, chain, file="plane.npz") if plane and dimensions > 1 else None

    def center(inputs: Inputs) -> Posterior:
        sub = inputs[subspace.name]
        return PointMass(sub.point(torch.zeros(sub.k)))

    def posterior(inputs: Inputs) -> Posterior:
        return chain.within(inputs).posterior()

    label = posteriors.posterior_title(inference)
    options: dict[str, Any] = {"draws": draws, "seed": seed}
    predictions = [
        PosteriorPrediction(run, "center", "Centre", [subspace], center, **options),
        PosteriorPrediction(run, "posterior", label, [subspace, chain], posterior, **options),
    ]
    averages = AveragesTable(predictions)
    pictures = chain_pictures(chain, surface)
    pictures.append(SamplesPicture({each.label: each for each in predictions}))
    graph = Graph(stage.path, tell=lambda line: say(console, line))
    targets = complete([averages, *pictures])
    with using_threads(stage.runs[0].threads):
        outline(graph, targets, console)
        with Bars(console) as bars:
            graph.build(targets, bar=bars.of)
    result: Chain = graph.load(chain)
    if result.about.get("told"):
        say(console, f"Note: {result.about['told']}")
    _say_chain(result, graph.seconds(chain), console)
    show_figures(graph.load(averages), "test", "Test data", console)
    say(console, f"Results: {stage.path}/")
    say(console, f"Pictures: {', '.join(drawn(graph, targets))}")
    return result


def _basis(stage: Subspaces, store: Trajectory | None, curve: Curve | None) -> Artifact:
    """What the subspace is spanned by or lies about."""
    if store is not None:
        return Source("iterates", store, {"hash": hash_of([len(store), store.swa()])})
    if curve is not None:
        return Source("curve", curve, {"hash": hash_of(curve.anchors)})
    return stage.sources()[0]


def _walk(stage: Subspaces, name: str) -> Trajectory:
    path = stage.runs[0].folder.path / "trajectory" / name
    try:
        return Trajectory.open(path, layout=stage.setup.layout)
    except StoreError as error:
        raise ConfigError(f"--kind pca: {error} A run of the method swa keeps iterates.") from error


def _curve(joined: Path, *, trust: bool) -> Curve:
    if not Connection.is_at(joined):
        raise ConfigError(
            f"--kind curve: {joined} holds no curve; run `lowland connect` first, or name its "
            "folder with --curve."
        )
    curves = Connection.open(joined, trust=trust).curves()
    fitted = [curve for kind, curve in curves.items() if kind != "line"]
    if not fitted:
        raise ConfigError(
            f"--kind curve: {joined} holds a line alone; run `lowland connect --kind bezier`."
        )
    return fitted[0]


def _say_chain(chain: Chain, seconds: float, console: Console) -> None:
    temperature = f"T = {chain.temperature:g}, prior scale {chain.prior_scale:g}"
    how = f"{posteriors.evaluations(chain):,} log densities in {seconds:.1f} s"
    say(console, f"{temperature}; {how}.")
    if chain.log_evidence_bound is not None:  # of a fitted density, whose draws are independent
        khat = chain.about.get("khat")
        told = (
            "" if khat is None else f"; Pareto's k {khat:.2f}, above 0.7 weights cannot correct it"
        )
        say(console, f"ELBO {chain.log_evidence_bound:.2f}{told}.")
    elif chain.log_weights is None and len(chain.coords) > 1:
        with suppress(LowlandError):  # without arviz-stats, of which was told before
            worst, least = float(chain.rhat.max()), float(chain.ess.min())
            told = f"R-hat {worst:.3f}, effective samples {least:.0f} of {len(chain.draws)}."
            if math.isnan(worst) or math.isnan(least):
                told = "R-hat is not known: too few samples, or chains that never moved."
            say(console, told)
