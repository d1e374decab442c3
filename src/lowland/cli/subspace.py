"""`lowland subspace`: the posterior in a few dimensions about a network, and its model average."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lowland import plots
from lowland.cli import subspaces
from lowland.cli.averages import predicted, row
from lowland.cli.connection import Connection
from lowland.cli.console import Terminal, say
from lowland.cli.opened import open_runs
from lowland.cli.show import Bars, show_figures
from lowland.cli.subspaces import Subspaces
from lowland.cli.trust import Trust
from lowland.core.threads import using_threads
from lowland.errors import ConfigError, LowlandError, StoreError
from lowland.evaluate.conditions import print_of
from lowland.geometry import Curve
from lowland.posteriors import PointMass, Posterior
from lowland.progress import Report
from lowland.records import Chain, Predictive, SurfaceResult, Table
from lowland.runs import chains as posteriors
from lowland.runs.config import Inference, check_inference, read_value
from lowland.runs.folder import locked
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
    rows: Annotated[
        int | None, typer.Option(min=2, help="Training rows of the likelihood: all without it.")
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
    asked = check_inference(
        {
            "kind": kind,
            "rank": rank,
            "sampler": sampler,
            "temperature": read_value(temperature, where="--temperature"),
            "prior_scale": read_value(prior_scale, where="--prior-scale"),
            "chains": chains,
            "samples": samples,
            "warmup": warmup,
            "rows": rows,
        },
        where="the options",
    )
    (opened,) = open_runs([run], trust=trust)
    place = out or opened.folder.path / "subspace" / f"{kind}-{sampler}"
    names = subspaces.middle(opened.folder, asked.kind, around)
    stage = Subspaces(place.expanduser(), [opened], names)
    joined = (curve or opened.folder.path / "connect").expanduser()
    bend = _curve(joined, trust=trust) if asked.kind == "curve" else None
    execute(stage, asked, walk=walk, curve=bend, draws=draws, plane=plane, seed=seed)


def execute(
    stage: Subspaces,
    asked: Inference,
    *,
    walk: str,
    curve: Curve | None,
    draws: int,
    plane: bool = True,
    seed: int,
) -> Chain:
    """Does what `lowland subspace` does."""
    console = Terminal()
    store = _walk(stage, walk) if asked.kind == "pca" else None
    weights = stage.weights()
    # before the folder is taken: nothing else would fit it then
    posteriors.require(stage.setup, asked, iterates=store, curve=curve)
    own = {"walk": walk, "seed": seed}
    if store is not None:
        own["iterates"] = f"{len(store)} {print_of(store.swa())}"
    if curve is not None:
        own["curve"] = print_of(curve.anchors)
    if note := posteriors.missing_diagnostics(asked):
        say(console, f"Note: {note}")
    stage.path.mkdir(parents=True, exist_ok=True)
    with locked(stage.path), using_threads(stage.runs[0].threads):
        stage.claim(asked.model_dump() | own)
        with Bars(console) as bars:
            place, record = stage.shape("subspace"), stage.record("chain.npz")
            chain = subspaces.found(place, record)
            curving = chain is None and asked.kind == "hessian" and bars.add("curvature")
            progress = bars.add(f"sample: {posteriors.posterior_title(asked)}")
            if chain is None:
                center = weights[0] if weights else None
                try:
                    sub = stage.subspace()
                except StoreError:  # not there yet, or damaged
                    sub = posteriors.span(
                        stage.setup,
                        asked,
                        center,
                        iterates=store,
                        curve=curve,
                        seed=seed,
                        progress=curving,
                    )
                    place.parent.mkdir(parents=True, exist_ok=True)
                    sub.save(place)
                chain = posteriors.sample(
                    stage.setup,
                    sub,
                    asked,
                    seed=seed,
                    checkpoint=stage.path / "checkpoints" / "chains.safetensors",
                    progress=progress,
                )
                chain.save(record)
            progress(1, 1)
            sub = stage.subspace()
            posts: dict[str, tuple[str, Posterior]] = {
                "Centre": ("center", PointMass(sub.point(torch.zeros(sub.k)))),
                posteriors.posterior_title(asked): ("posterior", chain.posterior()),
            }
            preds = {
                title: predicted(stage, file, post, draws, seed, bars.add(f"predict: {title}"))
                for title, (file, post) in posts.items()
            }
            surface = None
            if plane and sub.k > 1:
                progress = bars.add("plane")
                surface = _plane(stage, chain.within(sub), asked, store, progress)
        if chain.about.get("told"):
            say(console, f"Note: {chain.about['told']}")
        _say_chain(chain, console)
        table = Table.from_rows(row(title, pred) for title, pred in preds.items())
        table.save(stage.record("averages.json"))
        show_figures(table, "test", "Test data", console)
        pictures = _draw(stage, chain, preds, surface)
    say(console, f"Results: {stage.path}/")
    say(console, f"Pictures: {', '.join(pictures)}")
    return chain


def _plane(
    stage: Subspaces, chain: Chain, asked: Inference, store: Trajectory | None, progress: Report
) -> SurfaceResult:
    file = stage.record("plane.npz")
    with suppress(StoreError):  # not there yet, or damaged
        return SurfaceResult.load(file)
    result = posteriors.plane(
        stage.setup,
        chain,
        asked,
        journal=stage.path / "checkpoints" / "plane.journal",
        iterates=store,
        progress=progress,
    )
    result.save(file)
    return result


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


def _say_chain(chain: Chain, console: Console) -> None:
    temperature = f"T = {chain.temperature:g}, prior scale {chain.prior_scale:g}"
    how = f"{posteriors.evaluations(chain):,} log densities in {posteriors.seconds(chain):.1f} s"
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


def _draw(
    stage: Subspaces, chain: Chain, preds: dict[str, Predictive], plane: SurfaceResult | None
) -> list[str]:
    """Writes pictures/*.png; gives their names."""
    drawn = subspaces.drawn(chain, plane)
    many = {t: p for t, p in preds.items() if p.samples > 1 and p.nll_by_samples is not None}
    if many:
        drawn["nll-by-samples"] = plots.samples(many)
    for name, axes in drawn.items():
        plots.save(axes, stage.path / "pictures" / f"{name}.png")
    return [f"{name}.png" for name in drawn]
