"""`lowland subspace` on finished runs, its planes, and the method of a run."""

import os
import shutil
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

import lowland as ll
from lowland.cli.load_runs import load_runs
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.records import Chain, Predictive, SurfaceResult, Table
from lowland.samplers import registry
from tests.cli import shared
from tests.cli.inside import lowland

CONFIG = {
    "model": {"name": "lowland.zoo:MLP", "args": {"inputs": 64, "widths": [12], "outputs": 10}},
    "data": {"name": "lowland.zoo:digits", "args": {"train": 0.1, "shift": 0}},
    "methods": ["sgd", "swa", "ensemble", "subspace"],
    "ensemble": 2,
    "samples": 4,
    "threads": 1,
    "train": {"epochs": 12, "batch_size": 30, "lr": 0.05},
    "average": {"lr": 0.05, "start": 0.5},
    "subspace": {"rank": 2, "chains": 4, "samples": 12, "warmup": 5, "temperature": 20.0},
}
SHORT = ["--rank", 2, "--chains", 4, "--samples", 6, "--warmup", 3, "--draws", 5]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    def make(folder):
        _, out = shared.made(folder, "one", CONFIG, pictures=True)
        assert "PCA + ESS" in out

    return shared.copy_of(tmp_path_factory, "subspace", make) / "one"


@pytest.fixture
def twin(run, tmp_path):
    """A run that nothing was made of yet."""
    made = shutil.ignore_patterns("subspace", "connect", "there")
    return shutil.copytree(run, tmp_path / "twin", ignore=made)


def subspace(run, *options, fails=False, pictures=False):
    code, out, err = lowland("subspace", run, *SHORT, *options, pictures=pictures)
    assert (code != 0) is fails, err
    return err if fails else out


def test_the_method_averages_over_the_chains_of_a_run(run):
    chain = Chain.load(run / "records/chain.npz")
    assert chain.coords.shape == (4, 12, 2)
    assert chain.temperature == 20
    sub = ll.Subspace.load(run / "shapes/subspace.safetensors")
    setup = SubspaceFolder(run / "x", load_runs([run]), ["average-0"]).setup
    expected = ll.predict(setup.surface, chain.posterior(sub), setup.test, samples=4)
    found = Predictive.load(run / "records/subspace.npz")
    torch.testing.assert_close(found.probs, expected.probs, rtol=1e-4, atol=1e-5)
    rows = {row["method"]: row for row in Table.load(run / "records/comparison.json").rows()}
    assert rows["PCA + ESS"]["epochs"] == pytest.approx(12 + chain.evaluations / 3)


def test_a_subspace_of_a_finished_run(run):
    out = subspace(run, "--temperature", "[1, 30]", "--kind", "random", pictures=True)
    assert "log densities in" in out
    place = run / "subspace" / "random-ess"
    stage = SubspaceFolder.open(place)
    chain = Chain.load(place / "records/chain.npz")
    assert chain.temperature in (1, 30)
    assert chain.about["tuning"]["temperatures"].tolist() == [30, 1]
    rows = {row["method"]: row for row in Table.load(place / "records/averages.json").rows()}
    assert set(rows) == {"Centre", "Random + ESS"}
    post = chain.posterior(stage.subspace())
    expected = ll.predict(stage.setup.surface, post, stage.setup.test, samples=5).metrics()
    assert rows["Random + ESS"]["nll"] == pytest.approx(expected["nll"], rel=1e-4)
    plane = SurfaceResult.load(place / "records/plane.npz")
    assert torch.isfinite(plane.log_density).all()
    for name in ("posterior", "trace", "rank", "nll-by-samples"):
        assert (place / f"pictures/{name}.png").stat().st_size > 5_000
    # again: nothing is sampled anew
    before = (place / "records/chain.npz").stat().st_mtime_ns
    subspace(run, "--temperature", "[1, 30]", "--kind", "random")
    assert (place / "records/chain.npz").stat().st_mtime_ns == before
    out = subspace(run, "--temperature", "2", "--kind", "random")
    assert "chain is built again (inference.temperature: [1.0, 30.0] there, 2.0 now" in out
    assert Chain.load(place / "records/chain.npz").temperature == 2


