"""Tensors and nested state in files, without pickle."""

import json
import math
import zlib

import pytest
import torch
from safetensors.torch import save_file

from lowland.errors import StoreError
from lowland.tensor_files import (
    load_tree,
    open_safetensors,
    read_tensors,
    same_tree,
    save_tree,
    tensor_checksum,
    write_tensors,
)


def test_a_kill_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.safetensors"
    save_tree(path, {"step": 1}, kind="state")

    def killed_process(*args):
        raise SystemExit

    monkeypatch.setattr("os.replace", killed_process)
    with pytest.raises(SystemExit):
        save_tree(path, {"step": 2}, kind="state")
    assert load_tree(path, kind="state") == {"step": 1}


TREES = {
    "empty": {},
    "none": None,
    "number": 1.5,
    "int keys": {0: "a", 1: {2: 3}, "1": "not 1"},
    "other keys": {None: 1, True: 2, 2.5: 3},
    "tuples": {"betas": (0.9, 0.999), "nested": ([], (), {}, [(1,)], [[None]])},
    "words that mean something": {"tensor": "t0", "dict": {"tuple": [1]}, "tuple": ("dict",)},
    "numbers": [True, 1, 1.0, -0.0, 2**70, math.inf, -math.inf, "σ\n"],
    "tensors": {
        "bf16": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
        "half": torch.ones(2, dtype=torch.float16),
        "double": torch.tensor([math.pi], dtype=torch.float64),
        "bool": torch.tensor([True, False]),
        "long": torch.tensor([2**62]),
        "byte": torch.tensor([255], dtype=torch.uint8),
        "scalar": torch.tensor(3.0),
        "no rows": torch.zeros(0, 3),
        "no rows either": torch.zeros(0, 3),
        "strided": torch.arange(6.0).reshape(2, 3).T,
        "list": [torch.zeros(1), (torch.ones(1),)],
    },
}


