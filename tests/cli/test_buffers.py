"""The commands on networks whose buffers belong to their weights, beyond BatchNorm."""

import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

import lowland as ll
from lowland.cli.curve_folder import CurveFolder
from lowland.cli.simplex_folder import SimplexFolder
from lowland.cli.subspace_folder import SubspaceFolder
from lowland.records import GrowthResult, PathResult, Table
from lowland.runs.config import read_config
from lowland.runs.setup import Setup
from tests.cli.inside import lowland

OWN = """
import warnings
import torch
from torch import nn
from tests.models import Normaliser

def net(kind):
    first = {"own": [Normaliser(2)], "spectral": [], "instance": []}[kind]
    body = [nn.Conv1d(1, 8, 2), nn.Tanh(), nn.Flatten(), nn.Linear(8, 2)]
    if kind == "instance":
        body.insert(1, nn.InstanceNorm1d(8, affine=True, track_running_stats=True))
        body[0] = nn.Conv1d(1, 8, 1)
        body[-1] = nn.Linear(16, 2)
    if kind == "spectral":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            body = [nn.utils.spectral_norm(m) if hasattr(m, "weight") else m for m in body]
    return nn.Sequential(*first, nn.Unflatten(1, (1, 2)), *body)

def data(kind):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(240, 2, generator=g)
    y = (x[:, 0] + x[:, 1] > 0).long()
    x = x + (100 if kind == "own" else 0)
    return dict(zip(("train", "validation", "test"), zip(x.split(80), y.split(80))))
"""
KINDS = ["own", "spectral", "instance"]


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory):
    """A finished run of each kind of network, from a configuration in the working folder."""
    folder, kind = tmp_path_factory.mktemp(request.param), request.param
    (folder / "own_buffers.py").write_text(OWN)
    config = {
        "model": {"name": "own_buffers:net", "args": {"kind": kind}},
        "data": {"name": "own_buffers:data", "args": {"kind": kind}},
        "methods": ["sgd", "ema", "swa", "swag", "fge", "ensemble", "espro"],
        "ensemble": 2,
        "samples": 2,
        "threads": 1,
        "train": {"epochs": 10, "batch_size": 20, "lr": 0.2},
        "average": {"lr": 0.1, "start": 0.5, "rank": 2, "scales": [0.1], "ema_decay": 0.9},
        "fge": {"cycle": 1.0},
        "simplex": {"vertices": 2, "epochs": 2, "samples": 1},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        done("run", "config.yaml", f"out={folder / 'run'}")
        yield folder, kind
    sys.modules.pop("own_buffers", None)


def done(*args):
    code, out, err = lowland(*args)
    assert code == 0, err
    return out


def plain_nll(folder, kind, file):
    """What plain torch gives of a file of weights, buffers included."""
    import own_buffers

    net = own_buffers.net(kind)
    net.load_state_dict(load_file(file))
    x, y = own_buffers.data(kind)["test"]
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net.eval()(x), y))


def test_every_row_is_of_weights_with_their_own_buffers(run):
    folder, kind = run
    table = Table.load(folder / "run/records/comparison.json")
    nll = dict(zip(table.method, table.nll.tolist(), strict=True))
    assert max(nll.values()) < 2 * nll["SGD"] + 0.1
    files = {"EMA": "ema-0", "SWA": "average-0"}
    if kind != "instance":  # whose running statistics lag behind those that are estimated
        files["SGD"] = "sgd-0"
    for title, name in files.items():
        theirs = plain_nll(folder, kind, folder / f"run/weights/{name}.safetensors")
        assert theirs == pytest.approx(nll[title], rel=1e-3)


def test_stages_name_weights_with_their_own_buffers(run):
    """The ends, bends, vertices and centres that `lowland scan` draws planes through."""
    folder, kind = run
    align = [] if kind == "spectral" else ["--align"]  # the hook multiplies its vectors
    short = ["--epochs", 2, "--lr", 0.05]
    done("connect", folder / "run", *short, "--points", 3, *align)
    done("simplex", folder / "run", *short, "--vertices", 2, "--samples", 1, "--draws", 2)
    sampling = ["--chains", 1, "--samples", 4, "--warmup", 2, "--prior-scale", 0.01]
    options = ["--kind", "random", "--rank", 2, "--around", "average-0", "--temperature", 1]
    done("subspace", folder / "run", *options, *sampling)
    joined = CurveFolder.open(folder / "run/connect")
    surface = joined.setup.surface
    curve = joined.curves()["bezier"]
    growth = GrowthResult.load(folder / "run/simplex/records/growth-simplex-0.json")
    assert float(growth.metrics["test_nll_mean"][0]) < 1  # of the network alone
    path = PathResult.load(folder / "run/connect/records/path-bezier.json")
    for i in (0, 2):
        end = joined.ends()[i // 2]
        assert float(path.loss[i]) == pytest.approx(float(surface(end)), rel=1e-5)
    assert max(path.loss.tolist()) < 1
    named = joined.points()
    assert torch.equal(named["bend"].weights, curve.anchors[1])
    for stage in (joined, *(cls.open(folder / "run" / name) for cls, name in OTHERS)):
        for name, point in stage.points().items():
            assert point.buffers, name
            assert float(surface(point)) < 1, name
    done("scan", folder / "run/connect", "--resolution", 3)


OTHERS = ((SimplexFolder, "simplex"), (SubspaceFolder, "subspace/random-ess"))


def test_average_writes_the_buffers_that_belong_to_it(run):
    folder, kind = run
    files = [folder / f"run/weights/{name}.safetensors" for name in ("swa-0", "average-0")]
    out = folder / "averaged"
    printed = done("average", *files, "--config", "config.yaml", "--out", out, "--trust")
    table = Table.load(out / "comparison.json")
    theirs = plain_nll(folder, kind, out / "swa.safetensors")
    assert theirs == pytest.approx(float(table.nll[1]), rel=1e-3)
    words = {
        "own": "Buffers (1 tensor) were averaged, as the weights are: 0.mean",
        "spectral": "Vectors of spectral norm were re-estimated for the averages (4 tensors)",
        "instance": "re-estimated for the averages (2 tensors): 2.running_mean",
    }
    assert words[kind] in printed.replace("\n", " ")
    swag = ll.SWAG.load(out / "swag.safetensors")
    assert swag.point.estimated


def test_a_configuration_names_buffers_that_are_statistics(run):
    folder, kind = run
    if kind != "own":
        return
    setup = Setup(read_config(folder / "config.yaml", [r"reestimate=\.mean$"]))
    assert setup.surface.statistics.names == ("0.mean",)
    point = setup.surface.point(setup.model(0))
    assert float(setup.surface.estimated(point).buffers["0.mean"].min()) > 40  # of 100: one pass
    for wrong, words in (("nothing", "fits no buffer"), ("(", "reestimate")):
        code, _, err = lowland("run", folder / "config.yaml", f"reestimate={wrong}")
        assert code == 2
        assert words in err
