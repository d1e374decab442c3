"""Records go to disk and come back, and say what is wrong with files that are not theirs."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from lowland import records
from lowland.errors import DataError, StoreError
from lowland.records import (
    BarrierResult,
    Chain,
    Evidence,
    FunctionsResult,
    GrowthResult,
    PathResult,
    Predictive,
    Record,
    Reliability,
    RiskCoverage,
    ShiftCurves,
    SimilarityResult,
    SurfaceResult,
    Table,
    TemperingResult,
    TernaryResult,
    TrainingLog,
)

EXAMPLES: dict[str, list[Record]] = {
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
    "TemperingResult": [
        TemperingResult(
            torch.tensor([1.0, 100.0]),
            torch.tensor([0.5, math.inf]),
            torch.tensor([0.75, math.nan]),
            torch.tensor([0.25, 0.5]),
            second_name="error",
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
            figures={"rmse": torch.rand(3)},
            rows=10,
            outside=True,
        ),
        PathResult(*[torch.linspace(0, 1, 3)] * 6),
    ],
    "BarrierResult": [
        BarrierResult(
            *[torch.linspace(0, 1, 3)] * 3, distance=2.5, test_loss=torch.rand(3), rows=10
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
            known=torch.tensor([[True, True, False], [True, True, True]]),
            marks={"w0": torch.zeros(2)},
            curves={"Bezier": torch.rand(4, 2)},
            paths={"SGD": {"coords": torch.rand(3, 2), "residual": torch.rand(3)}},
            explained=torch.tensor([0.5, 0.25]),
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
            figures={"nll": 0.5, "accuracy": 1.0},
            reliability={"confidence": torch.rand(15), "count": torch.arange(15)},
        ),
        Predictive("regression", 1, mean=torch.rand(4, 1), variance=torch.rand(4, 1)),
    ],
}
EXAMPLES |= {
    "GrowthResult": [
        GrowthResult(
            torch.tensor([1, 2]),
            torch.tensor([math.nan, 1.5]),
            *[torch.tensor([0.25, 0.5])] * 3,
            kept=torch.tensor([1, 0]),
            counted="connectors",
            stopped="it is full",
            bound=2.5,
            figures={"test_error_mean": torch.rand(2)},
        ),
        GrowthResult(torch.tensor([1]), *[torch.rand(1)] * 4, kept=torch.tensor([1])),
    ],
    "TernaryResult": [
        TernaryResult(
            torch.eye(3),
            {"loss": torch.tensor([1.0, math.nan, math.inf])},
            names=["SGD", "SWA", "w2"],
            lengths=torch.tensor([3.0, 5.0, 4.0]),
            split="test",
            rows=10,
        ),
        TernaryResult(torch.eye(3), {}),
    ],
    "FunctionsResult": [
        FunctionsResult(
            torch.rand(4, 1),
            torch.rand(3, 4, 1),
            torch.rand(4, 1),
            torch.rand(4, 1),
            "regression",
            torch.rand(2, 1),
            torch.rand(2, 1),
        ),
        FunctionsResult(torch.rand(4, 2), torch.rand(3, 4, 2), torch.rand(4, 2)),
    ],
}
ALL = [pytest.param(r, id=f"{name}-{i}") for name, rs in EXAMPLES.items() for i, r in enumerate(rs)]


def same(a, b, *, exact: bool) -> bool:
    if isinstance(a, Tensor):
        same_type = a.dtype == b.dtype if exact else b.dtype in (torch.float64, torch.int64)
        return (
            same_type
            and a.shape == b.shape
            and torch.allclose(a.double(), b.double(), equal_nan=True, rtol=0, atol=0)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key], exact=exact) for key in a)
    return type(a) is type(b) and (a == b or (a != a and b != b))  # NaN


def test_every_record_has_an_example() -> None:
    every = {
        name
        for name, c in vars(records).items()
        if isinstance(c, type) and issubclass(c, Record) and c is not Record
    }
    assert every == set(EXAMPLES)
    assert all(c.figure for c in map(vars(records).get, every))


@pytest.mark.parametrize("ending", [".npz", ".json"])
@pytest.mark.parametrize("record", ALL)
def test_round_trip(tmp_path, record, ending) -> None:
    path = record.save(tmp_path / f"deep/record{ending}")
    assert path.name == f"record{ending}"
    back = type(record).load(path)
    for field in dataclasses.fields(record):
        a, b = getattr(record, field.name), getattr(back, field.name)
        assert same(a, b, exact=ending == ".npz"), field.name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_path_without_ending(tmp_path) -> None:
    table = Table({"a": torch.tensor([1.0])})
    assert table.save(tmp_path / "table.v2").name == "table.v2.npz"
    assert Table.load(tmp_path / "table.v2").a == 1


def test_bfloat16_and_gradients_go_to_disk(tmp_path) -> None:
    table = Table({"a": torch.tensor([1.5, 2.5], dtype=torch.bfloat16, requires_grad=True)})
    for ending in (".npz", ".json"):
        assert Table.load(table.save(tmp_path / f"a{ending}")).a.tolist() == [1.5, 2.5]


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_damaged_and_foreign_files_are_named(tmp_path, ending) -> None:
    path = EXAMPLES["Predictive"][0].save(tmp_path / f"a{ending}")
    whole = path.read_bytes()
    with pytest.raises(StoreError, match="expected a Table, found a Predictive"):
        Table.load(path)
    for size in (0, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:size])
        with pytest.raises(StoreError, match=rf"a\{ending}: not a record, or a damaged one"):
            Predictive.load(path)
    path.write_bytes(b"[1, 2]")
    with pytest.raises(StoreError, match="not a record"):
        Predictive.load(path)
    with pytest.raises(StoreError, match="no such record"):
        Predictive.load(tmp_path / f"none{ending}")


def test_nothing_is_unpickled(tmp_path) -> None:
    import numpy as np

    np.savez(tmp_path / "a.npz", **{"record.json": np.array([object()], dtype=object)})
    with pytest.raises(StoreError, match="not a record"):
        Table.load(tmp_path / "a.npz")


def test_fields_of_another_version(tmp_path) -> None:
    body = {"record": "Table", "columns": {"a": [1.0]}, "units": "nats"}
    (tmp_path / "a.json").write_text(json.dumps(body))
    with pytest.raises(StoreError, match=r"another version of lowland .*'units'"):
        Table.load(tmp_path / "a.json")
    (tmp_path / "a.json").write_text(json.dumps({"record": "Table"}))
    with pytest.raises(StoreError, match=r"another version of lowland .*'columns'"):
        Table.load(tmp_path / "a.json")


@pytest.mark.parametrize("ending", [".npz", ".json"])
def test_files_of_before_error_by_samples(tmp_path, ending) -> None:
    new = EXAMPLES["Predictive"][0]
    path = new.save(tmp_path / f"a{ending}")
    if ending == ".json":
        body = json.loads(path.read_text())
        del body["error_by_samples"]
        path.write_text(json.dumps(body))
    else:
        import numpy as np

        arrays = dict(np.load(path))
        body = json.loads(str(arrays["record.json"]))
        del arrays[body["fields"]["dict"].pop("error_by_samples")["array"]]
        np.savez(path, **{**arrays, "record.json": np.array(json.dumps(body))})
    old = Predictive.load(path)
    assert old.error_by_samples is None
    assert same(new.probs, old.probs, exact=ending == ".npz")
    assert old.metrics() == new.metrics()


def test_a_figure_of_a_triangle_is_an_attribute() -> None:
    triangle = EXAMPLES["TernaryResult"][0]
    assert triangle.loss[0] == 1
    assert triangle.evaluated == 3
    with pytest.raises(AttributeError, match="no figure 'acc'; there are loss"):
        _ = triangle.acc


def test_columns_of_a_table() -> None:
    table = EXAMPLES["Table"][0]
    assert table.nll[1] == 0.25
    assert table.method == ["SGD", "SWA"]
    assert len(table) == 2
    assert list(table.rows()) == [
        {"method": "SGD", "nll": 0.5, "n": 1},
        {"method": "SWA", "nll": 0.25, "n": 2},
    ]
    with pytest.raises(AttributeError, match="no column 'acc'; there are method, nll, n"):
        _ = table.acc
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.columns = {}


def test_a_table_in_letters() -> None:
    assert str(EXAMPLES["Table"][0]).splitlines() == [
        "method     nll  n",
        "SGD     0.5000  1",
        "SWA     0.2500  2",
    ]
    assert str(Table({})) == ""
    assert str(Table({"a": torch.tensor([math.nan])})).split() == ["a", "nan"]


def test_a_table_as_a_frame() -> None:
    frame = EXAMPLES["Table"][0].to_pandas()
    assert list(frame.columns) == ["method", "nll", "n"]
    assert frame.nll.tolist() == [0.5, 0.25]
    assert frame.method.tolist() == ["SGD", "SWA"]
    assert list(Table({"a": torch.zeros(0)}).to_pandas().columns) == ["a"]


def test_a_table_of_rows_gives_the_rows() -> None:
    rows = [{"a": 1.5, "of": "x"}, {"a": 2.0, "of": "y"}]
    assert list(Table.from_rows(rows).rows()) == rows
    holes = Table.from_rows([{"a": 1}, {"of": "y", "b": 3.0}])
    assert holes.of == ["", "y"]  # as strings, though the first row has none
    assert holes.a.dtype == torch.float64
    assert holes.a.isnan().tolist() == [False, True]
    assert holes.b.isnan().tolist() == [True, False]
    assert len(Table.from_rows([])) == 0


def test_the_best_of_temperatures_and_priors() -> None:
    record = EXAMPLES["TemperingResult"][0]
    assert (record.temperature, record.prior_scale) == (100.0, math.inf)
    frame = record.to_pandas()
    assert list(frame.columns) == ["temperature", "prior_scale", "nll", "nll_se", "error"]
    assert frame.error.tolist() == [0.25, 0.5]
    assert list(EXAMPLES["TemperingResult"][1].to_pandas().columns)[-1] == "nll"
    one, two = torch.ones(1), torch.ones(2)
    for columns, options, said in [
        ((two, two, two), {"second": one}, "rmse: expected 2 values, one for each nll, got 1"),
        ((one, two, two), {}, "temperature: expected 2 values"),
        ((two, two, two), {"best": 2}, "best: expected a row, 0 to 1, got 2"),
        ((two, two, two), {"second_name": "ece"}, "expected 'rmse' or 'error', got 'ece'"),
    ]:
        with pytest.raises(DataError, match=said):
            TemperingResult(*columns, **options)


def test_expected_calibration_error() -> None:
    record = Reliability(
        torch.tensor([0.3, math.nan, 0.9]),
        torch.tensor([0.5, math.nan, 0.8]),
        torch.tensor([30, 0, 70]),
    )
    assert record.ece == pytest.approx(0.3 * 0.2 + 0.7 * 0.1)


def test_the_mean_over_kinds() -> None:
    curves = {"noise": {"nll": torch.tensor([0.5, 1.0])}, "blur": {"nll": torch.tensor([0.5, 3.0])}}
    assert ShiftCurves(torch.tensor([0, 1]), curves).mean("nll").tolist() == [0.5, 2.0]


def test_the_rest() -> None:
    assert EXAMPLES["TrainingLog"][0].seconds == 3.5
    assert EXAMPLES["Predictive"][0].metrics() == {"nll": 0.5, "accuracy": 1.0}
