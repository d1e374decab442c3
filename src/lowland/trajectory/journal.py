"""The journal of a store: one checksummed line of JSON an iterate."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lowland.errors import StoreError
from lowland.schema import MAX_TEXT, parse_json, require

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


class Header(TypedDict):
    """The first line of a store's journal."""

    format: str
    layout: Any  # what `ParamLayout.from_spec` reads
    forgotten: NotRequired[int]  # by a rewind that was not done yet: up to here files may lie


class Entry(TypedDict):
    """Each other line: an `Iterate` whose file is the store's own."""

    file: str
    step: int
    size: int
    crc: int
    metrics: dict[str, float]


def iterate_name(index: int) -> str:
    """The file of an iterate.

    >>> iterate_name(7)
    '000007.safetensors'
    """
    return f"{index:06d}.safetensors"


def journal_line(entry: Mapping[str, Any]) -> bytes:
    """A line with its checksum before it."""
    body = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(body), body)


def parse_line(line: bytes) -> bytes | None:
    """The text of a journal line, or None where its checksum does not fit."""
    head, _, body = line.partition(b" ")
    return body if len(head) == 8 and head == b"%08x" % zlib.crc32(body) else None


@dataclass
class Journal:
    """A journal as it was read: whole lines up to the first that is damaged.

    Attributes:
        header: its first line. entries: the others. ends: for each of these the byte behind it,
            and first of all that behind the header. damaged: the number of a line that is not
            whole, with lines behind it or not; None: there is none.
    """

    header: dict[str, Any]
    entries: list[dict[str, Any]]
    ends: list[int]
    damaged: int | None = None


def read_journal(path: Path, *, form: str, header: Any, entry: Any) -> Journal:
    """Reads a journal line by line, each of bounded length, depth and the form that it should have.

    Args:
        form: the format and version that its header must name. header, entry: forms of the lines,
            see `lowland.schema`.

    Raises:
        StoreError: no journal of this format, or lines whose checksum fits and whose content does
            not: of another version, or not by lowland.
    """
    with open(path, "rb") as file:
        line = file.readline(MAX_TEXT)
        text = parse_line(line[:-1]) if line.endswith(b"\n") else None
        if text is None:
            raise StoreError(
                f"{path}: its first line is damaged or not lowland's; name another one."
            )
        first = parse_json(text, source=f"{path}: line 1")
        if isinstance(first, dict) and first.get("format") != form:
            raise StoreError(
                f"{path}: its format is {first.get('format')!r:.60}, this version of lowland reads "
                f"{form!r}; name another one, or use the version that wrote it."
            )
        require(first, header, source=f"{path}: line 1")
        journal = Journal(first, [], [file.tell()])
        # what follows the last newline is a line that a kill cut off, or nothing
        while (line := file.readline(MAX_TEXT)).endswith(b"\n"):
            number = len(journal.ends) + 1
            text = parse_line(line[:-1])
            if text is None:
                journal.damaged = number
                break
            body = parse_json(text, source=f"{path}: line {number}")
            require(body, entry, source=f"{path}: line {number}")
            journal.entries.append(body)
            journal.ends.append(file.tell())
    return journal


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc
