"""A run folder from elsewhere names code: nothing of it is called until the user says so."""

import shutil
import sys

import pytest
import torch
import yaml

from lowland.cli.trust import fingerprint, remember, state_file
from lowland.runs.config import check_config
from tests.cli import shared
from tests.cli.conftest import CURVES_CONFIG
from tests.cli.inside import lowland

SMALL = CURVES_CONFIG | {"methods": ["sgd", "ensemble"], "train": {"epochs": 1, "batch_size": 200}}
COMMANDS = {
    "scan": ["--plane", "sgd-0,sgd-1", "--resolution", 2, "--examples", 20],
    "connect": ["--epochs", 1, "--points", 3, "--examples", 20],
    "compare": ["--kinds", "none", "--ood", "none", "--baselines", "none"],
    "subspace": ["--kind", "random", "--rank", 1, "--chains", 2, "--samples", 2, "--examples", 20,
                 "--temperature", 1],
    "simplex": ["--vertices", 2, "--epochs", 1, "--examples", 20, "--points", 2, "--draws", 2],
}  # fmt: skip
OWN = """
from pathlib import Path

def net(**args):
    Path("called.txt").write_text("the configuration's code was called")
    raise ValueError("called")

data = net
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    def make(folder):
        shared.made(folder, "one", SMALL)

    return shared.copy_of(tmp_path_factory, "trust", make) / "one"


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """Another user: nothing was run here yet."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "state"))


