"""Who builds an artifact: a lock that ends with its process, and a note of the owner.

Where the file system has no locks, the owner's heartbeat is watched instead: the observer counts
the seconds without a beat by its own clock.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lowland.errors import StoreError
from lowland.files import write_text
from lowland.schema import parse_json, require

BEAT = 5.0  # seconds between heartbeats
SILENCE = 4 * BEAT  # without a beat for so long, the owner counts as dead


@dataclass(frozen=True)
class Owner:
    """The process that builds an artifact.

    Attributes:
        token: of this lease alone. beat: heartbeats so far. done, total: its progress.
    """

    host: str
    pid: int
    boot: str
    started: str
    token: str
    beat: int = 0
    done: int = 0
    total: int | None = None

    @classmethod
    def here(cls) -> Owner:
        """This process."""
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        return cls(socket.gethostname(), os.getpid(), boot_id(), started, secrets.token_hex(8))

    def __str__(self) -> str:
        place = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"process {self.pid}{place} since {self.started}"

    def is_gone(self) -> bool:
        """Whether the process has certainly ended, which only its own machine knows."""
        if self.host != socket.gethostname():
            return False
        if self.boot != boot_id():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class HeldError(StoreError):
    """An artifact that another process builds now."""


class Leases:
    """The leases of a run folder: `NAME.lock` and `NAME.json` for each artifact under way."""

    def __init__(self, folder: Path, *, silence: float = SILENCE, beat: float = BEAT) -> None:
        self.folder = folder
        self.silence = silence
        self.beat = beat

    @contextmanager
    def hold(self, name: str, what: str) -> Iterator[Lease]:
        """Holds a lease; raises `HeldError`, which names the owner, where another process has it.

        `what`: what is built, for the message.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{name}.lock", timeout=0)
        try:
            locks = True
            lock.acquire()
        except Timeout:
            raise self._held_error(name, what) from None
        except (NotImplementedError, OSError):  # a file system without locks
            locks = False
            self._require_silent(name, what)
        lease = Lease(self.folder / f"{name}.json", Owner.here(), self.beat)
        try:
            lease.begin()
            yield lease
        finally:
            lease.end()
            if locks:
                lock.release()

    def owner(self, name: str) -> Owner | None:
        """Who holds a lease; None where nobody does, or the process has ended."""
        owner = read_owner(self.folder / f"{name}.json")
        return None if owner is None or owner.is_gone() else owner

    def _held_error(self, name: str, what: str) -> HeldError:
        owner = read_owner(self.folder / f"{name}.json")
        who = "another process" if owner is None else str(owner)
        return HeldError(
            f"{what} is under way in {who}; wait for its end, then run the same command again."
        )

    def _require_silent(self, name: str, what: str) -> None:
        first = self.owner(name)
        if first is None:
            return
        deadline = time.monotonic() + self.silence
        while time.monotonic() < deadline:
            time.sleep(min(self.beat, self.silence / 4))
            now = self.owner(name)
            if now is None:
                return
            if (now.token, now.beat) != (first.token, first.beat):  # it beats, or another has it
                raise self._held_error(name, what)


class Lease:
    """A lease that this process holds."""

    def __init__(self, file: Path, owner: Owner, beat: float) -> None:
        self.file = file
        self.owner = owner
        self.done = 0  # how far the build is, as `status` shows it
        self.total: int | None = None
        self._beats = 0
        self._every = beat
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def begin(self) -> None:
        self.write()
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        if self.is_mine():
            self.file.unlink(missing_ok=True)

    def is_mine(self) -> bool:
        """Whether nobody has taken the lease over."""
        owner = read_owner(self.file)
        return owner is not None and owner.token == self.owner.token

    def require_mine(self, what: str) -> None:
        """Raises `HeldError` where another process has taken the lease over."""
        if not self.is_mine():
            owner = read_owner(self.file)
            raise HeldError(
                f"{what} was taken over by {owner or 'another process'} while this one did not "
                "answer; nothing was published here. Run the same command again."
            )

    def _beat(self) -> None:
        while not self._stop.wait(self._every):
            self._beats += 1
            with suppress(OSError):
                if self.is_mine():
                    self.write()

    def write(self) -> None:
        """Writes down who holds the lease, and how far the build is."""
        progress = {"beat": self._beats, "done": self.done, "total": self.total}
        write_text(self.file, json.dumps(asdict(self.owner) | progress))


def read_owner(file: Path) -> Owner | None:
    """The owner that a file names; None where there is no whole one."""
    try:
        body = parse_json(file.read_bytes(), source=file)
        require(body, Owner, source=file)
    except OSError:  # StoreError is one
        return None
    return Owner(**body)


def boot_id() -> str:
    """What changes when the machine starts again; empty where that is not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
