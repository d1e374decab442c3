"""What all tests share."""

import faulthandler
import gc
import importlib
import os
import time
from pathlib import Path

import pytest

from tests import no_fsync  # noqa: F401

HANG = 300  # seconds; the timeout of pytest does not reach a test that hangs outside Python
ARMED = {"at": -60.0}


def pytest_configure(config):
    """Keeps the process's own stderr, which tests' output does not reach."""
    ARMED["stderr"] = os.dup(2)


def pytest_runtest_setup(item):
    """A test that hangs ends its worker, which names it, after four to five minutes.

    The watch is set once a minute: pytest's own, `faulthandler_timeout`, starts and joins a thread
    for each test, for which a busy machine waits 2 to 80 ms. None with `--timeout=0`.
    """
    if item.config.getoption("timeout") == 0:
        return
    if time.monotonic() - ARMED["at"] > 60:
        ARMED["at"] = time.monotonic()
        faulthandler.dump_traceback_later(HANG, exit=True, file=ARMED["stderr"])


def pytest_unconfigure(config):
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_collection(session):
    """Collects tests without the cycle collector, and leaves modules and tests out of it after.

    They are a million objects, which stay: a full pass over them takes a second, and a session has
    hundreds of passes. Later passes are rare: what dies soon is then not counted as what stays.
    """
    gc.disable()
    try:
        if any("src" in Path(arg).parts for arg in session.config.args):
            import_packages(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        gc.enable()


def import_packages(config):
    """Imports the packages whose doctests are collected.

    pytest imports each module for itself. One that its package imports, too, would be there twice,
    and a test that patches it would patch the copy that nobody uses.
    """
    if config.pluginmanager.has_plugin("dsession"):  # its workers collect
        return
    source = Path(__file__).parents[1] / "src"
    for file in sorted((source / "lowland").rglob("__init__.py")):
        importlib.import_module(".".join(file.parent.relative_to(source).parts))


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory):
    """The user's state folder, where runs are listed, is one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
            patch.setenv(name, str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True, scope="session")
def no_seeds_for_absent_devices():
    """`torch.manual_seed` writes the caller's stack down for each kind of device that is absent.

    That takes milliseconds in a test, whose stack is deep, and tests seed at every step.
    """
    import torch  # not above: the process that controls the workers needs none

    with pytest.MonkeyPatch.context() as patch:
        for devices in (torch.cuda, torch.xpu, torch.mtia):
            if not devices.is_available():
                patch.setattr(devices, "manual_seed_all", lambda seed: None)
        yield


@pytest.fixture(autouse=True)
def same_threads():
    """A test that changes the number of threads does not slow the others down."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def new_objects():
    """`gc.get_objects()` gives what the test makes alone: in milliseconds, not half a second."""
    gc.collect()
    gc.freeze()
