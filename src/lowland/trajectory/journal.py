"""The journal of a store: one checksummed line of JSON an iterate."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FORMAT = "lowland-trajectory-1"
JOURNAL = "journal.jsonl"


@dataclass(frozen=True)
class Iterate:
    """A line of the journal."""

    file: str
    step: int
    size: int | None = None  # bytes; None for files that are not the store's own
    crc: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


def journal_line(entry: Mapping[str, Any]) -> bytes:
    """A line with its checksum before it."""
    body = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The entry of a journal line, or None where its checksum does not fit."""
    head, _, body = line.partition(b" ")
    if len(head) != 8 or head != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
