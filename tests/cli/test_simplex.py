"""`lowland simplex` on finished runs, its planes, and ESPRO as a method of a run."""

import shutil

import pytest
import torch
import yaml

import lowland as ll
from lowland.cli.simplex_folder import SimplexFolder
from lowland.records import GrowthResult, Predictive, SurfaceResult, Table, TernaryResult
from lowland.runs.folder import RunFolder
from tests.cli import shared
from tests.cli.inside import lowland

CONFIG = {
    "model": {"name": "lowland.zoo:ConvNet", "args": {"widths": [6], "classes": 10}},
    "data": {
        "name": "lowland.zoo:digits",
        "args": {"train": 0.15, "validation": 0.7, "shift": 1},  # few test rows
    },
    "methods": ["sgd", "ensemble", "espro"],
    "ensemble": 2,
    "samples": 4,
    "threads": 1,
    "train": {"epochs": 12, "batch_size": 30, "lr": 0.1},
    "simplex": {"components": 2, "vertices": 3, "epochs": 2, "samples": 2, "points": 4},
}
SHORT = ["--epochs", 2, "--samples", 2, "--points", 4, "--draws", 5, "--rise", 1]


def made(folder, name, *overrides, **changes):
    return shared.made(folder, name, CONFIG | changes, *overrides)


def make(folder):
    path, out = shared.made(folder, "one", CONFIG, pictures=True)
    assert "ESPRO of 2" in out
    code, out, err = lowland("simplex", path, "--vertices", 3, *SHORT, pictures=True)
    assert code == 0, err
    assert "3 vertices" in out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return shared.copy_of(tmp_path_factory, "simplex", make)


@pytest.fixture(scope="module")
def run(folder):
    """A run with ESPRO, and a simplex around its first network."""
    return folder / "one"


def test_espro_is_the_average_over_the_simplexes(run):
    folder = RunFolder(run)
    setup = SimplexFolder.open(run / "simplex").setup
    shapes = [ll.Simplex.load(run / f"shapes/simplex-{i}.safetensors") for i in (0, 1)]
    for i, shape in enumerate(shapes):
        mode = folder.load_weights(f"sgd-{i}", setup.layout).weights
        assert torch.equal(shape.anchors[0], mode)
        assert len(shape.anchors) == 3
    expected = ll.predict(
        setup.surface, ll.Mixture(list(map(ll.Uniform, shapes))), setup.test, samples=4
    )
    found = Predictive.load(run / "records/espro.npz")
    torch.testing.assert_close(found.probs, expected.probs, rtol=1e-4, atol=1e-5)
    rows = {row["method"]: row for row in Table.load(run / "records/comparison.json").rows()}
    row = rows["ESPRO of 2"]
    assert row["epochs"] == 2 * 12 + 2 * 2 * 2 * 2  # networks; simplexes, vertices, epochs, points
    assert row["samples"] == 4
    assert (run / "pictures/growth.png").stat().st_size > 10_000


def test_what_it_leaves_is_what_the_library_finds(run):
    stage = SimplexFolder.open(run / "simplex")
    simplex = stage.shapes()["simplex-0"]
    growth = GrowthResult.load(run / "simplex/records/growth-simplex-0.json")
    assert growth.vertices.tolist() == [1, 2, 3]
    assert growth.examples == 270
    assert float(growth.log_volume[-1]) == pytest.approx(float(simplex.log_volume()))
    points = stage.setup.surface.evaluate(ll.Uniform(simplex).points(4), stage.setup.test)
    found = float(growth.metrics["test_error_max"][-1])
    assert found == pytest.approx(float(points.error.max()), abs=1e-6)
    rows = {r["method"]: r for r in Table.load(run / "simplex/records/averages.json").rows()}
    assert set(rows) == {"Network", "Simplex"}
    expected = ll.predict(
        stage.setup.surface, ll.Uniform(simplex), stage.setup.test, samples=5
    ).metrics()
    assert rows["Simplex"]["nll"] == pytest.approx(expected["nll"], rel=1e-4)
    triangle = TernaryResult.load(run / "simplex/records/triangle.json")
    corner = triangle.coords.argmax(0)
    for i in range(3):
        there = float(stage.setup.surface(simplex.anchors[i]))
        assert float(triangle.loss[corner[i]]) == pytest.approx(there, rel=1e-4)
    for name in ("growth-simplex-0", "nll-by-samples", "error-by-samples", "triangle"):
        assert (run / f"simplex/pictures/{name}.png").stat().st_size > 8_000


