"""Losses and errors around SWA and SGD: along rays, on the line between them, on planes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from network import TASK, Split, StridedNet, loader
from solutions import METHODS
from torch import Tensor

import lowland as ll
from lowland.records import PathResult, Record, SurfaceResult, Table, WidthsResult

RAYS = {"plain": None, "filter": "filter"}  # name -> normalisation of random directions


@dataclass(frozen=True)
class Sizes:
    """Examples, of each split, and points.

    Attributes:
        examples: of rays and planes. line_points, ray_points: on the line, and on each ray.
        rays: from each solution. radius: the last distance on plain rays. resolution: points along
            each side of a plane.
    """

    examples: int = 2000
    line_points: int = 31
    rays: int = 10
    ray_points: int = 11
    radius: float = 20.0
    resolution: int = 25

    @classmethod
    def smoke(cls) -> Sizes:
        return cls(examples=20, line_points=4, rays=2, ray_points=3, resolution=5)


class Measurements:
    """What is measured of the solutions of one seed.

    Args:
        runs: the folder of each method's iterates.
    """

    def __init__(self, split: Split, test: Split, runs: dict[str, Path], sizes: Sizes) -> None:
        self.runs, self.sizes = runs, sizes
        self.surface = ll.LossSurface(StridedNet(), TASK, loader(split))
        self.test = loader(test)
        first = [
            (images[: sizes.examples], labels[: sizes.examples]) for images, labels in (split, test)
        ]
        self.few = ll.LossSurface(StridedNet(), TASK, loader(first[0]))
        self.few_test = loader(first[1])

    def all(self, *, planes: bool) -> dict[str, Callable[[], Record]]:
        """Name -> what measures it."""
        works: dict[str, Callable[[], Record]] = {"solutions": self.solutions}
        for rays in RAYS:
            for method in METHODS:
                works[f"rays-{rays}-{method}"] = partial(self.rays, method, rays)
        works["line"] = self.line
        if planes:
            for plane in ("iterates", "ends"):
                for split in ("train", "test"):
                    works[f"plane-{plane}-{split}"] = partial(self.plane, plane, split)
        return works

    def iterates(self, method: str) -> ll.Trajectory:
        return ll.Trajectory.open(self.runs[method])

    def solution(self, method: str) -> Tensor:
        """The weights (P,); BatchNorm statistics are estimated wherever they are evaluated."""
        iterates = self.iterates(method)
        return iterates.swa() if method == "SWA" else iterates[-1].weights

    def solutions(self) -> Table:
        """Loss and error on all examples: of SGD, of SWA and of SWA's last iterate."""
        weights = {name: self.solution(name) for name in METHODS}
        weights["last iterate of SWA"] = self.iterates("SWA")[-1].weights
        rows = []
        for name, w in weights.items():
            row: dict[str, str | float] = {"solution": name}
            for split, data in (("train", None), ("test", self.test)):
                columns = self.surface.evaluate(w, loader=data).columns
                row |= {f"{split} {key}": float(columns[key][0]) for key in ("nll", "error")}
            rows.append(row | {"norm": float(w.norm())})
        distance = float((weights["SWA"] - weights["SGD"]).norm())
        return Table.from_rows([row | {"distance": distance} for row in rows])

    def rays(self, method: str, rays: str) -> WidthsResult:
        """Along the same random directions from each solution."""
        return ll.widths(
            self.few,
            self.solution(method),
            directions=self.sizes.rays,
            normalise=RAYS[rays],
            radius=self.sizes.radius if rays == "plain" else 1.0,
            points=self.sizes.ray_points,
            tolerance=1e-2,
            loader=self.few_test,
        )

    def line(self) -> PathResult:
        """From SGD at 0 to SWA at 1, on all examples."""
        ends = [self.solution(method) for method in METHODS]
        t = torch.linspace(-1, 2, self.sizes.line_points)
        return ll.path(ll.Line(*ends), self.surface, t=t, loader=self.test)

    def plane(self, plane: str, split: str) -> SurfaceResult:
        """Training loss, or test error. "iterates": through the first, the middle and the last
        iterate of SWA; "ends": through the shared first half's end, SGD and SWA."""
        iterates = self.iterates("SWA")
        swa, sgd = self.solution("SWA"), self.solution("SGD")
        if plane == "iterates":
            points = [iterates[i].weights for i in (0, len(iterates) // 2, -1)]
            names = ["first", "middle", "last"]
        else:
            points, names = [iterates[0].weights, sgd, swa], ["start", "SGD", "SWA"]
        test = split == "test"
        shape = ll.Plane.through(*points)
        paths = {"iterates of SWA": iterates}
        if plane == "ends":
            paths["SGD"] = self.iterates("SGD")
        result = ll.scan(
            shape,
            self.few,
            resolution=self.sizes.resolution,
            margin=0.4,
            loader=self.few_test if test else None,
            metrics=("error",) if test else ("loss",),
            refine=0.02,
            marks=names,
            paths=paths,
        )
        return result if plane == "ends" else ll.overlay(result, shape, marks={"SWA": swa})