def types(node):
    if isinstance(node, dict):
        return {key: types(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [type(node), *map(types, node)]
    return (node.dtype, node.shape) if isinstance(node, torch.Tensor) else type(node)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_trees_come_back_as_they_were(tmp_path, tree) -> None:
    save_tree(tmp_path / "a", tree, kind="test")
    back = load_tree(tmp_path / "a", kind="test")
    assert same_tree(back, tree)
    assert types(back) == types(tree)


def test_nan_comes_back(tmp_path) -> None:
    save_tree(tmp_path / "a", [math.nan, torch.tensor([math.nan])], kind="test")
    number, tensor = load_tree(tmp_path / "a", kind="test")
    assert math.isnan(number)
    assert tensor.isnan().all()


def test_state_of_an_optimizer_and_a_generator(tmp_path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    save_tree(tmp_path / "a", state, kind="state")
    back = load_tree(tmp_path / "a", kind="state")
    assert same_tree(back, state)
    other = torch.optim.Adam(model.parameters(), lr=0.5)
    other.load_state_dict(back["optimizer"])
    assert same_tree(other.state_dict(), optimizer.state_dict())


def test_tensors_in_one_storage(tmp_path) -> None:
    base = torch.arange(10.0)
    tree = {
        "whole": base,
        "again": base,
        "part": base[2:5],
        "back": base.flip(0),
        "row": base[None],
    }
    save_tree(tmp_path / "a", tree, kind="test")
    back = load_tree(tmp_path / "a", kind="test")
    assert same_tree(back, tree)
    back["whole"].zero_()
    assert back["again"].sum() == 45


def test_parameters_are_stored_as_tensors(tmp_path) -> None:
    save_tree(tmp_path / "a", [torch.nn.Parameter(torch.ones(2))], kind="test")
    assert not load_tree(tmp_path / "a", kind="test")[0].requires_grad


def test_values_that_need_pickle_are_an_error(tmp_path) -> None:
    for value in ({1, 2}, object(), {"f": len}, {(1, 2): 3}, 1j):
        with pytest.raises(TypeError, match="cannot be stored without pickle"):
            save_tree(tmp_path / "a", value, kind="test")
    assert not (tmp_path / "a").exists()


def test_damaged_and_foreign_files_are_an_error(tmp_path) -> None:
    path = tmp_path / "a.safetensors"
    save_tree(path, {"w": torch.ones(100)}, kind="swag")
    content = path.read_bytes()
    for size in (0, 4, 8, 60, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(StoreError, match=r"a\.safetensors: not a safetensors file, or a dam"):
            load_tree(path, kind="swag")
    for foreign in (b"PK\x03\x04" + bytes(100), b'{"a": 1}' * 20, bytes(1000)):
        path.write_bytes(foreign)
        with pytest.raises(StoreError, match=r"a\.safetensors: "):
            load_tree(path, kind="swag")
    with pytest.raises(StoreError, match=r"none: no such file"):
        load_tree(tmp_path / "none", kind="swag")
    with pytest.raises(StoreError, match="no such file"):
        read_tensors(tmp_path)


def test_another_kind_is_an_error(tmp_path) -> None:
    path = tmp_path / "a"
    save_tree(path, {}, kind="swa")
    with pytest.raises(StoreError, match="expected swag, found swa; name another file"):
        load_tree(path, kind="swag")
    write_tensors(path, {"w": torch.ones(1)}, {})
    with pytest.raises(StoreError, match="found a file that lowland did not write"):
        load_tree(path, kind="swag")
    write_tensors(path, {}, {"format": "lowland-2", "kind": "swag", "tree": "{}"})
    with pytest.raises(StoreError):
        load_tree(path, kind="swag")


def test_tensors_and_metadata(tmp_path) -> None:
    path = tmp_path / "a"
    write_tensors(path, {"w": torch.arange(3.0)}, {"note": "σ"})
    tensors, metadata = read_tensors(path)
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert metadata["note"] == "σ"
    with open_safetensors(path) as file:
        assert list(file.keys()) == ["w"]
    header = path.read_bytes()[8:]
    assert json.loads(header[: header.rindex(b"}") + 1])["w"]["dtype"] == "F32"  # a plain format


def test_a_flipped_bit_is_an_error(tmp_path) -> None:
    path = tmp_path / "a"
    save_tree(path, {"step": 3, "w": torch.arange(50.0)}, kind="swag")
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")  # of the tensors, after the header
    for place in (start, start + 77, len(content) - 1, content.index(b"3]")):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StoreError, match="damaged, its checksum does not fit"):
            load_tree(path, kind="swag")
    path.write_bytes(content)
    assert load_tree(path, kind="swag")["step"] == 3


def test_files_of_others_have_no_checksum(tmp_path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "a", metadata={"format": "pt"})
    tensors, metadata = read_tensors(tmp_path / "a")
    assert torch.equal(tensors["w"], torch.ones(2))
    assert metadata == {"format": "pt"}


def test_a_file_without_a_checksum_is_mapped_and_not_read(tmp_path, monkeypatch) -> None:
    """Other checkpoints may have many gigabytes; an average reads one tensor at a time."""
    save_file({"w": torch.ones(2)}, tmp_path / "a")
    monkeypatch.setattr("lowland.tensor_files._checksum", lambda *_: pytest.fail("read it all"))
    assert torch.equal(read_tensors(tmp_path / "a")[0]["w"], torch.ones(2))


def test_same_tree() -> None:
    a = {"x": [1, (torch.ones(2), None)]}
    assert same_tree(a, {"x": [1, (torch.ones(2), None)]})
    for b in (
        {"x": [1, (torch.zeros(2), None)]},
        {"x": [1, [torch.ones(2), None]]},
        {"x": [1, (torch.ones(3), None)]},
        {"x": [1, (torch.ones(2, dtype=torch.float64), None)]},
        {"x": [1]},
        {"y": [1, (torch.ones(2), None)]},
        {"x": [1, (1.0, None)]},
    ):
        assert not same_tree(a, b)
    assert same_tree(torch.tensor([math.nan]), torch.tensor([math.nan]))  # bit by bit
    assert not same_tree(torch.tensor([0.0]), torch.tensor([-0.0]))


def test_checksums_are_those_of_the_bytes() -> None:
    a, b = torch.randn(3, 4), torch.arange(5)
    data = a.numpy().tobytes() + b.numpy().tobytes()
    assert tensor_checksum(a, b) == f"{zlib.crc32(data):08x}"
    assert tensor_checksum(a.T) == f"{zlib.crc32(a.T.contiguous().numpy().tobytes()):08x}"
    assert tensor_checksum(torch.ones(1).expand(1)) == tensor_checksum(torch.ones(()))
    w = torch.tensor([0.0, 1.0])
    assert tensor_checksum(w) != tensor_checksum(torch.tensor([-0.0, 1.0]))
