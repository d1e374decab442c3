"""Crops, mirror images and normalisation of a whole batch, against image by image."""

import pytest
import torch
from torch import Tensor

from lowland import ConfigError
from lowland.core import Classification
from lowland.core.data import ReplayableLoader
from lowland.core.seeds import stream
from lowland.train import Batches
from lowland.zoo import ImageLoader, Prepare
from lowland.zoo import images as zoo_images
from lowland.zoo.folder import moments

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def pictures(n: int = 9, height: int = 6, width: int = 5, channels: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(256, (n, height, width, channels), generator=g, dtype=torch.uint8)


def slowly(images: Tensor, prepare: Prepare, seed: int, *, twin: str = "") -> Tensor:
    """The same numbers, drawn in the same order, used pixel by pixel in float64."""
    g = torch.Generator().manual_seed(seed)
    n, height, width, channels = images.shape
    down = right = mirror = [0] * n
    if prepare.pad:
        down, right = torch.randint(2 * prepare.pad + 1, (2, n, 1), generator=g)[..., 0].tolist()
    if prepare.flip:
        mirror = torch.randint(2, (n,), generator=g).tolist()
    out = torch.zeros(n, channels, height, width, dtype=torch.float64)
    for i in range(n):
        for c in range(channels):
            for y in range(height):
                for x in range(width):
                    across = width - 1 - x if mirror[i] else x
                    row, column = y + down[i] - prepare.pad, across + right[i] - prepare.pad
                    inside = 0 <= row < height and 0 <= column < width
                    value = images[i, row, column, c].item() / 255 if inside else 0.0
                    if not inside and twin == "grey border":
                        value = prepare.mean[c]
                    out[i, c, y, x] = (value - prepare.mean[c]) / prepare.std[c]
    return out


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, False), (0, True), (2, True), (7, True)])
def test_a_batch_is_its_images_one_by_one(channels, pad, flip):
    images = pictures(channels=channels)
    prepare = Prepare(MEAN[:channels], STD[:channels], pad=pad, flip=flip)
    for seed in range(3):
        got, labels = prepare((images, torch.arange(9)), torch.Generator().manual_seed(seed))
        expected = slowly(images, prepare, seed)
        torch.testing.assert_close(got.double(), expected, rtol=0, atol=2e-6)
        assert got.dtype == torch.float32
        assert torch.equal(labels, torch.arange(9))
        assert got.is_contiguous(memory_format=torch.channels_last) or channels == 1
        if pad == 7:  # a border of the mean is not a black one
            twin = slowly(images, prepare, seed, twin="grey border")
            assert not torch.allclose(got.double(), twin, atol=0.1)


def test_bytes_stay_as_they_are():
    images = pictures()
    before = images.clone()
    Prepare(MEAN, STD, pad=2, flip=True)((images, torch.zeros(9)), torch.Generator())
    assert torch.equal(images, before)


def test_every_offset_and_side_comes_up_equally_often():
    # one bright pixel in the middle says where its image was cropped, and two whether it mirrors
    images = torch.zeros(9000, 5, 7, 1, dtype=torch.uint8)
    images[:, 2, 3] = 255
    images[:, 2, 4] = 100
    prepare = Prepare((0.0,), (1.0,), pad=1, flip=True)
    out, _ = prepare((images, torch.zeros(9000)), torch.Generator().manual_seed(0))
    bright = (out[:, 0] == 1).nonzero()
    assert len(bright) == 9000
    rows, columns = bright[:, 1], bright[:, 2]
    mirrored = out[torch.arange(9000), 0, rows, columns - 1] > 0
    for found, values in ((rows, (1, 2, 3)), (columns, (2, 3, 4))):
        for value in values:
            assert abs((found == value).double().mean().item() - 1 / 3) < 0.03
    assert abs(mirrored.double().mean().item() - 0.5) < 0.03
    assert abs(mirrored[rows == 1].double().mean().item() - 0.5) < 0.05  # and independently


