"""One's own images in folders."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lowland import ConfigError, DataError
from lowland.zoo import image_folder


def picture(path: Path, value: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (value,) * 3 if mode == "RGB" else value).save(path)


def fill(folder: Path, n: int = 10, classes=("ant", "bee", "cow"), **options) -> Path:
    """n images a class; the value of image i of class c is 10 c + i."""
    for c, name in enumerate(classes):
        for i in range(n):
            picture(folder / name / f"{i}.png", 10 * c + i, **options)
    return folder


def values(loader) -> list[int]:
    return loader.images[loader.index][:, 0, 0, 0].tolist()


def test_one_folder_is_split_by_seed(tmp_path):
    fill(tmp_path)
    data = image_folder(tmp_path, validation=0.2, test=6)
    x, y = data["train"]
    assert (tuple(x.shape), x.dtype) == ((18, 8, 8, 3), torch.uint8)
    assert torch.equal(x[:, 0, 0, 0] // 10, y)  # alphabetical
    parts = [x[:, 0, 0, 0].tolist(), values(data["validation"]), values(data["test"])]
    assert [len(p) for p in parts] == [18, 6, 6]
    assert sorted(value for part in parts for value in part) == list(range(30))
    assert values(image_folder(tmp_path, validation=0.2, test=6)["test"]) == parts[2]
    assert values(image_folder(tmp_path, validation=0.2, test=6, seed=1)["test"]) != parts[2]


def test_folders_of_parts(tmp_path):
    for name, n in (("train", 8), ("val", 3), ("test", 2)):
        fill(tmp_path / name, n)
    data = image_folder(tmp_path)
    assert [len(data["train"][1]), data["validation"].num_examples, data["test"].num_examples] == [
        24,
        9,
        6,
    ]
    assert data["transform"].pad == 1
    # without a test folder the training images give one
    for path in (tmp_path / "test").rglob("*.png"):
        path.unlink()
    for path in sorted((tmp_path / "test").rglob("*"), reverse=True):
        path.rmdir()
    (tmp_path / "test").rmdir()
    data = image_folder(tmp_path, test=4)
    assert [len(data["train"][1]), data["validation"].num_examples, data["test"].num_examples] == [
        20,
        9,
        4,
    ]


def test_normalised_over_the_training_images(tmp_path):
    fill(tmp_path)
    data = image_folder(tmp_path, augment=False)
    images, _ = data["transform"](data["train"], torch.Generator())
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    data = image_folder(tmp_path, normalise=False, colour=False)
    images, _ = next(iter(data["test"]))
    assert images.shape[1] == 1
    assert images.max() < 0.2


def test_sizes(tmp_path):
    fill(tmp_path, classes=("a", "b"), size=(10, 6))
    image = np.zeros((6, 10, 3), dtype=np.uint8)
    image[:, 2:8] = 200  # the middle of a wide picture, which a square about the centre is
    Image.fromarray(image).save(tmp_path / "a" / "wide.png")
    picture(tmp_path / "b" / "tall.png", 5, size=(4, 9))
    x = image_folder(tmp_path, size=6, normalise=False)
    every = torch.cat([x["train"][0], *(x[n].images[x[n].index] for n in ("validation", "test"))])
    assert every.shape[1:] == (6, 6, 3)
    assert sum(bool((one == 200).all()) for one in every) == 1
    assert image_folder(tmp_path, size=(4, 5))["train"][0].shape[1:] == (4, 5, 3)
    with pytest.raises(DataError, match=r"(wide|tall|\d).png is .* x .*, but .*png is"):
        image_folder(tmp_path)


def test_a_changed_folder_is_read_anew(tmp_path, own_cache):
    fill(tmp_path, classes=("a", "b"))
    first = image_folder(tmp_path, test=2)
    assert len(list(own_cache.iterdir())) == 1
    picture(tmp_path / "b" / "more.png", 99)
    data = image_folder(tmp_path, test=2)
    assert len(data["train"][1]) == len(first["train"][1]) + 1


def test_what_can_be_wrong_with_folders(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        image_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="a folder for each class"):
        image_folder(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"no image in a, b; known are .*\.png"):
        image_folder(tmp_path)
    fill(tmp_path, classes=("a", "b"))
    with pytest.raises(ConfigError, match="none would be left"):
        image_folder(tmp_path, validation=0.5, test=10)
    with pytest.raises(ConfigError, match="shares"):
        image_folder(tmp_path, validation=-0.5)
    (tmp_path / "a" / "broken.jpg").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"broken.jpg: not an image"):
        image_folder(tmp_path)
    (tmp_path / "a" / "broken.jpg").unlink()
    Image.fromarray(np.full((8, 8), 60_000, dtype=np.uint16)).save(tmp_path / "a" / "deep.png")
    with pytest.raises(DataError, match=r"deep.png.*8 bits"):
        image_folder(tmp_path)


def test_parts_with_other_classes(tmp_path):
    fill(tmp_path / "train", classes=("a", "b"))
    fill(tmp_path / "test", classes=("a", "c"))
    with pytest.raises(DataError, match=r"test: expected the classes a, b, found a, c"):
        image_folder(tmp_path)


# -- tensors -----------------------------------------------------------------------------------
