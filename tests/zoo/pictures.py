"""Random images, and files of them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def pixels(n: int, seed: int, channels: int = 3, side: int = 32) -> np.ndarray:
    values = np.random.default_rng(seed).integers(256, size=(n, side, side, channels))
    return values.astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze()).save(buffer, "PNG")  # lossless: pixels come back
    return buffer.getvalue()


def write(path: Path, images: list, labels, **columns) -> None:
    images = pa.array(images, pa.binary())
    table = {"image": images, "label": pa.array(labels, pa.int8()), **columns}
    pq.write_table(pa.table(table), path)


def images_of(loader) -> list[bytes]:
    """The bytes of a loader's images."""
    return [row.numpy().tobytes() for row in loader.images[loader.index]]


def raw(n: int, seed: int) -> list[bytes]:
    return [row.tobytes() for row in pixels(n, seed)]