def test_batches_are_a_function_of_seed_epoch_and_batch():
    data = pictures(20), torch.arange(20)
    prepare = Prepare(MEAN, STD, pad=2, flip=True)

    def epoch(number: int, start: int = 0, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
        batches = Batches(data, batch_size=8, seed=seed, transform=prepare)
        return list(batches.epoch(number, start=start))

    torch.manual_seed(1)
    first = epoch(2)
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    again = epoch(2)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert torch.equal(epoch(2, start=1)[0][0], first[1][0])
    assert not torch.equal(epoch(3)[0][0], first[0][0])
    assert not torch.equal(epoch(2, seed=2)[0][0], first[0][0])


def test_threads_come_back_after_an_error():
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError):
        Prepare(MEAN[:2], STD[:2])((pictures(), torch.zeros(9)), torch.Generator())
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("pad", [0, 2])
def test_everything_happens_where_the_bytes_lie(pad):
    # no GPU is needed: fake tensors know shapes and devices, and refuse to mix devices
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    zoo_images._affine.cache_clear()
    with FakeTensorMode(shape_env=ShapeEnv()):
        data = (
            torch.empty(20, 8, 8, 3, dtype=torch.uint8, device="cuda"),
            torch.empty(20, dtype=torch.int64, device="cuda"),
        )
        augment, plain = Prepare(MEAN, STD, pad=pad, flip=True), Prepare(MEAN, STD)
        loaders = [
            Batches(data, batch_size=8, transform=augment),
            ImageLoader(data, plain, index=torch.arange(9), batch_size=4),
        ]
        seen = [(x.device.type, y.device.type) for loader in loaders for x, y in loader]
        assert set(seen) == {("cuda", "cuda")}
        with pytest.raises(RuntimeError, match="same device"):
            data[0].index_select(0, torch.arange(9))  # a broken twin
    zoo_images._affine.cache_clear()


def test_a_loader_replays_its_examples():
    data = pictures(20), torch.arange(20)
    index = torch.tensor([7, 3, 19, 0, 1])
    prepare = Prepare(MEAN, STD)
    loader = ImageLoader(data, prepare, index=index, batch_size=2)
    assert (len(loader), loader.num_examples) == (3, 5)
    assert [y.tolist() for _, y in loader] == [[7, 3], [19, 0], [1]]
    x = torch.cat([x for x, _ in loader])
    expected = slowly(data[0][index], prepare, 0)
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=2e-6)
    rows = ReplayableLoader(loader, Classification(), device="cpu")
    assert sum(len(batch.target) for batch in rows) == 5
    assert sum(len(batch.target) for batch in rows.batches(ordered=True)) == 5
    assert sum(len(y) for _, y in ImageLoader(data, prepare)) == 20
    with pytest.raises(ConfigError, match="replays"):
        ImageLoader(data, Prepare(MEAN, STD, flip=True))


def test_a_loader_with_a_seed_replays_its_augmentation():
    data = pictures(20), torch.arange(20)
    augment = Prepare(MEAN, STD, pad=2, flip=True)
    index = torch.tensor([7, 3, 19, 0, 1])
    loader = ImageLoader(data, augment, index=index, batch_size=2, seed=3)
    first, again = (torch.cat([x for x, _ in loader]) for _ in range(2))
    assert torch.equal(first, again)
    generator = stream("augmentation", 3)
    expected = [augment((data[0][i], data[1][i]), generator)[0] for i in index.split(2)]
    assert torch.equal(first, torch.cat(expected))
    plain = ImageLoader(data, Prepare(MEAN, STD), index=index)
    assert not torch.equal(first, torch.cat([x for x, _ in plain]))
    other = ImageLoader(data, augment, index=index, batch_size=2, seed=4)
    assert not torch.equal(first, torch.cat([x for x, _ in other]))


def test_moments_are_exact():
    images = pictures(2100, 3, 2)  # more than a part
    images[..., 1] = 77
    mean, std = moments(images)
    exact = images.double() / 255
    for c in range(3):
        assert mean[c] == pytest.approx(exact[..., c].mean().item(), abs=1e-12)
        deviation = exact[..., c].std(correction=0).item() if c != 1 else 1.0
        assert std[c] == pytest.approx(deviation, abs=1e-12)
