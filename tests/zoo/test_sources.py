"""Files of images and labels: decoded as they are, and no pickled code is run."""

import io
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lowland import DataError
from lowland.zoo import cifar10, cifar100
from lowland.zoo.sources import decode
from tests.zoo.pictures import images_of, pixels, png, raw


class Python2(pickle._Pickler):
    """Writes text and bytes as one kind of string, as the files of the data set have them."""

    dispatch = dict(pickle._Pickler.dispatch)  # noqa: RUF012

    def save_string(self, text: str | bytes) -> None:
        content = text if isinstance(text, bytes) else text.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(text)

    dispatch[str] = dispatch[bytes] = save_string


def old_pickle(value: object) -> bytes:
    buffer = io.BytesIO()
    Python2(buffer, protocol=2).dump(value)
    return buffer.getvalue().replace(b"numpy._core", b"numpy.core")  # its name in those days


def pickles(folder: Path, n: int = 12) -> None:
    """A data set as cs.toronto.edu packs it: planes of colour, lists of labels, Python 2."""
    folder.mkdir()
    for i, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        data = pixels(n, i).transpose(0, 3, 1, 2).reshape(n, 3072)
        batch = {"batch_label": "x", "labels": [k % 10 for k in range(n)], "data": data}
        (folder / name).write_bytes(old_pickle(batch))


def test_python_version(tmp_path):
    pickles(tmp_path / "cifar-10-batches-py")
    for root in (tmp_path, tmp_path / "cifar-10-batches-py"):
        data = cifar10(root, validation=10)
        assert len(data["train"][1]) == 50
        x = [i.numpy().tobytes() for i in data["train"][0]] + images_of(data["validation"])
        assert sorted(x) == sorted(row for i in range(5) for row in raw(12, i))
        assert sorted(images_of(data["test"])) == sorted(raw(12, 5))


def test_cifar100(tmp_path):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, seed in (("train", 0), ("test", 1)):
        data = pixels(100, seed).transpose(0, 3, 1, 2).reshape(100, 3072)
        batch = {"fine_labels": list(range(100)), "coarse_labels": [0] * 100, "data": data}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    data = cifar100(tmp_path, validation=10)
    assert sorted(data["validation"].labels.tolist()) == list(range(100))
    assert len(data["train"][1]) == 90


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/lowland-was-here",)


@pytest.mark.parametrize("payload", [Evil(), {"data": Evil(), "labels": [1]}])
def test_pickles_run_no_code(tmp_path, payload):
    pickles(tmp_path / "cifar-10-batches-py")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(DataError, match=r"data_batch_3: .*system"):
        cifar10(tmp_path)
    assert not Path("/tmp/lowland-was-here").exists()


def test_a_pickle_without_labels(tmp_path):
    pickles(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(pickle.dumps({"data": []}))
    with pytest.raises(DataError, match=r"test_batch: .*labels"):
        cifar10(tmp_path)


def test_images_are_decoded_as_they_are(tmp_path):
    images = pixels(3, 0)
    found = decode([png(image) for image in images], str)
    assert torch.equal(found, torch.from_numpy(images))
    grey = pixels(3, 0, channels=1)
    assert torch.equal(decode([png(image) for image in grey], str), torch.from_numpy(grey))
    (tmp_path / "a.png").write_bytes(png(images[0]))
    assert torch.equal(decode([tmp_path / "a.png"], str)[0], found[0])


def test_a_size_is_cut_about_the_centre():
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, 2:6] = 200  # the middle square of a wide image
    assert bool((decode([png(image)], str, size=(4, 4)) == 200).all())
    assert decode([png(image)], str, size=(2, 4), mode="L").shape == (1, 2, 4, 1)


def test_examples_that_do_not_decode_are_named():
    first = png(pixels(1, 0)[0])
    where = "row {}".format
    with pytest.raises(DataError, match="row 1 is 16 x 16 colour, but row 0 is 32 x 32 colour"):
        decode([first, png(pixels(1, 0, side=16)[0])], where)
    with pytest.raises(DataError, match="row 1: not an image, or a damaged one"):
        decode([first, first[:50]], where)
    with pytest.raises(DataError, match="row 0: there is no image"):
        decode([], where)