def test_a_curve_and_a_grid(run, monkeypatch):
    coarse = partial(registry.Grid, coarse=16, tolerance=0.2)
    monkeypatch.setitem(registry.SAMPLERS, "grid", coarse)
    assert "lowland connect" in subspace(run, "--kind", "curve", fails=True)
    code, _, err = lowland("connect", run, "--epochs", 3, "--points", 5)
    assert code == 0, err
    out = subspace(run, "--kind", "curve", "--sampler", "grid", "--temperature", "50")
    assert "Curve + grid" in out
    chain = Chain.load(run / "subspace/curve-grid/records/chain.npz")
    assert chain.log_evidence is not None
    assert not (run / "subspace/curve-grid/pictures/trace.png").exists()
    # another curve's chains are others
    code, _, err = lowland(
        "connect", run, "--epochs", 4, "--points", 5, "--out", run / "longer", "--kind", "bezier"
    )
    assert code == 0, err
    out = subspace(
        run, "--kind", "curve", "--sampler", "grid", "--temperature", "50", "--curve",
        run / "longer",
    )  # fmt: skip
    assert "subspace is built again (other curve" in out


def test_a_fit_shows_how_close_it_is(run, tmp_path, monkeypatch):
    short = {"steps": 20, "draws": 4, "evidence_draws": 50}
    monkeypatch.setitem(registry.SAMPLERS, "vi", partial(registry.Variational, **short))
    options = ["--temperature", "20", "--rank", 1, "--sampler", "vi", "--out", tmp_path / "out"]
    out = subspace(run, *options)
    assert "Pareto's k" in out
    assert "R-hat" not in out
    assert "raise steps=20" in out  # what the fit warned of


def test_a_plane_of_the_subspace(run):
    subspace(run, "--temperature", "20", "--out", run / "there")
    words = ["--resolution", 3, "--examples", 30, "--refine", 0]
    code, out, err = lowland("scan", run / "there", *words, pictures=True)
    assert code == 0, err
    assert (run / "there/scan/center-z1-z2/pictures/loss.png").exists() or "Pictures" in out


def test_a_plane_of_a_run_takes_the_only_subspace(twin):
    def scan():
        line = ["--plane", "center,z1", "--resolution", 2, "--examples", 30, "--refine", 0]
        return lowland("scan", twin, *line)

    options = ["--temperature", "20", "--kind", "random", "--rank", 1]
    code, _, err = scan()
    assert code == 2
    assert "make them with `lowland subspace" in err
    subspace(twin, *options)
    code, _, err = scan()
    assert code == 0, err
    subspace(twin, *options, "--sampler", "sgld")
    code, _, err = scan()
    assert code == 2
    assert f"{twin / 'subspace/random-ess'}, {twin / 'subspace/random-sgld'}" in err


def test_a_run_without_an_average(twin):
    for name in ("average-0", "swa-0", "ema-0"):
        (twin / f"weights/{name}.safetensors").unlink()
    options = ["--temperature", "20", "--rank", 1]
    assert "PCA + ESS" in subspace(twin, *options)
    code, _, err = lowland("connect", twin, "--epochs", 1, "--points", 3)
    assert code == 0, err
    assert "Curve + ESS" in subspace(twin, *options, "--kind", "curve")
    subspace(twin, *options, "--kind", "random")
    stage = SubspaceFolder.open(twin / "subspace/random-ess")
    assert stage.names == ("sgd-0",)
    torch.testing.assert_close(stage.subspace().center, stage.weights[0].weights)


def test_other_iterates_are_other_settings(twin):
    options = ["--temperature", "20", "--rank", 1]
    subspace(twin, *options)
    setup = SubspaceFolder.open(twin / "subspace/pca-ess").setup
    store = ll.Trajectory.open(twin / "trajectory/swa-0", layout=setup.layout)
    store.append(store[0], step=10_000)
    assert "subspace is built again (other iterates" in subspace(twin, *options)


STOPPED = ["--kind", "hessian", "--rank", 1, "--temperature", "[1, 30]"]


@pytest.fixture(scope="module")
def whole(run):
    subspace(run, *STOPPED, "--out", run / "whole")
    return Chain.load(run / "whole/records/chain.npz")