def test_the_same_command_goes_on_and_makes_only_what_is_missing(run, tmp_path):
    there = shutil.copytree(run / "simplex", tmp_path / "again")
    (there / "records/espro-1.npz").unlink()
    (there / "shapes/simplex-0.safetensors").write_bytes(b"damaged")
    before = (there / "records/network.npz").stat().st_mtime_ns
    code, _, err = lowland("simplex", run, "--vertices", 3, *SHORT, "--out", there)
    assert code == 0, err
    assert (there / "records/network.npz").stat().st_mtime_ns == before
    old, new = (p / "shapes/simplex-0.safetensors" for p in (run / "simplex", there))
    assert torch.equal(ll.Simplex.load(old).anchors, ll.Simplex.load(new).anchors)
    assert (there / "records/espro-1.npz").is_file()
    more = ["--draws", 7]  # an average of others over the same simplex
    code, _, err = lowland("simplex", run, "--vertices", 3, *SHORT, *more, "--out", there)
    assert code == 0, err
    assert Predictive.load(there / "records/espro-1.npz").samples == 7
    code, out, err = lowland("simplex", run, "--vertices", 2, *SHORT, "--out", there)
    assert code == 0, err
    assert "simplex/simplex-0 is built again (growing.vertices: 3 there, 2 now" in out


def test_a_plane_through_the_vertices_shows_the_triangle(run):
    words = ["--plane", "v0,v1,v2", "--resolution", 5, "--refine", 0]
    code, _, err = lowland("scan", run, *words, pictures=True)
    assert code == 0, err
    found = SurfaceResult.load(run / "scan/v0-v1-v2/records/surface.npz")
    assert set(found.marks) == {"v0", "v1", "v2"}
    line = found.curves["simplex"]
    torch.testing.assert_close(line[0], line[-1])  # closed
    code, _, err = lowland("scan", run / "simplex", "--resolution", 4, "--refine", 0)
    assert code == 0, err
    code, _, err = lowland("scan", run, "--plane", "v0,v1,v7", "--resolution", 5)
    assert code == 2
    assert "no weights 'v7'; there are v0, v1, v2, s0.v0" in err


def test_a_volume_between_the_networks_of_a_run(run, folder):
    out = folder / "joined"
    words = ["--connectors", 2, *SHORT, "--rise", 9, "--out", out]
    code, said, err = lowland("simplex", run, *words, pictures=True)
    assert code == 0, err
    assert "2 connectors" in said
    assert "Complex" in said
    shape = SimplexFolder.open(out).shapes()["complex"]
    assert shape.cells == ((0, 2, 3), (1, 2, 3))
    # the edge between the networks is none of the complex
    code, _, err = lowland("scan", out, "--resolution", 3, "--refine", 0)
    assert code == 0, err
    found = SurfaceResult.load(out / "scan/v0-v1-v2/records/surface.npz")
    marks, line = found.marks, found.curves["simplex"]
    torch.testing.assert_close(line[0], marks["v0"], rtol=0, atol=1e-4)
    torch.testing.assert_close(line[-1], marks["v1"], rtol=0, atol=1e-4)
    apart = (line - marks["v2"]).norm(dim=1).min()
    assert float(apart) < 0.05 * float((marks["v1"] - marks["v0"]).norm())


def test_a_volume_between_networks_whose_units_are_in_one_order(run, folder):
    out = folder / "aligned"
    words = ["--connectors", 1, "--align", *SHORT, "--rise", 9, "--out", out]
    code, _, err = lowland("simplex", run, *words)
    assert code == 0, err
    stage = SimplexFolder.open(out)
    first, second = (point.weights for point in stage.weights)
    v0, v1, _ = stage.shapes()["complex"].anchors
    assert torch.equal(v0, first)
    # a permutation, and a nearer one
    assert torch.equal(v1.sort().values, second.sort().values)
    assert float((v1 - v0).norm()) < float((second - first).norm())
    surface = stage.setup.surface
    assert float(surface(v1)) == pytest.approx(float(surface(second)), rel=1e-5)
    code, out, err = lowland("simplex", run, *[word for word in words if word != "--align"])
    assert code == 0, err
    assert "simplex/complex is built again (align: True there, False now" in out


