"""CIFAR from parquet and from the Python version: decoded once, split by seed, checked."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lowland import ConfigError, DataError
from lowland.zoo import cifar, cifar10, sources
from tests.zoo.pictures import images_of, pixels, png, raw, write

SHARED = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """The parquet files that are decoded."""
    seen: list[Path] = []
    real = sources.read_parquet

    def read(path: Path):
        seen.append(path)
        return real(path)

    monkeypatch.setattr(cifar, "read_parquet", read)
    return seen


def test_pixels_and_labels_come_back(root):
    data = cifar10(root, validation=10)
    x, y = data["train"]
    assert (x.dtype, x.shape, y.dtype) == (torch.uint8, (50, 32, 32, 3), torch.int64)
    labels = dict(zip(raw(60, 0), np.arange(60) % 10, strict=True))
    assert all(labels[i.numpy().tobytes()] == int(c) for i, c in zip(x, y, strict=True))
    train = [i.numpy().tobytes() for i in x]
    assert sorted(train + images_of(data["validation"])) == sorted(raw(60, 0))
    assert sorted(images_of(data["clean"])) == sorted(train)
    assert images_of(data["clean"]) != train  # BatchNorm reads the first of them: not in file order
    assert images_of(data["batchnorm"]) == images_of(data["clean"])
    assert data["batchnorm"].prepare == data["transform"]
    assert data["clean"].prepare != data["transform"]
    assert sorted(images_of(data["test"])) == sorted(raw(40, 1))
    images, targets = next(iter(data["test"]))
    mean, std = torch.tensor(cifar._MEAN), torch.tensor(cifar._STD)
    assert data["normalise"] == (cifar._MEAN, cifar._STD)
    assert cifar10(root, validation=10, normalise=False)["normalise"] == ((0, 0, 0), (1, 1, 1))
    back = (images.permute(0, 2, 3, 1) * std + mean) * 255
    assert [i.round().byte().numpy().tobytes() for i in back] == images_of(data["test"])
    assert targets.shape == (40,)


def test_validation_from_the_test_file(root):
    data = cifar10(root, validation=15, validation_from="test")
    assert len(data["train"][1]) == 60
    held, test = images_of(data["validation"]), images_of(data["test"])
    assert (len(held), len(test)) == (15, 25)
    assert sorted(held + test) == sorted(raw(40, 1))
    other = cifar10(root, validation=15, validation_from="test", seed=1)
    again = cifar10(root, validation=15, validation_from="test", train=20)
    assert images_of(other["validation"]) != held
    assert images_of(again["validation"]) == held
    assert images_of(again["test"]) == test
    assert len(again["train"][1]) == 20
    with_none = cifar10(root, validation=0)
    assert "validation" not in with_none
    assert len(with_none["train"][1]) == 60


def test_options_of_the_transform(root):
    plain = cifar10(root, validation=5, augment=False, normalise=False)
    batch = plain["train"][0][:4], plain["train"][1][:4]
    images, _ = plain["transform"](batch, torch.Generator())
    torch.testing.assert_close(images.permute(0, 2, 3, 1), batch[0] / 255)
    full = cifar10(root, validation=5)["transform"]
    assert (full.pad, full.flip) == (4, True)


def test_decoded_once(root, reads, own_cache):
    first = cifar10(root, validation=5)
    assert len(reads) == 2
    again = cifar10(root, validation=5)
    assert len(reads) == 2
    assert torch.equal(first["train"][0], again["train"][0])
    assert torch.equal(first["train"][1], again["train"][1])
    assert len(list(own_cache.iterdir())) == 2
    # the same content written again is the same; another content is decoded anew
    (root / "test.parquet").write_bytes((root / "test.parquet").read_bytes())
    cifar10(root, validation=5)
    assert len(reads) == 2
    write(root / "test.parquet", [png(i) for i in pixels(40, 7)], np.arange(40) % 10)
    changed = cifar10(root, validation=5)
    assert reads[2:] == [root / "test.parquet"]
    assert sorted(images_of(changed["test"])) == sorted(raw(40, 7))
    cifar10(root, validation=5, cache=root / "elsewhere")
    assert len(reads) == 5


@pytest.mark.parametrize("damage", ["truncate", "one byte", "not a file of ours", "empty"])
def test_a_damaged_cache_is_made_anew(root, reads, own_cache, damage):
    first = cifar10(root, validation=5)
    del first["test"], first["validation"]
    for path in own_cache.iterdir():
        content = bytearray(path.read_bytes())
        path.unlink()  # the mapping of the first reading keeps its own file
        if damage == "truncate":
            content = content[: len(content) // 2]
        elif damage == "one byte":
            content[-5000] ^= 1
        elif damage == "empty":
            content = bytearray()
        else:
            content = bytearray(b"hello" * 100)
        path.write_bytes(content)
    data = cifar10(root, validation=5)
    assert len(reads) == 4
    assert sorted(images_of(data["test"])) == sorted(raw(40, 1))
    cifar10(root, validation=5)
    assert len(reads) == 4  # and whole again


def test_a_cache_that_cannot_be_written(root):
    (root / "file").write_text("")
    with pytest.warns(UserWarning, match="decoded each time"):
        data = cifar10(root, validation=5, cache=root / "file" / "below")
    assert len(data["train"][1]) == 55


# -- what can be wrong -------------------------------------------------------------------------


def test_files_that_are_not_there(root):
    with pytest.raises(DataError, match=r"train.parquet and test.parquet, or a folder cifar-10"):
        cifar10(root / "nowhere")
    (root / "test.parquet").unlink()
    with pytest.raises(DataError, match=r"test.parquet: no such file.*not whole"):
        cifar10(root)


def test_other_columns(root):
    pq.write_table(pa.table({"img": [b""], "fine": [1]}), root / "test.parquet")
    with pytest.raises(DataError, match=r"test.parquet: expected .* found img, fine"):
        cifar10(root)


def test_no_parquet(root):
    (root / "test.parquet").write_bytes(b"PAR1 hello")
    with pytest.raises(DataError, match=r"test.parquet: not a parquet file"):
        cifar10(root)


@pytest.mark.parametrize("bad", [b"hello", None, png(pixels(1, 0)[0])[:200]])
def test_a_example_that_is_no_image(root, bad):
    images = [png(i) for i in pixels(40, 1)]
    images[17] = bad
    write(root / "test.parquet", images, np.arange(40) % 10)
    with pytest.raises(DataError, match=r"test.parquet: row 17: not an image"):
        cifar10(root)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (pixels(1, 0, side=16)[0], "row 21 is 16 x 16 colour, but .*row 0 is 32 x 32 colour"),
        (pixels(1, 0, channels=1)[0], "row 21 is 32 x 32 grey, but .*row 0 is 32 x 32 colour"),
    ],
)
def test_images_of_two_kinds(root, image, words):
    images = [png(i) for i in pixels(40, 1)]
    images[21] = png(image)
    write(root / "test.parquet", images, np.arange(40) % 10)
    with pytest.raises(DataError, match=words):
        cifar10(root)


def test_grey_images_where_colour_is_expected(root):
    write(root / "test.parquet", [png(i) for i in pixels(40, 1, channels=1)], np.arange(40) % 10)
    with pytest.raises(DataError, match=r"expected colour images of 32 x 32, found .*32, 32, 1"):
        cifar10(root)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range(root, label):
    labels = np.arange(40) % 10
    labels[3] = label
    write(root / "test.parquet", [png(i) for i in pixels(40, 1)], labels)
    with pytest.raises(DataError, match=r"test: expected labels from 0 to 9, found"):
        cifar10(root, validation=5)
    if label == 10:
        assert cifar10(root, validation=5, classes=11)["test"].labels.max() == 10


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 60},
        {"validation": -1},
        {"validation": 0.1},
        {"validation": 10, "train": 51},
        {"validation": 40, "validation_from": "test"},
        {"validation": 10, "test": 41},
        {"validation": 10, "train": 0},
        {"validation_from": "elsewhere"},
    ],
)
def test_splits_that_do_not_fit(root, options):
    with pytest.raises(ConfigError, match="expected"):
        cifar10(root, **options)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the CIFAR-10 files are not beside the project")
def test_the_real_files_have_the_right_examples():
    table = pq.read_table(SHARED / "test.parquet")
    assert table.num_rows == 10_000
    assert np.bincount(table["label"].to_numpy()).tolist() == [1000] * 10
