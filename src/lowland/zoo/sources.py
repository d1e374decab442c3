"""Files of images and labels, decoded once into bytes in memory."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lowland import checks
from lowland.errors import DataError
from lowland.zoo.images import Labelled


def read_parquet(path: Path) -> Labelled:
    """Encoded images (column `image`) and labels (column `label`) of a parquet file, decoded."""
    pq = checks.package("pyarrow.parquet", extra="data", purpose="parquet")
    pa = checks.package("pyarrow", extra="data", purpose="parquet")
    try:
        names = pq.read_schema(path).names
        missing = [name for name in ("image", "label") if name not in names]
        if missing:
            raise DataError(
                f"{path}: expected the columns image and label, found {', '.join(names)}; rename "
                "its columns."
            )
        table = pq.read_table(path, columns=["image", "label"])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file, or a damaged one ({error}).") from error
    column = table["image"].combine_chunks()
    if pa.types.is_struct(column.type):  # as `datasets` writes it: {bytes, path}
        column = column.field("bytes")
    encoded = [None if value is None else value.as_buffer() for value in column]
    images = decode(encoded, lambda i: f"{path}: row {i}")
    labels = np.asarray(table["label"].to_numpy())
    return images, torch.from_numpy(labels.astype(np.int64))


def decode(
    encoded: Sequence[Any],
    where: Callable[[int], str],
    *,
    size: tuple[int, int] | None = None,
    mode: str | None = None,
) -> Tensor:  # (N, H, W, C) uint8
    """Images of one size and mode from encoded bytes or paths, on all cores.

    Args:
        encoded: bytes or paths. where: names an image in errors.
        size: (height, width) that each image is scaled and cropped to, about its centre; None: they
            must agree.
        mode: "RGB" or "L", which each image is brought to; None: they must agree.
    """
    Image = checks.package("PIL.Image", extra="data", purpose="decoding images")
    ImageOps = checks.package("PIL.ImageOps", extra="data", purpose="decoding images")
    if not encoded:
        raise DataError(f"{where(0)}: there is no image.")

    def one(i: int) -> np.ndarray[Any, Any]:
        source = encoded[i]
        try:
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
                if image.mode.startswith(("I", "F")):
                    raise DataError(f"expected 8 bits a channel, got mode {image.mode}")
                picture = image
                if isinstance(source, Path):  # a photograph may lie on its side
                    picture = ImageOps.exif_transpose(image)
                picture = picture.convert(
                    mode or ("L" if image.mode in ("1", "L", "LA") else "RGB")
                )
                if size is not None:
                    picture = ImageOps.fit(picture, (size[1], size[0]))
                return np.asarray(picture)
        except Exception as error:
            kind = "" if isinstance(error, DataError) else f"{type(error).__name__}: "
            reason = f"{kind}{error}"
            raise DataError(f"{where(i)}: not an image, or a damaged one ({reason}).") from error

    first = one(0)
    out = np.empty((len(encoded), *first.shape), dtype=np.uint8)

    def some(indices: Iterable[int]) -> None:
        for i in indices:
            pixels = one(i)
            if pixels.shape != first.shape:
                raise DataError(
                    f"{where(i)} is {_describe(pixels)}, but {where(0)} is {_describe(first)}; "
                    "bring the images to one size and mode."
                )
            out[i] = pixels

    parts = np.array_split(np.arange(len(encoded)), max(1, len(encoded) // 500))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(some, parts))
    images = torch.from_numpy(out)
    return images if images.ndim == 4 else images.unsqueeze(-1)


def _describe(pixels: np.ndarray[Any, Any]) -> str:
    height, width = pixels.shape[:2]
    return f"{height} x {width} {'colour' if pixels.ndim == 3 else 'grey'}"


class _Plain(pickle.Unpickler):
    """Unpickles arrays, bytes, numbers and containers, and nothing that could run code."""

    _ALLOWED = {  # noqa: RUF012
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),  # how Python 3 writes bytes into old pickles
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickles(paths: Sequence[Path]) -> Labelled:
    """The batches of CIFAR's Python version: `data` (N, 3072) and a list of labels, in pickles.

    Only arrays, numbers and containers are unpickled; a file with anything else is
    refused.
    """
    images, labels = [], []
    for path in paths:
        try:
            with path.open("rb") as file:
                raw = _Plain(file, encoding="bytes").load()
            batch = {k.decode() if isinstance(k, bytes) else k: v for k, v in raw.items()}
            pixels = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
            images.append(torch.from_numpy(pixels).permute(0, 2, 3, 1))
            numbers = batch["fine_labels" if "fine_labels" in batch else "labels"]
            labels.append(torch.tensor(list(numbers), dtype=torch.int64))
        except Exception as error:
            raise DataError(
                f"{path}: not a batch of CIFAR's Python version ({type(error).__name__}: {error}); "
                "unpack its archive again."
            ) from error
    return torch.cat(images).contiguous(), torch.cat(labels)
