"""One process an artifact, on file systems with locks and without."""

import dataclasses
import json
import time

import pytest

from lowland.artifacts import lease as module
from lowland.artifacts.lease import HeldError, Leases, Owner, read_owner


@pytest.fixture(params=["locks", "heartbeat"])
def leases(request, tmp_path, monkeypatch):
    if request.param == "heartbeat":

        def refuse(self, *args, **options):
            raise NotImplementedError("this file system has no locks")

        monkeypatch.setattr(module.FileLock, "acquire", refuse)
    return Leases(tmp_path, beat=0.05, silence=0.4)


def test_a_second_holder_is_refused_by_the_name_of_the_first(leases):
    with leases.hold("a", "train/a") as lease:
        assert lease.is_mine()
        held = pytest.raises(HeldError, match=r"train/a is under way in process \d+ since")
        with held, leases.hold("a", "train/a"):
            pass
        with leases.hold("b", "train/b"):
            pass
    assert leases.owner("a") is None
    with leases.hold("a", "train/a"):
        pass


def test_a_holder_that_ended_is_taken_over(leases):
    gone = dataclasses.replace(Owner.here(), pid=2**22 + 1)  # above the largest of Linux
    (leases.folder / "a.json").write_text(json.dumps(dataclasses.asdict(gone)))
    assert leases.owner("a") is None
    with leases.hold("a", "train/a") as lease:
        assert lease.is_mine()
    before = dataclasses.replace(Owner.here(), boot="another boot", token="x")
    assert before.is_gone()


def test_a_silent_holder_on_another_machine_is_taken_over_and_cannot_publish(leases, monkeypatch):
    other = dataclasses.replace(Owner.here(), host="elsewhere")
    file = leases.folder / "a.json"
    file.write_text(json.dumps(dataclasses.asdict(other)))
    assert leases.owner("a") == other
    began = time.monotonic()
    with leases.hold("a", "train/a") as lease:
        if module.FileLock.acquire.__name__ == "refuse":
            assert time.monotonic() - began >= 0.4  # it was watched first
        file.write_text(json.dumps(dataclasses.asdict(other)))  # it was asleep, and wakes up
        with pytest.raises(HeldError, match=r"taken over by process .* on elsewhere"):
            lease.require_mine("train/a")
    assert read_owner(file) == other  # not ours to remove
