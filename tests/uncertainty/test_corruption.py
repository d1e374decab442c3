"""Corruptions against one image at a time, by other libraries or by loops."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

import lowland as ll
from lowland.posteriors.noise import DATA, generator, normal
from lowland.uncertainty.corruption import (
    CORRUPTIONS,
    STRENGTHS,
    Corrupted,
    Normalisation,
    contrast,
    gaussian_blur,
    gaussian_noise,
    pixelate,
)

ALL = [(kind, strength) for kind in CORRUPTIONS for strength in STRENGTHS]


def images(n=5, channels=3, height=32, width=28, seed=0):
    """Smooth images with an edge: a blur leaves little of white noise."""
    x = torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed))
    smooth = torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, 2, 2)))
    smooth = (smooth - smooth.amin()) / (smooth.amax() - smooth.amin())
    smooth[..., : width // 3] = 1 - smooth[..., : width // 3]
    return smooth


def by_hand(image, kind, strength, index):
    """One image (C, H, W) float64, without torch's batches."""
    value = CORRUPTIONS[kind][1][strength - 1]
    if kind == "gaussian_noise":
        noise = torch.empty(image.shape).normal_(generator=generator(3, index, DATA)).numpy()
        out = image + value * noise
    elif kind == "gaussian_blur":
        planes = [ndimage.gaussian_filter(p, value, mode="nearest", truncate=4.0) for p in image]
        out = np.stack(planes)
    elif kind == "contrast":
        out = np.stack([(p - p.mean()) * value + p.mean() for p in image])
    else:  # Hendrycks & Dietterich's own call, in floating point
        height, width = image.shape[1:]
        out = []
        for plane in image.astype(np.float32):
            small = (int(width * value), int(height * value))
            less = Image.fromarray(plane).resize(small, Image.Resampling.BOX)
            out.append(np.asarray(less.resize((width, height), Image.Resampling.BOX)))
        out = np.stack(out)
    return np.clip(out, 0, 1)


@pytest.mark.parametrize(("kind", "strength"), ALL)
def test_against_one_image_at_a_time(kind, strength):
    x = images()
    corrupted = ll.corrupt(x, kind, strength, seed=3, first=7)
    for i, image in enumerate(x.double().numpy()):
        np.testing.assert_allclose(corrupted[i], by_hand(image, kind, strength, 7 + i), atol=2e-6)


def test_pixelate_gives_block_means():
    x = images(1, 1, 8, 8)
    blocky = pixelate(x, 0.5)
    for i in range(4):
        for j in range(4):
            block = (slice(None), slice(None), slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
            torch.testing.assert_close(blocky[block], x[block].mean().expand(1, 1, 2, 2))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_stronger_is_further_away(kind):
    x = images(20)
    errors = [float((ll.corrupt(x, kind, s) - x).square().mean()) for s in STRENGTHS]
    assert errors == sorted(errors)
    assert 0 < errors[0] < errors[-1]


@pytest.mark.parametrize(("kind", "strength"), ALL)
def test_values_stay_in_0_to_1_and_the_images_are_unchanged(kind, strength):
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).round()  # 0 and 1
    before = x.clone()
    corrupted = ll.corrupt(x, kind, strength)
    assert float(corrupted.min()) >= 0
    assert float(corrupted.max()) <= 1
    assert corrupted.shape == x.shape
    assert corrupted.dtype == x.dtype
    assert torch.equal(x, before)


def test_parameters_that_change_nothing():
    x = images()
    torch.testing.assert_close(gaussian_noise(x, 0.0), x)
    torch.testing.assert_close(gaussian_blur(x, 0.1), x)  # a kernel of one pixel
    torch.testing.assert_close(contrast(x, 1.0), x)
    torch.testing.assert_close(pixelate(x, 1.0), x)


def test_contrast_and_pixelate_keep_the_mean():
    x = images()
    for corrupted in (contrast(x, 0.15), pixelate(x, 0.5)):
        torch.testing.assert_close(corrupted.mean((2, 3)), x.mean((2, 3)))
    assert float(pixelate(x, 0.0).var((2, 3)).max()) < 1e-12  # one block


