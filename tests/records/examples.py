"""An example or two of every record, by name."""

import math

import torch

from lowland.records import (
    BarrierResult,
    Chain,
    CycleSeries,
    DiversityResult,
    Evidence,
    IterateTable,
    LinearizationResult,
    PathResult,
    Predictive,
    Record,
    Reliability,
    RiskCoverage,
    Selection,
    SharpnessResult,
    ShiftCurves,
    SimilarityResult,
    SpectrumResult,
    SurfaceResult,
    Table,
    TemperingResult,
    TrainingLog,
    WidthsResult,
)
from lowland.records.linearization import TERMS

EXAMPLES: dict[str, list[Record]] = {
    "SpectrumResult": [
        SpectrumResult(
            "hessian",
            50,
            torch.tensor([3.0, 2.0]).double(),
            torch.tensor([1e-4, 1e-3]).double(),
            torch.tensor([[-0.5, 0.1, 1.0], [-0.4, 0.2, 0.9]]).double(),
            torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.7, 0.2]]).double(),
            12.7,
            0.1,
            1e-3,
            1000,
            "refresh",
            torch.eye(50)[:2],
            66,
            "forward",
            {"forward": 0.1, "double_backward": 0.2},
            6.6,
        ),
        SpectrumResult(
            "ggn",
            3,
            torch.tensor([3.0]).double(),
            torch.tensor([0.0]).double(),
            torch.tensor([[0.1]]).double(),
            torch.tensor([[1.0]]).double(),
            math.inf,
            0.1,
            0.0,
            10,
        ),
    ],
    "Evidence": [
        Evidence(-12.5, 0.1, "tempering", 1000, {"power_steps": 7, "repeats": torch.zeros(4)})
    ],
    "Chain": [
        Chain(torch.randn(2, 5, 3).double(), torch.randn(2, 5).double(), sampler="ess"),
        Chain(
            torch.randn(1, 4, 1).double(),
            torch.tensor([[0.0, -1.0, -math.inf, 2.0]]).double(),
            sampler="grid",
            temperature=0.5,
            prior_scale=None,
            evaluations=4,
            acceptance=torch.ones(1),
            log_weights=torch.zeros(1, 4).double(),
            log_evidence=-3.5,
            about={"spacing": 0.05, "moments": {"mean": torch.zeros(1)}},
        ),
    ],
    "CycleSeries": [
        CycleSeries(
            torch.arange(3),
            torch.tensor([0.0, 1.0, 2.0]).double(),
            {"error": torch.tensor([0.5, math.nan, 0.25]).double()},
            torch.arange(2),
            torch.tensor([0.1, 0.01]).double(),
            members=torch.tensor([1]),
            ends=torch.tensor([2]),
            split="test",
        )
    ],
    "IterateTable": [
        IterateTable(
            {"iterate": torch.tensor([1, 2]), "nll": torch.tensor([0.5, math.inf]).double()}
        )
    ],
    "DiversityResult": [
        DiversityResult(
            ["a", "b"],
            torch.eye(2).double(),
            torch.eye(2).double(),
            1 - torch.eye(2).double(),
            member_nll=torch.tensor([0.5, 0.75]).double(),
            ensemble_nll=0.25,
            items=10,
        ),
        DiversityResult(["a"], *[torch.eye(1).double()] * 5),
    ],
    "Selection": [
        Selection(
            ["SGD", "SWA"],
            torch.tensor([0.5, math.inf]).double(),
            torch.tensor([0.1, math.nan]).double(),
            torch.tensor([0.0, math.inf]).double(),
            torch.tensor([0.0, math.nan]).double(),
            "SGD",
            "SGD",
            items=10,
            groups=5,
        )
    ],
    "SharpnessResult": [
        SharpnessResult(
            "adaptive",
            torch.tensor([0.5, 0.1]).double(),
            torch.tensor([math.inf, 0.25]).double(),
            torch.tensor([[0.5, math.inf], [0.125, 0.25]]).double(),
            torch.tensor([[0.5, math.inf], [0.125, 0.25]]).double(),
            loss=0.1,
            gradient_norm=0.01,
            invariant=True,
            rescaled=torch.tensor([math.inf, math.inf]).double(),
            nonfinite=3,
            evaluations=84,
            batchnorm="frozen",
            examples=10,
            settings={"steps": 20, "norm": "inf", "eta": 0.0, "normalised_logits": False},
        ),
        SharpnessResult(
            "sam", *[torch.ones(1).double()] * 2, *[torch.ones(1, 2).double()] * 2, 0.5, 0.0
        ),
    ],
    "WidthsResult": [
        WidthsResult(
            "filter-normalised",
            torch.tensor([0.0, 0.5, 1.0]).double(),
            {"loss": torch.tensor([[0.1, 0.2, math.inf]]).double()},
            torch.tensor([math.inf]).double(),
            0.001,
            0.1,
            torch.tensor([2.0]).double(),
            loss=0.1,
            gradient_norm=0.01,
            invariant=False,
            batchnorm="none",
            examples=10,
        )
    ],
    "TemperingResult": [
        TemperingResult(
            torch.tensor([1.0, 100.0]),
            torch.tensor([0.5, math.inf]),
            torch.tensor([0.75, math.nan]),
            torch.tensor([0.25, 0.5]),
            second_metric_name="error",
            best=1,
            samples=30,
            evaluations=1000,
            nll_se=torch.tensor([0.01, 0.02]),
        ),
        TemperingResult(*[torch.rand(3)] * 3),
    ],
    "Table": [
        Table(
            {"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25]), "n": torch.tensor([1, 2])}
        ),
        Table({"loss": torch.tensor([1.0, math.nan, math.inf])}),
        Table({}),
    ],
    "TrainingLog": [
        TrainingLog(
            {
                "epoch": torch.tensor([1, 2]),
                "loss": torch.tensor([0.5, 0.25], dtype=torch.float64),
                "seconds": torch.tensor([1.5, 2.0]),
            },
            {"swa": {"epoch": torch.tensor([2]), "nll": torch.tensor([0.125])}},
        ),
        TrainingLog({}),
    ],
    "Reliability": [
        Reliability(torch.tensor([0.25, 0.75]), torch.tensor([0.5, math.nan]), torch.tensor([4, 0]))
    ],
    "PathResult": [
        PathResult(
            *[torch.linspace(0, 1, 3)] * 6,
            test_loss=torch.tensor([1.0, math.nan, 2.0]),
            metrics={"rmse": torch.rand(3)},
            examples=10,
            outside=True,
        ),
        PathResult(*[torch.linspace(0, 1, 3)] * 6),
    ],
    "LinearizationResult": [
        LinearizationResult(
            torch.rand(3),
            {name: torch.rand(3, 4).double() for name in TERMS},
            {name: torch.rand(4).double() for name in TERMS},
            torch.tensor([1.0, 0.5]).double(),
            torch.rand(2, 4).double(),
            torch.rand(2, 4).double(),
            ["a", "b", "c"],
            "frozen",
        ),
    ],
    "BarrierResult": [
        BarrierResult(
            *[torch.linspace(0, 1, 3)] * 3, distance=2.5, test_loss=torch.rand(3), examples=10
        ),
        BarrierResult(*[torch.linspace(0, 1, 3)] * 3, distance=2.5),
    ],
    "SimilarityResult": [
        SimilarityResult(torch.eye(2), 1 - torch.eye(2), torch.rand(2, 2), ["SGD", "SWA"]),
        SimilarityResult(torch.eye(2), 1 - torch.eye(2)),
    ],
    "SurfaceResult": [
        SurfaceResult(
            torch.linspace(0, 1, 3),
            torch.linspace(0, 1, 2),
            {"loss": torch.tensor([[1.0, math.nan, 2.0], [math.inf, 0.5, 0.25]])},
            evaluated_mask=torch.tensor([[True, True, False], [True, True, True]]),
            marks={"w0": torch.zeros(2)},
            curves={"Bezier": torch.rand(4, 2)},
            paths={"SGD": {"coords": torch.rand(3, 2), "residual": torch.rand(3)}},
            explained_variance_ratio=torch.tensor([0.5, 0.25]),
            about={"split": "train"},
        ),
        SurfaceResult(torch.linspace(0, 1, 3), None, {"loss": torch.rand(3)}),
    ],
    "RiskCoverage": [RiskCoverage(torch.tensor([0.5, 1.0]), torch.tensor([0.0, 0.5]))],
    "ShiftCurves": [
        ShiftCurves(
            torch.tensor([0, 1]),
            {"contrast": {"nll": torch.tensor([0.5, 1.0]), "ece": torch.tensor([0.1, math.nan])}},
            {"contrast": {"nll": torch.tensor([0.1, 0.2])}},
        ),
        ShiftCurves(torch.tensor([0]), {}),
    ],
    "Predictive": [
        Predictive(
            "classification",
            3,
            probs=torch.rand(4, 2),
            entropy=torch.rand(4),
            targets=torch.tensor([0, 1, 1, 0]),
            error_by_samples=torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64),
            metric_values={"nll": 0.5, "accuracy": 1.0},
            reliability={"confidence": torch.rand(15), "count": torch.arange(15)},
        ),
        Predictive("regression", 1, mean=torch.rand(4, 1), variance=torch.rand(4, 1)),
    ],
}
