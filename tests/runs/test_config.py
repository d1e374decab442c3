"""A configuration from its file."""

import pytest

from lowland.errors import ConfigError
from lowland.runs.config import check_section, read_config, read_value
from lowland.runs.shape_sections import Inference
from lowland.runs.training_sections import Train

TEXT = """
model: {name: "lowland.zoo:MLP"}
data: {name: "lowland.zoo:digits"}
train: {lr: 1e-2}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(TEXT)
    return path


def test_overrides_stand_over_the_file(file):
    config = read_config(file, ["train.epochs=3", "seed=7", "subspace.temperature=[1, 2]"])
    assert (config.train.lr, config.train.epochs, config.seed) == (0.01, 3, 7)
    assert config.subspace.temperature == [1.0, 2.0]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "train.epoch=3",
            "yaml with train.epoch=3: train.epoch: there is no such key; did you mean",
        ),
        ("methods=[sgd,swagg]", r"got 'swagg'; did you mean swag$"),
        ("train", "expected key=value"),
        ("seed.a=1", "seed"),
        ("train.lr=0", "train.lr: expected greater than 0, got 0"),
    ],
)
def test_wrong_keys_and_values_are_named(file, override, words):
    with pytest.raises(ConfigError, match=words):
        read_config(file, [override] if not override.startswith("seed") else ["seed=1", override])


def test_other_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected `key: value` lines"):
        read_config(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_config(tmp_path / "broken.yaml")


def test_a_number_may_be_written_as_in_python(file):
    file.write_text(TEXT + "task: {name: 'a:b', args: {v: 1e-4}}")
    config = read_config(file, ["model.args.lr=2e3"])
    assert config.task.args == {"v": 1e-4}
    assert config.model.args["lr"] == 2000.0


def test_numbers_are_those_of_yaml_1_2():
    assert read_value("1e-4", where="lr") == 1e-4
    assert read_value("[1, 10]", where="scales") == [1, 10]
    with pytest.raises(ConfigError, match="lr: its value is not YAML"):
        read_value("[", where="lr")


def test_a_section_is_checked_alone():
    assert check_section(Train, {"epochs": 3}, where="here").epochs == 3
    with pytest.raises(ConfigError, match=r"here: sampler: .*'hmc'"):
        check_section(Inference, {"sampler": "hmc"}, where="here")