def test_noise_is_a_function_of_seed_and_index():
    x = images(6)
    corrupted = ll.corrupt(x, "gaussian_noise", 5, seed=1)
    assert torch.equal(corrupted, ll.corrupt(x, "gaussian_noise", 5, seed=1))
    assert not torch.equal(corrupted, ll.corrupt(x, "gaussian_noise", 5, seed=2))
    parts = [ll.corrupt(x[a : a + 2], "gaussian_noise", 5, seed=1, first=a) for a in (0, 2, 4)]
    assert torch.equal(corrupted, torch.cat(parts))
    twin = [ll.corrupt(x[a : a + 2], "gaussian_noise", 5, seed=1) for a in (0, 2, 4)]
    assert not torch.equal(corrupted, torch.cat(twin))  # every batch has the noise of the first
    noise = gaussian_noise(torch.full((50, 3, 32, 32), 0.5), 0.1, seed=4) - 0.5
    assert float(noise.std()) == pytest.approx(0.1, rel=0.01)
    assert abs(float(noise.mean())) < 1e-3


def test_noise_of_images_is_independent_of_noise_in_weights():
    """Draw i of a posterior and image i with one seed: equal noise would make outputs large."""
    grey = torch.full((3, 1, 16, 16), 0.5)
    noises = [
        gaussian_noise(grey, 1.0) - grey,
        ll.noise_like(torch.randn(9, 1, 16, 16), examples=3),
    ]
    weights = torch.stack([normal(256, seed=0, draw=i) for i in range(3)])
    for noise in noises:
        both = torch.corrcoef(torch.cat([noise.reshape(3, -1), weights]))
        assert float(both[:3, 3:].abs().max()) < 0.3


NORMALISE = Normalisation([0.5, 0.4, 0.3], [0.25, 0.2, 0.3])


@pytest.mark.parametrize("size", [2, 4, 7])
def test_a_loader_of_corrupted_images(size):
    x, y = images(7), torch.arange(7)
    z = NORMALISE.apply(x)
    batches = [(z[i : i + size], y[i : i + size]) for i in range(0, 7, size)]
    shifts = [("gaussian_noise", 2), ("contrast", 5)]
    loader = Corrupted(
        batches, ll.Classification(), shifts, seed=3, examples=5, normalise=NORMALISE
    )
    for _ in range(2):  # it replays
        corrupted = list(loader)
        inputs = torch.cat([batch.args[0] for batch in corrupted])
        assert torch.cat([batch.target for batch in corrupted]).tolist() == [*range(5), *range(5)]
        expected = [ll.corrupt(x[:5], kind, s, seed=3) for kind, s in shifts]
        torch.testing.assert_close(inputs, NORMALISE.apply(torch.cat(expected)), atol=1e-5, rtol=0)


def test_inputs_that_cannot_be_corrupted():
    x = images(2)
    with pytest.raises(ll.ConfigError, match=r"kind: expected one of gaussian_noise, .* 'fog'"):
        ll.corrupt(x, "fog", 1)
    with pytest.raises(ll.ConfigError, match="strength: expected a whole number from 1 to 5"):
        ll.corrupt(x, "contrast", 6)
    with pytest.raises(ll.DataError, match=r"\(N, C, H, W\).*got \(2, 3\)"):
        ll.corrupt(torch.rand(2, 3), "contrast", 1)
    with pytest.raises(ll.DataError, match=r"of torch.uint8"):
        ll.corrupt(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "contrast", 1)
    with pytest.raises(ll.DataError, match=r"in \[0, 1\].*normalise"):
        ll.corrupt(NORMALISE.apply(x), "contrast", 1)
    shift, vectors = [("contrast", 1)], [(torch.rand(2, 3), torch.arange(2))]
    for normalise in (
        None,
        NORMALISE,
    ):  # its mean and std per channel would broadcast vectors to images
        with pytest.raises(ll.DataError, match=r"got \(2, 3\) of torch.float32"):
            list(Corrupted(vectors, ll.Classification(), shift, normalise=normalise))
    with pytest.raises(ll.DataError, match="one input tensor, got a, b"):
        list(Corrupted([{"a": x, "b": x}], ll.Classification(), shift))
