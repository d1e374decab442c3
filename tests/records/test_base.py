"""Records go to disk and come back, and say what is wrong with files that are not theirs."""

import dataclasses
import json
import math

import pytest
import torch
from torch import Tensor

from lowland import records
from lowland.errors import StoreError
from lowland.records import (
    FunctionsResult,
    GrowthResult,
    Predictive,
    Record,
    Table,
    TernaryResult,
)
from tests.records.examples import EXAMPLES

EXAMPLES |= {
    "GrowthResult": [
        GrowthResult(
            torch.tensor([1, 2]),
            torch.tensor([math.nan, 1.5]),
            *[torch.tensor([0.25, 0.5])] * 3,
            accepted=torch.tensor([1, 0]),
            unit="connectors",
            stop_reason="it is full",
            bound=2.5,
            metrics={"test_error_mean": torch.rand(2)},
        ),
        GrowthResult(torch.tensor([1]), *[torch.rand(1)] * 4, accepted=torch.tensor([1])),
    ],
    "TernaryResult": [
        TernaryResult(
            torch.eye(3),
            {"loss": torch.tensor([1.0, math.nan, math.inf])},
            names=["SGD", "SWA", "w2"],
            lengths=torch.tensor([3.0, 5.0, 4.0]),
            split="test",
            examples=10,
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


@pytest.mark.parametrize("record", ALL)
def test_a_record_is_printed_without_its_tensors(record) -> None:
    text = str(record)
    assert "tensor(" not in text
    assert len(text.splitlines()) < 60
