"""The rows of the comparison: for each method its posterior, tuned on validation data."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from lowland.cli import subspaces
from lowland.cli.modes import Modes
from lowland.core import Classification
from lowland.errors import ConfigError, StoreError
from lowland.evaluate import fit_temperature, predict, temper, tune_scale
from lowland.metrics import metric_names
from lowland.posteriors import Ensemble, Gaussian, Mixture, PointMass, Posterior, Uniform
from lowland.progress import Progress
from lowland.records import Predictive, Table

TITLES = {
    "sgd": "SGD",
    "ema": "EMA",
    "swa": "SWA",
    "swag-diagonal": "SWAG-diagonal",
    "swag": "SWAG",
    "fge": "FGE ensemble",
    "ensemble": "Deep ensemble",
    "multiswag": "MultiSWAG",
    "espro": "ESPRO",
}


@dataclass(frozen=True)
class Needs:
    """Training runs of a method, and what they cost in budgets of one SGD run."""

    annealed: int = 0
    walks: int = 0
    cycles: int = 0
    simplexes: int = 0
    chains: int = 0


class Methods:
    """Builds, tunes and judges each method."""

    def __init__(self, modes: Modes) -> None:
        self.modes = modes
        self.setup = modes.setup
        self.folder = modes.folder
        self.config = modes.config

    def needs(self, method: str) -> Needs:
        """What must be trained for a method alone."""
        components = self.config.simplex.components
        return {
            "sgd": Needs(annealed=1),
            "ema": Needs(walks=1),
            "swa": Needs(walks=1),
            "swag-diagonal": Needs(walks=1),
            "swag": Needs(walks=1),
            "fge": Needs(walks=1, cycles=1),
            "ensemble": Needs(annealed=self.config.ensemble),
            "multiswag": Needs(walks=self.config.ensemble),
            "espro": Needs(annealed=components, simplexes=components),
            "subspace": Needs(walks=1, chains=1),
        }[method]

    def check(self) -> None:
        """Refuses a budget in which a method would find too few iterates, before it is spent."""
        average, fge = self.config.average, self.config.fge
        for method in self.config.methods:
            if method in ("swa", "swag-diagonal", "swag", "fge", "multiswag"):
                least = 2 if "swag" in method else 1
                self._enough(
                    method, "swa", least, f"start {average.start}, every {average.every} epochs"
                )
            if method == "subspace":
                asked = self.config.subspace
                if asked.kind == "curve":
                    raise ConfigError(
                        "subspace.kind: a run has no curve yet; run `lowland connect`, then "
                        "`lowland subspace --kind curve`."
                    )
                subspaces.require(self.setup, asked)
                least = asked.rank + 1 if asked.kind == "pca" else 1
                self._enough(
                    method,
                    "swa",
                    least,
                    f"start {average.start}, every {average.every} epochs, rank {asked.rank}",
                )
            if method == "fge":
                self._enough(method, "fge", 1, f"start {average.start}, cycle {fge.cycle} epochs")

    def _enough(self, method: str, kind: str, least: int, settings: str) -> None:
        stored = self.modes.expected(kind)
        if stored < least:
            raise ConfigError(
                f"{self.title(method)} needs {least} iterates or more, and gets {stored} of "
                f"{self.config.train.epochs} epochs with {settings}: collect earlier or more "
                "often, or train longer."
            )

    def title(self, method: str) -> str:
        """The name of a row."""
        if method == "subspace":
            return subspaces.title(self.config.subspace)
        many = {"ensemble": self.config.ensemble, "multiswag": self.config.ensemble}
        many["espro"] = self.config.simplex.components
        return TITLES[method] + (f" of {many[method]}" if many.get(method, 1) > 1 else "")

    def judge(self, method: str, progress: Progress) -> None:
        """Predicts the test rows with a method, after tuning it on the validation rows."""
        if self._judged(method):
            return
        post, scale = self._tuned(method)
        setup = self.setup
        options: dict[str, Any] = {"samples": self.config.samples, "seed": self.config.seed}
        if post.support is not None:
            options["samples"] = None
        classes = isinstance(setup.task, Classification)
        temperature = float("nan")
        if classes:
            held = predict(setup.surface, post, setup.validation, **options)
            with warnings.catch_warnings():
                # where no row is wrong it stays 1, which the table shows
                warnings.simplefilter("ignore")
                temperature = fit_temperature(held, task=setup.task)
        began = time.perf_counter()
        pred = predict(setup.surface, post, setup.test, progress=progress, **options)
        seconds = time.perf_counter() - began
        figures = pred.metrics()
        row: dict[str, Any] = {"method": self.title(method)}
        row |= {name: figures[name] for name in metric_names() if name in figures}
        if classes:
            tempered = temper(pred, temperature, task=setup.task).metrics()
            row |= {"temperature": temperature, "nll_tempered": tempered["nll"]}
            row["ece_tempered"] = tempered["ece"]
        row |= {
            "scale": scale,
            "samples": float(pred.samples),
            "epochs": self._epochs(method),
            "train_seconds": self._train_seconds(method),
            "predict_seconds": seconds,
        }
        pred.save(self.folder.record(f"{method}.npz"))
        Table.from_rows([row]).save(self.folder.record(f"{method}.json"))
        self.folder.event("judged", method=method, nll=figures.get("nll"))

    def _judged(self, method: str) -> bool:
        """Whether both records are there, whole, and of one mind; if not they are made again."""
        try:
            row = Table.load(self.folder.record(f"{method}.json")).columns
            figures = self.predictive(method).metrics()
        except StoreError:
            return False
        both = [name for name in metric_names() if name in figures and name in row]
        return all(float(row[name][0]) == figures[name] for name in both)

    def comparison(self) -> Table:
        """All rows that were judged."""
        each = [Table.load(self.folder.record(f"{m}.json")) for m in self.config.methods]
        return Table.from_rows(row for table in each for row in table.rows())

    def predictive(self, method: str) -> Predictive:
        """The model average of a method on the test rows."""
        return Predictive.load(self.folder.record(f"{method}.npz"))

    # -- posteriors ------------------------------------------------------------------------------

    def posterior(self, method: str) -> Posterior:
        """The posterior of a method, at the paper's scale."""
        layout, load = self.setup.layout, self.folder.load_weights
        many = range(self.config.ensemble)
        simple: dict[str, Callable[[], Posterior]] = {
            "sgd": lambda: PointMass(load("sgd-0", layout)),
            "ema": lambda: PointMass(load("ema-0", layout)),
            "swa": lambda: PointMass(load("average-0", layout)),
            "fge": lambda: self.modes.store("fge-0").ensemble(),
            "ensemble": lambda: Ensemble([load(f"sgd-{i}", layout) for i in many]),
            "espro": self._espro,
            "subspace": lambda: self.modes.chain().posterior(),
        }
        if method in simple:
            return simple[method]()
        rank = 0 if method == "swag-diagonal" else self.config.average.rank
        if method == "multiswag":
            return Mixture([self._swag(i, rank) for i in many])
        return self._swag(0, rank)

    def judged(self, method: str) -> tuple[Posterior, dict[str, float]]:
        """The posterior at the scale that was chosen, and the numbers of its row."""
        columns = Table.load(self.folder.record(f"{method}.json")).columns
        row = {k: float(v[0]) for k, v in columns.items() if isinstance(v, torch.Tensor)}
        post = self.posterior(method)
        if isinstance(post, Gaussian | Mixture) and post.has_scale:
            post = post.with_scale(row["scale"])
        return post, row

    def _tuned(self, method: str) -> tuple[Posterior, float]:
        """The posterior and, where it has one, its covariance scale, tuned."""
        post = self.posterior(method)
        if isinstance(post, Gaussian | Mixture) and post.has_scale:
            return self._tune(post)
        return post, float("nan")

    def _swag(self, number: int, rank: int) -> Gaussian:
        store = self.modes.store(f"swa-{number}")
        with warnings.catch_warnings():
            # a short demo holds fewer iterates than the rank; the table says how many
            warnings.simplefilter("ignore")
            post = store.swag(rank=min(rank, len(store)) if rank else 0).posterior()
        # what is frozen in this network may be other than in the surface's
        known = self.folder.load_weights(f"swa-{number}", self.setup.layout).buffers or {}
        frozen = {n: b for n, b in known.items() if n not in self.setup.surface.buffers}
        post.buffers = (post.buffers or {}) | frozen
        return post

    def _espro(self) -> Posterior:
        each = [Uniform(self.modes.shape(i)) for i in range(self.config.simplex.components)]
        return each[0] if len(each) == 1 else Mixture(each)

    def _tune(self, post: Gaussian | Mixture) -> tuple[Posterior, float]:
        tuned, table = tune_scale(
            self.setup.surface,
            post,
            self.setup.validation,
            scales=self.config.average.scales,
            samples=self.config.samples,
            seed=self.config.seed,
        )
        return tuned, float(table.scale[table.nll.argmin()])

    # -- costs -----------------------------------------------------------------------------------

    def _epochs(self, method: str) -> float:
        """Epochs of training that the method alone needs."""
        needs = self.needs(method)
        epochs = float(self.config.train.epochs)
        if needs.cycles:  # branches off its walk where that begins to be averaged
            done = self.modes.store("swa-0").steps[0] / self.modes.steps
            return done + len(self.modes.log("fge-0").columns["epoch"])
        # a step on a simplex is as many passes as it takes samples
        grown = sum(
            float((self.modes.growth(i).vertices > 1).sum()) for i in range(needs.simplexes)
        )
        asked = self.config.simplex
        passes = grown * asked.epochs * asked.samples
        if needs.chains:  # a log density is a forward pass, a third of what training takes
            share = self.modes.setup.share_of(self.config.subspace.rows)
            passes += share * subspaces.evaluations(self.modes.chain()) / 3
        return epochs * (needs.annealed + needs.walks) + passes

    def _train_seconds(self, method: str) -> float:
        needs = self.needs(method)
        log = self.modes.log
        if needs.cycles:
            share = self.modes.store("swa-0").steps[0] / self.modes.total
            return log("swa-0").seconds * share + log("fge-0").seconds
        seconds = sum(log(f"sgd-{i}").seconds for i in range(needs.annealed))
        seconds += sum(log(f"swa-{i}").seconds for i in range(needs.walks))
        grown = [self.modes.growth(i).figures["seconds"] for i in range(needs.simplexes)]
        seconds += sum(float(each.nansum()) for each in grown)
        return seconds + (subspaces.seconds(self.modes.chain()) if needs.chains else 0)