@pytest.fixture
def received(run, tmp_path, monkeypatch):
    """A folder whose configuration names code that lies where the command is called."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "own_trust.py").write_text(OWN)
    monkeypatch.chdir(work)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = shutil.copytree(run, work / "received")
    file = path / "config.yaml"
    body = yaml.safe_load(file.read_text())
    body["settings"] |= {"model": {"name": "own_trust:net"}, "data": {"name": "own_trust:data"}}
    file.write_text(yaml.safe_dump(body, sort_keys=False))
    yield path
    sys.modules.pop("own_trust", None)


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_called_without_trust(received, command):
    code, _, err = lowland(command, received, *COMMANDS[command])
    assert code == 2
    assert (
        "config.yaml names code that was not run here before (own_trust:net, own_trust:dat" in err
    )
    assert "--trust" in err
    assert not (received.parent / "called.txt").exists()
    code, _, err = lowland(command, received, *COMMANDS[command], "--trust")
    assert code == 2
    assert "own_trust:data: ValueError: called" in err
    assert (received.parent / "called.txt").exists()


def test_average_with_a_configuration_calls_nothing_without_trust(received):
    torch.save({"w": torch.ones(2)}, "step-1.pt")
    torch.save({"w": torch.ones(2)}, "step-2.pt")
    body = {"model": {"name": "own_trust:net"}, "data": {"name": "own_trust:data"}}
    (received.parent / "own.yaml").write_text(yaml.safe_dump(body))
    asked = ["average", "step-1.pt", "step-2.pt", "--config", "own.yaml"]
    code, _, err = lowland(*asked)
    assert (code, "--trust" in err) == (2, True)
    assert not (received.parent / "called.txt").exists()
    assert not (received.parent / "averaged").exists()
    code, _, err = lowland(*asked, "--trust")
    assert (code, "ValueError: called" in err) == (2, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_ones_own_run_needs_no_option(run, tmp_path, command):
    twin = shutil.copytree(run, tmp_path / "twin")
    code, _, err = lowland(command, twin, *COMMANDS[command])
    assert code == 0, err


def test_the_same_run_asks_another_user(run, tmp_path, elsewhere):
    twin = shutil.copytree(run, tmp_path / "twin")
    code, _, err = lowland("scan", twin, *COMMANDS["scan"])
    assert (code, "--trust" in err) == (2, True)
    code, _, err = lowland("scan", twin, *COMMANDS["scan"], "--trust")
    assert code == 0, err
    code, _, err = lowland("scan", twin, *COMMANDS["scan"])  # it was run here by now
    assert code == 0, err


def test_a_folder_of_curves_asks_for_the_runs_that_it_names(run, tmp_path, elsewhere):
    twin = shutil.copytree(run, tmp_path / "twin")
    code, _, err = lowland("connect", twin, *COMMANDS["connect"], "--trust")
    assert code == 0, err
    state_file().unlink()
    code, _, err = lowland("scan", twin / "connect", "--resolution", 2, "--examples", 20)
    assert (code, "names code that was not run here" in err) == (2, True)
    code, _, err = lowland("scan", twin / "connect", "--resolution", 2, "--examples", 20, "--trust")
    assert code == 0, err


def test_what_counts_is_the_code_and_its_arguments(elsewhere, tmp_path, monkeypatch):
    def config(**changes):
        return check_config(SMALL | changes, where="here")

    remember(config())
    remember(config())
    assert len(state_file().read_text().split()) == 1
    for same in ({"seed": 3}, {"out": "elsewhere"}, {"train": {"epochs": 2}}):
        assert fingerprint(config(**same)) == fingerprint(config())
    for other in (
        {"data": SMALL["data"] | {"args": {"train": 0.2}}},
        {"model": {"name": "lowland.zoo:MLP"}},
        {"task": {"name": "lowland:Regression"}},
    ):
        assert fingerprint(config(**other)) != fingerprint(config())
    # two projects may have a module of one name
    found = []
    for project in ("a", "b"):
        (tmp_path / project).mkdir()
        (tmp_path / project / "own_places.py").write_text("")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(tmp_path / project))
            found.append(fingerprint(config(model={"name": "own_places:net"})))
    assert found[0] != found[1]


def test_a_state_folder_that_cannot_be_written_stops_no_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    remember(check_config(SMALL, where="here"))


@pytest.mark.parametrize("name", ["pictures", "events.jsonl", "records/chain.npz", "connect"])
def test_a_link_that_leads_out_of_a_run_is_refused(run, tmp_path, name):
    """What is written through it would go into another folder."""
    twin = shutil.copytree(run, tmp_path / "twin")
    outside = tmp_path / "outside"
    outside.mkdir()
    place = twin / name
    shutil.rmtree(place, ignore_errors=True)
    place.unlink(missing_ok=True)
    place.symlink_to(outside)
    for command in ("scan", "connect"):
        code, _, err = lowland(command, twin, *COMMANDS[command])
        assert (code, "is a link that leads out of" in err) == (2, True), err
    config = run.parent / "one.yaml"
    code, _, err = lowland("run", config, f"out={twin}")
    assert (code, "is a link that leads out of" in err) == (2, True), err
    assert not list(outside.iterdir())


def test_a_run_folder_may_be_a_link(run, tmp_path):
    disk = shutil.copytree(run, tmp_path / "disk" / "twin")
    (tmp_path / "twin").symlink_to(disk)
    code, _, err = lowland("scan", tmp_path / "twin", *COMMANDS["scan"])
    assert code == 0, err


BOMB = "a: &a [1, 2]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\nd: [*c, *c, *c]\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (BOMB, "alias"),
        ("a: &a [*a]", "alias"),
        ("[" * 10_000, "damaged"),
        ("{a: " * 110 + "1" + "}" * 110, "nested deeper"),
        ("- 1\n- 2", "expected dict[str, Any], got [1, 2]"),
        ("3: 4", "a key: expected str, got 3"),
        ("settings: {}\nenvironment: {python: 3}", "environment.python: expected str, got 3"),
        ("settings: {}\nenvironment: {gpus: 3}", "unknown field 'gpus'"),
        ("settings: {}\nenvironment: [1]", "environment: expected fields by name, got [1]"),
        ("settings: [1]\nenvironment: {}", "settings: expected dict"),
        ("format: lowland-run-9\nsettings: {}", "its format is 'lowland-run-9'"),
        ("format: [1]\nsettings: {}", "its format is [1]"),
        ("a: !!python/object:os.system {}", "damaged"),
        ("a: 1\nb: \x07", "damaged"),
        ("x: " + "a" * 300_000, "larger than"),
        ("a: " + "9" * 5000, "damaged"),
        ("a: 2001-99-99", "damaged"),
        ("? [a]\n: 1", "damaged"),
    ],
)
def test_files_of_another_form_are_refused(run, tmp_path, text, words):
    twin = shutil.copytree(run, tmp_path / "twin")
    (twin / "config.yaml").write_text(text)
    code, _, err = lowland("scan", twin, *COMMANDS["scan"])
    assert (code, words in err) == (2, True), err
    assert "Traceback" not in err
    (twin / "connect").mkdir()
    (twin / "connect" / "connect.yaml").write_text(text)
    code, _, err = lowland("scan", twin / "connect")
    assert code == 2, err
    assert "connect.yaml: " in err
