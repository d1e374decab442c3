"""Arguments of several commands."""

import pytest

from lowland.cli.app import load_command


@pytest.mark.parametrize("command", ["status", "clean", "subspace"])
def test_commands_on_one_run_describe_it_alike(command: str) -> None:
    (run,) = (each for each in load_command(command).params if each.name == "run")
    assert run.metavar == "RUN"
    assert run.help == "A folder that `lowland run` or `average` made."


@pytest.mark.parametrize("command", ["compare", "connect", "scan", "sharpness", "subspace"])
def test_a_folder_of_results_is_described_with_its_default(command: str) -> None:
    (out,) = (each for each in load_command(command).params if each.name == "out")
    assert out.metavar == "FOLDER"
    assert out.help.startswith("Folder of the results. Default: ")