# once the settings, the subspace, the first temperature, the chains so far are on the disk
@pytest.mark.parametrize("event", [1, 2, 3, 5])
def test_a_subspace_that_is_stopped_goes_on(run, whole, tmp_path, monkeypatch, event):
    replace, hessian = os.replace, ll.Subspace.hessian
    files, looked = [], []

    def stop(source, target):
        replace(source, target)
        if Path(target).parent.name == "artifacts" or Path(target).name == "chains.safetensors":
            files.append(target)  # an artifact, or the state of the chains
            if len(files) == event:
                raise KeyboardInterrupt

    def look(*args, **options):
        looked.append(event)
        return hessian(*args, **options)

    monkeypatch.setattr(ll.Subspace, "hessian", look)
    out = ["--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", stop)
        code, _, _ = lowland("subspace", run, *SHORT, *STOPPED, *out)
    assert code == 130
    subspace(run, *STOPPED, *out)
    assert len(looked) == 1  # for the directions, which take minutes in a large network
    chain = Chain.load(tmp_path / "out/records/chain.npz")
    torch.testing.assert_close(chain.coords, whole.coords)
    assert chain.evaluations == whole.evaluations
    tuned, expected = (one.about["tuning"] for one in (chain, whole))
    torch.testing.assert_close(tuned["nll"], expected["nll"])
    assert tuned["evaluations"] == expected["evaluations"]


def test_a_package_that_is_missing_is_reported_at_once(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zuko", None)
    err = subspace(run, "--out", tmp_path / "out", "--sampler", "flow", fails=True)
    assert "needs zuko" in err
    assert not (tmp_path / "out").exists()
    config = tmp_path / "one.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"subspace": {"rank": 2, "sampler": "flow"}}))
    code, _, err = lowland("run", config, f"out={tmp_path / 'run'}")
    assert code == 2
    assert "needs zuko" in err


def test_without_arviz_stats_chains_are_sampled_with_a_warning(run, tmp_path, monkeypatch):
    for name in ("arviz_stats", "arviz_stats.base", "arviz_stats.base.array"):
        monkeypatch.setitem(sys.modules, name, None)
    out = subspace(run, "--temperature", "20", "--rank", 1, "--out", tmp_path / "out")
    assert out.index("whether the chains agree will not be known") < out.index("log densities in")
    assert "PCA + ESS" in out


def test_of_too_few_samples_r_hat_is_not_known(run, tmp_path):
    few = ["--samples", 1, "--rank", 2, "--temperature", "20", "--no-plane"]
    out = subspace(run, *few, "--out", tmp_path / "out")
    assert "posterior.png" not in out
    assert not (tmp_path / "out/records/plane.npz").exists()
    assert "R-hat is not known" in out
    assert "nan" not in out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "pcb"], "kind"),
        (["--sampler", "gibbs"], "sampler"),
        (["--temperature", "0"], "temperature"),
        (["--temperature", "cold"], "temperature"),
        (["--prior-scale", "-1"], "--prior-scale"),
        (["--rank", 40], "rank"),
        (["--trajectory", "swa-9"], "keeps iterates"),
        (["--kind", "random", "--around", "nobody"], "holds no weights"),
        (["--around", "sgd-0"], "--kind pca lies about the iterates' mean"),
        (["--kind", "random", "--rank", 1000], "at most 910 for a network of 910 weights"),
        (["--kind", "hessian", "--rank", 911], "at most 910"),
        (["--temperature", "[]"], "a list of at least 1 item"),
        (["--sampler", "grid", "--rank", 4, "--temperature", "1"], "at most 3"),
    ],
)
def test_bad_options(run, tmp_path, options, message):
    err = subspace(run, "--out", tmp_path / "out", *options, fails=True)
    assert message in err
    assert not (tmp_path / "out").exists()  # the right options are not refused by what is there


def test_a_run_that_collects_too_few_iterates_is_refused_at_once(tmp_path):
    config = tmp_path / "few.yaml"
    config.write_text(yaml.safe_dump(CONFIG | {"subspace": {"rank": 9}}))
    code, _, err = lowland("run", config, f"out={tmp_path / 'few'}")
    assert code == 2
    assert "rank 9" in err
    config.write_text(yaml.safe_dump(CONFIG | {"subspace": {"sampler": "grid", "rank": 4}}))
    code, _, err = lowland("run", config, f"out={tmp_path / 'few'}")
    assert code == 2
    assert "subspace.sampler: expected a rank of at most 3" in err
    config.write_text(yaml.safe_dump(CONFIG | {"subspace": {"kind": "curve"}}))
    code, _, err = lowland("run", config, f"out={tmp_path / 'few'}")
    assert code == 2
    assert "lowland subspace --kind curve" in err
