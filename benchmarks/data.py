"""CIFAR-10: decoding, loading from the cache, and the batches of an epoch.

The time of a batch is compared with the training step that uses it, and with plain PyTorch: float
images in memory, indexed, padded, and cropped with one gather of pixels. The seconds of decoding
and loading are compared with one second.

Without the CIFAR-10 files beside the project, as many images of noise are decoded, which takes
longer.
"""

from __future__ import annotations

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from common import Row, ms, paired, ratio, report
from torch import Tensor

from lowland.train import Batches
from lowland.zoo import PreResNet, cifar10

SHARED = Path(__file__).parents[2] / "shared" / "data" / "cifar10"
BATCH, STEPS = 128, 391  # steps per epoch
TRIAL = 20  # batches timed together


def noise(folder: Path) -> Path:
    """Files like those of CIFAR-10, with as many images of noise, as JPEG of quality 75."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    encoded = []
    for pixels in np.random.default_rng(0).integers(256, size=(500, 32, 32, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=75)
        encoded.append(buffer.getvalue())
    for name, n in (("train", 50_000), ("test", 10_000)):
        labels = pa.array(np.arange(n, dtype=np.int8) % 10)
        pq.write_table(
            pa.table({"image": encoded * (n // 500), "label": labels}), folder / f"{name}.parquet"
        )
    return folder


def reading(root: Path) -> tuple[list[Row], dict[str, Any]]:
    """Decoding into an empty cache, and loading from it."""
    with tempfile.TemporaryDirectory() as cache:
        start, cpu_start = time.perf_counter(), time.process_time()
        cifar10(root, cache=cache)
        decoding, cpu = time.perf_counter() - start, time.process_time() - cpu_start
        loading = []
        for _ in range(5):
            start = time.perf_counter()
            data = cifar10(root, cache=cache, validation=1, validation_from="test")
            loading.append(time.perf_counter() - start)
    load = statistics.median(loading)
    rows = [
        Row(
            "decoding 60,000 images",
            "1 s",
            decoding,
            "<= 10",
            f"{decoding:.1f} s, {cpu:.1f} s of CPU time; 184 MB of bytes",
        ),
        Row("loading them decoded, checksums compared", "1 s", load, "<= 1", f"{load:.2f} s"),
    ]
    return rows, data


def plain_batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of float images: indexed, padded, cropped with one gather of pixels, mirrored."""
    while True:
        for index in torch.randperm(len(labels)).split(BATCH):
            batch, n = images[index], len(index)
            padded = F.pad(batch, (4,) * 4)
            down, right = torch.randint(9, (2, n, 1))
            rows, columns = down + torch.arange(32), right + torch.arange(32)
            each = torch.arange(n)[:, None, None]
            cropped = padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
            mirror = torch.rand(n, 1, 1, 1) < 0.5
            yield torch.where(mirror, cropped.flip(3), cropped), labels[index]


def endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from batches


def take(batches: Iterator[Any]) -> None:
    for _ in range(TRIAL):
        next(batches)


def preparing(data: dict[str, Any]) -> list[Row]:
    """Batches alone, against training steps on a resident batch, and against plain PyTorch."""
    images, labels = data["train"]
    loader = Batches((images, labels), batch_size=BATCH, transform=data["transform"])
    x, y = next(loader.epoch(0))
    net = PreResNet(depth=20).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=3e-4, fused=True
    )

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    mean, std = (
        torch.tensor(v)[:, None, None] for v in (data["transform"].mean, data["transform"].std)
    )
    floats = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    fast, slow = endless(loader), plain_batches(floats.contiguous(), labels)
    steps, batches, plain = paired(step, lambda: take(fast), lambda: take(slow), rounds=11)
    each = [t / TRIAL for t in batches]
    epoch = statistics.median(each) * STEPS
    return [
        Row(
            "an epoch's batches: picked, cropped, mirrored, normalised",
            "its training steps, PreResNet-20 in bfloat16",
            ratio(each, steps),
            "<= 0.05",
            f"{ms(each)} a batch against {ms(steps)} a step; {epoch:.2f} s an epoch",
        ),
        Row(
            "the plain way to batches, from floats in memory",
            "ours, from bytes",
            ratio(plain, batches),
            ">= 1",
            f"{ms([t / TRIAL for t in plain])} against {ms(each)} a batch; 614 MB against 154 MB",
        ),
    ]


def main() -> list[Row]:
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if not SHARED.is_dir():
            print("no CIFAR-10 beside the project: noise is used instead", file=sys.stderr)
        rows, data = reading(SHARED if SHARED.is_dir() else noise(Path(folder)))
    return rows + preparing(data)


if __name__ == "__main__":
    report(main())