def test_two_vertices_make_no_plane_of_their_own(folder):
    path, _ = made(folder, "pair", methods=["sgd", "ensemble"], ensemble=3)
    code, _, err = lowland("simplex", path, "--vertices", 2, *SHORT)
    assert code == 0, err
    code, _, err = lowland("scan", path, "--resolution", 3, "--refine", 0)
    assert code == 0, err
    assert (path / "scan/sgd-0-sgd-1-sgd-2").is_dir()


def test_a_vertex_that_was_left_out_is_reported(run, folder):
    out = folder / "left"
    options = ["--vertices", 3, *SHORT, "--rise", 0, "--lr", 3, "--out", out]
    code, said, err = lowland("simplex", run, *options)
    assert code == 0, err
    assert "vertex 2 was left out: with it the loss rises to" in said
    assert len(SimplexFolder.open(out).shapes()["simplex-0"].anchors) == 1
    rows = Table.load(out / "records/averages.json").rows()
    assert [row["method"] for row in rows] == ["Network"]  # no simplex to draw from
    code, _, err = lowland("scan", out, "--resolution", 3)
    assert code == 2
    assert "too few for a plane; name others with --plane" in err


def test_simplexes_around_the_networks_of_several_runs(folder, run):
    runs = [made(folder, f"seed{s}", f"seed={s}", methods=["sgd"])[0] for s in (3, 4)]
    code, said, err = lowland("simplex", *runs, "--vertices", 2, *SHORT)
    assert code == 0, err
    assert "ESPRO of 2" in said
    assert "Ensemble of 2" in said
    stage = SimplexFolder.open(folder / "simplex")
    assert list(stage.shapes()) == ["simplex-0", "simplex-1"]
    for i, path in enumerate(runs):
        mode = RunFolder(path).load_weights("sgd-0", stage.setup.layout).weights
        assert torch.equal(stage.shapes()[f"simplex-{i}"].anchors[0], mode)
    out = folder / "between"
    code, said, err = lowland("simplex", *runs, "--connectors", 1, *SHORT, "--out", out)
    assert code == 0, err
    assert SimplexFolder.open(out).names == ("sgd-0", "sgd-0")
    assert SimplexFolder.open(out).shapes()["complex"].cells in (((0, 2), (1, 2)), ((0,), (1,)))
    code, _, err = lowland("simplex", runs[0], "--connectors", 1, *SHORT)
    assert code == 2
    assert "no weights 'sgd-1'" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--vertices", 3, "--connectors", 1], "give --vertices or --connectors"),
        (["--around", "sgd-9"], "no weights 'sgd-9'"),
        (["--around", "sgd-0", "--connectors", 1], "joins two networks or more"),
        (["--around", "sgd-0,sgd-0"], "names a network twice"),
        (["--align"], "that --connectors joins"),
        (["--lr", -1], "lr: expected greater than 0, got -1"),
        (["--rise", -1], "rise: expected greater than or equal to 0"),
        (["--strength", "nan"], "strength: expected"),
    ],
)
def test_bad_input(folder, run, words, message):
    code, _, err = lowland("simplex", run, *words, "--out", folder / "new")
    assert code == 2, err
    assert message in err, err
    assert not (folder / "new").exists()


def test_bad_settings(folder):
    config = folder / "bad.yaml"
    for key, value, message in (
        ("vertices", 1, "simplex.vertices: expected greater than or equal to 2, got 1"),
        ("vertexes", 3, "simplex.vertexes: there is no such key; did you mean vertices?"),
    ):
        config.write_text(yaml.safe_dump(CONFIG | {"simplex": {key: value}}))
        code, _, err = lowland("run", config, f"out={folder / 'bad'}")
        assert code == 2
        assert message in err
