"""A method is one file: one that lies outside of the package runs, is tuned, killed and resumed."""

import json
import shutil

import pytest
import torch
import yaml

from lowland.errors import ConfigError
from lowland.records import Table
from lowland.runs.methods import method_named
from tests.cli.forked import lowland as forked
from tests.cli.inside import lowland

#: the whole of a method: a training artifact of its own, a tuned value, a cost
TOY = '''
import torch
from lowland.artifacts import Artifact
from lowland.evaluate import predict
from lowland.tensor_files import read_tensors, write_tensors
from lowland.posteriors import Gaussian
from lowland.runs.methods import Method, Part
from lowland.runs.methods.base import Choice


class Walk(Artifact):
    """Random steps from the annealed network; it saves its state after each."""

    kind = "toy-walk"
    steps = 20

    def __init__(self, run):
        self.run = run
        self.annealed = run.annealed(0)
        super().__init__("toy/walk", [self.annealed])

    def build(self, inputs, checkpoint, progress):
        state = checkpoint.load(kind="toy walk", same={"steps": self.steps})
        state = state or {"w": inputs[self.annealed.name].point.weights.clone(), "i": 0}
        for i in range(state["i"], self.steps):
            generator = torch.Generator().manual_seed(i)
            state["w"] = state["w"] + 1e-3 * torch.randn(state["w"].shape, generator=generator)
            state["i"] = i + 1
            checkpoint.save(state, kind="toy walk", same={"steps": self.steps})
            progress(i + 1, self.steps)
        return state["w"]

    def save(self, result, folder):
        write_tensors(folder / "w.safetensors", {"w": result}, {})

    def load(self, folder):
        return read_tensors(folder / "w.safetensors")[0]["w"]

    def passes(self, inputs):
        return 0.25


class Toy(Method):
    name = "toy"
    title = "Toy"
    tuned = ("width",)

    def parts(self, run):
        return [Part(run.annealed(0)), Part(Walk(run))]

    def needs(self, run):
        return [Walk(run)]

    def posterior(self, run, inputs):
        w = inputs["toy/walk"]
        return Gaussian(w, torch.ones_like(w) * 1e-6)

    def tune(self, run, inputs, progress):
        surface, post = run.setup.surface, self.posterior(run, inputs)
        nll = {
            width: predict(surface, post.with_scale(width), run.setup.validation, samples=2)
            .metrics()["nll"]
            for width in (0.5, 1.0)
        }
        return Choice({"width": min(nll, key=nll.get)})

    def scaled(self, run, inputs, tuned):
        return self.posterior(run, inputs).with_scale(tuned["width"])
'''
CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [4], "classes": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1}},
    "methods": ["sgd", "toy_method:Toy"],
    "samples": 2,
    "threads": 1,
    "train": {"epochs": 2, "batch_size": 60},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run with a method from elsewhere."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "toy_method.py").write_text(TOY)
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    code, out, err = lowland("run", folder / "config.yaml", f"out={folder / 'r'}")
    assert code == 0, err
    return folder, out


def test_its_row_its_tuned_value_and_its_cost_are_in_the_table(whole):
    folder, out = whole
    table = Table.load(folder / "r" / "records" / "comparison.json")
    assert table.method == ["SGD", "Toy"]
    assert float(table.width[1]) in (0.5, 1.0)
    assert torch.isnan(table.width[0])
    assert table.epochs.tolist() == [2.0, 2.25]
    tuned = json.loads((folder / "r" / "records" / "tuned-toy.json").read_text())
    assert tuned["width"] == float(table.width[1])
    assert "width" in out
    assert "nll-by-samples.png" in out
    for command, text in (("status", "toy/walk  done"), ("clean", "toy/walk")):
        assert text in lowland(command, folder / "r")[1]


def test_killed_and_started_again_it_ends_with_the_same_bytes(whole, tmp_path):
    folder, _ = whole
    out = tmp_path / "r"
    words = [f"out={out}", "plan=r/plan.json"]
    stop = ("checkpoint", 7, "SIGKILL")
    code, _, err = forked("run", "config.yaml", *words, event=stop, folder=tmp_path, cwd=folder)
    assert code == -9, err
    assert "toy/walk  started" in lowland("status", out)[1]
    plan = f"plan={folder / 'r' / 'plan.json'}"
    code, _, err = lowland("run", folder / "config.yaml", f"out={out}", plan)
    assert code == 0, err
    name = "artifacts/*/*"
    expected = {p.relative_to(folder / "r"): p for p in (folder / "r").glob(name) if p.is_file()}
    files = {p.relative_to(out): p for p in out.glob(name) if p.is_file()}
    assert files.keys() == expected.keys()
    for key, path in files.items():
        if key.name != "timing.json":
            assert path.read_bytes() == expected[key].read_bytes(), key


def test_a_received_run_with_such_a_method_is_not_trusted(whole, tmp_path):
    folder, _ = whole
    shutil.copytree(folder / "r", tmp_path / "r")
    file = tmp_path / "r" / "config.yaml"
    file.write_text(file.read_text().replace("toy_method:Toy", "toy_method:Other"))
    code, _, err = lowland("scan", tmp_path / "r")
    assert code == 2
    assert "toy_method" in err


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("swagg", "did you mean swag"),
        ("nowhere_at_all:Toy", "cannot be imported"),
        ("pathlib:Path", "expected a subclass"),
    ],
)
def test_other_names_are_refused(name, words):
    with pytest.raises(ConfigError, match=words):
        method_named(name)
