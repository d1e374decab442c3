"""What all tests share."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def state_folder(tmp_path_factory):
    """The user's state folder, where runs are listed, is one of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
            patch.setenv(name, str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def same_threads():
    """A test that changes the number of threads does not slow the others down."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
