"""Files with right checksums and wrong content: an error of one sentence, or a correct read.

Every format with every forgery. No error of another type, no hang, no blow-up of memory.
"""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import lowland as ll
from lowland.errors import LowlandError
from lowland.geometry.base import KIND as SHAPE
from lowland.geometry.base import Shape
from lowland.landscape.journal import Journal
from lowland.records import Chain, Predictive, SurfaceResult, Table
from lowland.samplers.job import KIND as CHAINS
from lowland.tensor_files import load_tree, read_arrays, same_tree, save_tree, write_tensors
from lowland.train.trainer import KIND as TRAINING
from lowland.trajectory.checkpoint_tensors import read_checkpoint
from lowland.trajectory.journal import journal_line

DEEP = "[" * 60_000 + "]" * 60_000
LAYOUT = ll.ParamLayout(nn.Linear(2, 1))
BIG = 2**40


# -- readers of each format -----------------------------------------------------------------------


def gauss(z):
    return -0.5 * (z**2).sum(-1)


def sample(path):
    from lowland.samplers import Slice
    from lowland.samplers.density import Density
    from lowland.samplers.job import Job

    torch.manual_seed(0)
    density = Density(gauss, k=2, prior_scale=1.0)
    return Slice().run(density, Job(chains=2, samples=3, warmup=2, checkpoint=path))


def train(path):
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    data = [(torch.ones(4, 2), torch.ones(4, 1))]
    return ll.sgd(net, ll.Regression(noise_variance=1.0), data, epochs=2, checkpoint=path)


READERS = {
    "record.json": Table.load,
    "surface.json": SurfaceResult.load,
    "record.npz": Predictive.load,
    "chain.npz": Chain.load,
    "shape": Shape.load,
    "moments": ll.SWAG.load,
    "tree": partial(load_tree, kind="demo"),
    "training": train,
    "chains": sample,
    "journal": lambda path: Journal(path, {"a": 1}),
    "index": read_checkpoint,
    "torch": read_checkpoint,
    "safetensors": read_checkpoint,
}
ENDINGS = {
    "record.json": "a.json",
    "surface.json": "a.json",
    "record.npz": "a.npz",
    "chain.npz": "a.npz",
    "index": "a.safetensors.index.json",
    "torch": "a.pt",
}


# -- forgeries ------------------------------------------------------------------------------------


def tree(kind, **body):
    return lambda path: save_tree(path, body, kind=kind)


def structure(text, kind="demo", form="lowland-1"):
    """A tree with this JSON and its checksum."""
    notes = {"format": form, "kind": kind, "tree": text}
    return lambda path: write_tensors(path, {"t0": torch.ones(2)}, notes)


def text(body):
    body = body if isinstance(body, str) else json.dumps(body)
    return lambda path: path.write_text(body)


def lines(*bodies):
    return lambda path: path.write_bytes(b"".join(map(journal_line, bodies)))


def arrays(header, **tensors):
    def write(path):
        body = header if isinstance(header, str) else json.dumps(header)
        with open(path, "wb") as file:
            np.savez_compressed(file, **{"record.json": np.array(body)}, **tensors)

    return write


def torch_file(make):
    return lambda path: torch.save(make(), path)


def npy(shape, data=b"", descr="<f4"):
    """An array whose header has another shape than its data."""
    head = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode() + data


def archive(body, name="mean.npy"):
    def write(path):
        header = {"record": "Predictive", "fields": {"dict": {"mean": {"array": "mean"}}}}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            text = np.array(json.dumps(header))
            file.writestr("record.json.npy", npy((), text.tobytes(), text.dtype.str))
            file.writestr(name, body)

    return write


def bomb(path):
    """256 MiB of zeros in a quarter of a MiB, in an .npz with correct headers."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("mean.npy", "w", force_zip64=True) as member,
    ):
        member.write(npy((2**26,)))
        block = bytes(1 << 24)
        for _ in range(16):
            member.write(block)


def header(body, data=b""):
    def write(path):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)

    return write


def entry(**changes):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


def surfaces(**changes):
    body = {"record": "SurfaceResult", "x": [0.0, 1.0], "y": None, "metrics": {"loss": [1.0, 2.0]}}
    return text(body | changes)


def weights(**changes):
    body = {"anchors": torch.ones(2, 3), "free": (True, False), "k": 1}
    return tree(SHAPE, shape="Line", body=body | changes)


def forged_checkpoint(make, kind, **changes):
    """A valid checkpoint with some changed fields of its state."""

    def write(path):
        make(path)
        body = load_tree(path, kind=kind)
        save_tree(path, body | {"state": body["state"] | changes}, kind=kind)

    return write


def swag(**changes):
    def write(path):
        moments = ll.SWAG(LAYOUT, rank=2)
        for step in range(3):
            moments.update(torch.arange(3.0) + step)
        save_tree(path, moments.state_dict() | changes, kind="SWAG")

    return write


def forged_file(make, kind, **changes):
    """A valid file with some changed fields."""

    def write(path):
        make(path)
        save_tree(path, load_tree(path, kind=kind) | changes, kind=kind)

    return write


def journal(settings=None, plan=None, chunk=None, **more):
    head = {
        "format": "lowland-scan-1",
        "settings": {"a": 1} if settings is None else settings,
        "plan": {"strategy": "points", "chunk": 1, "threads": 1} if plan is None else plan,
    }
    return lines(head | more, *([] if chunk is None else [chunk]))


def several_disks(path):
    """A zip archive marked as one part of many, for which `is_zipfile` raises."""
    torch.save({"w": torch.ones(3)}, path)
    end = bytearray(path.read_bytes())
    place = end.rindex(b"PK\x06\x07")  # the locator of its end in ZIP64
    end[place + 4] = 1
    path.write_bytes(end)


def sparse():
    return {"w": torch.eye(3).to_sparse()}


FORGED = {
    # records as JSON
    "record.json": {
        "a list": text([1, 2]),
        "null": text("null"),
        "text": text('"Table"'),
        "deep": text(DEEP),
        "deep columns": text('{"record": "Table", "columns": {"a": ' + DEEP + "}}"),
        "unclosed": text("[" * 60_000),
        "no columns": text({"record": "Table"}),
        "a newer field": text({"record": "Table", "columns": {}, "units": "nats"}),
        "a newer format": text({"format": "lowland-record-2", "record": "Table", "columns": {}}),
        "a format that is a list": text({"format": [1], "record": "Table", "columns": {}}),
        "columns that are a list": text({"record": "Table", "columns": [1.0]}),
        "a column that is a number": text({"record": "Table", "columns": {"a": 3}}),
        "columns of two lengths": text({"record": "Table", "columns": {"a": [1.0], "b": [1, 2]}}),
        "ragged": text({"record": "Table", "columns": {"a": [[1.0], [1.0, 2.0]]}}),
        "a large number": text({"record": "Table", "columns": {"a": [10**30]}}),
        "many digits": text('{"record": "Table", "columns": {"a": [' + "9" * 5000 + "]}}"),
        "half a character": text('{"record": "Table", "columns": {"\\ud800": [1.0]}}'),
        "a name that is a list": text({"record": [1], "columns": {}}),
        "no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    },
    "surface.json": {
        "x that is text": surfaces(x="0 to 1"),
        "x that is a number": surfaces(x=3),
        "metrics that are a list": surfaces(metrics=[1.0]),
        "metrics of text": surfaces(metrics={"loss": "low"}),
        "rows that are text": surfaces(rows="many"),
        "marks that are text": surfaces(marks={"w0": "here"}),
        "about that is a list": surfaces(about=[1]),
        "a flag that is a number": surfaces(evaluated_mask=7),
    },
    "record.npz": {
        "a list": arrays([1, 2]),
        "deep": arrays(DEEP),
        "no fields": arrays({"record": "Predictive"}),
        "fields that are a list": arrays({"record": "Predictive", "fields": [1]}),
        "an array that is not there": arrays(
            {"record": "Predictive", "fields": {"dict": {"mean": {"array": "mean"}}}}
        ),
        "an unknown form": arrays({"record": "Predictive", "fields": {"set": [1]}}),
        "two forms": arrays({"record": "Predictive", "fields": {"dict": {}, "array": "x"}}),
        "a kind that is a number": arrays(
            {"record": "Predictive", "fields": {"dict": {"kind": 3, "samples": 3}}}
        ),
        "text as numbers": arrays(
            {"record": "Predictive", "fields": {"dict": {"mean": {"array": "x"}}}},
            x=np.array(["a", "b"]),
        ),
        "a newer format": arrays({"format": "lowland-record-2", "record": "Predictive"}),
        "a header that lies": archive(npy((BIG,))),
        "a header that overflows": archive(npy((BIG, BIG))),
        "a negative shape": archive(npy((-1,))),
        "objects": archive(npy((2,), bytes(16), "|O")),
        "no array": archive(b"text", "mean.txt"),
        "a bomb": bomb,
        "no archive": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(100)),
    },
    "chain.npz": {
        "coords that are text": arrays(
            {"record": "Chain", "fields": {"dict": {"coords": "here", "sampler": "ess"}}}
        ),
        "about that is a number": arrays(
            {
                "record": "Chain",
                "fields": {
                    "dict": {
                        "coords": {"array": "z"},
                        "log_density": {"array": "z"},
                        "sampler": "ess",
                        "about": 3,
                    }
                },
            },
            z=np.zeros((1, 2, 1)),
        ),
    },
    # trees of tensors
    "tree": {
        "deep": structure(DEEP),
        "unclosed": structure("[" * 60_000),
        "no JSON": structure("{"),
        "nothing": structure(""),
        "an empty dict": structure("{}"),
        "an unknown form": structure('{"set": [1]}'),
        "two forms": structure('{"dict": [], "tuple": []}'),
        "pairs of three": structure('{"dict": [[1, 2, 3]]}'),
        "pairs that are numbers": structure('{"dict": [1, 2]}'),
        "a dict of a dict": structure('{"dict": {"a": 1}}'),
        "a tensor that is not there": structure('{"tensor": "t7"}'),
        "a tensor that is a list": structure('{"tensor": [1]}'),
        "a key that is a list": structure('{"dict": [[[1], 2]]}'),
        "a newer format": structure("3", form="lowland-2"),
        "another kind": structure("3", kind="other"),
        "no metadata": lambda path: save_file({"w": torch.ones(1)}, path),
    },
    "shape": {
        "a list": structure("[1, 2]", SHAPE),
        "no body": tree(SHAPE, shape="Line"),
        "a shape that is a list": tree(SHAPE, shape=[1], body={}),
        "an unknown shape": tree(SHAPE, shape="Torus", body={"anchors": torch.ones(1), "free": ()}),
        "a newer field": weights(curvature=1.0),
        "a method": weights(coefficients=3),
        "anchors that are a list": weights(anchors=[1.0]),
        "anchors (P,)": weights(anchors=torch.ones(3)),
        "anchors of integers": weights(anchors=torch.ones(2, 3, dtype=torch.int64)),
        "no anchor": weights(anchors=torch.ones(0, 3)),
        "free of another length": weights(free=(True,)),
        "free of numbers": weights(free=(1, 2)),
        "k that is text": weights(k="1"),
        "cells of none": weights(cells=((0, 9),)),
        "cells that are numbers": weights(cells=(0, 1)),
        "unknown weights": weights(weights="random"),
    },
    "moments": {
        "a list": structure("[1, 2]", "SWAG"),
        "no layout": tree("SWAG", count=3),
        "a path": swag(path="thesis.txt"),
        "a device": swag(device="meta"),
        "a count that is text": swag(count="3"),
        "a mean of another size": swag(_mean=torch.ones(7)),
        "a variance that is a list": swag(_variance=[1.0]),
        "a layout of a terabyte": swag(
            layout={"parameters": [["w", [BIG], "float32"]], "aliases": {}}
        ),
    },
    "training": {
        "a list": structure("[1, 2]", TRAINING),
        "no settings": tree(TRAINING, state={"epoch": 1}),
        "a newer field": forged_file(train, TRAINING, plan={}),
        "a state that is a list": forged_file(train, TRAINING, state=[1]),
        "settings that are a list": forged_file(train, TRAINING, same=[1]),
        "no model": forged_checkpoint(train, TRAINING, model={}),
        "a model that is a list": forged_checkpoint(train, TRAINING, model=[1]),
        "weights of another shape": forged_checkpoint(
            train, TRAINING, model={"weight": torch.ones(3, 9), "bias": torch.ones(1)}
        ),
        "an optimizer that is text": forged_checkpoint(train, TRAINING, optimizer="SGD"),
        "an optimizer of nothing": forged_checkpoint(train, TRAINING, optimizer={}),
        "a generator of nothing": forged_checkpoint(train, TRAINING, rng={}),
        "a generator that is short": forged_checkpoint(
            train, TRAINING, rng={"torch": torch.ones(3), "cuda": []}
        ),
        "collectors that are a number": forged_checkpoint(train, TRAINING, collectors=3),
        "columns that are a list": forged_checkpoint(train, TRAINING, columns=[1]),
        "an epoch that is text": forged_checkpoint(train, TRAINING, epoch="one"),
    },
    "chains": {
        "a list": structure("[1, 2]", CHAINS),
        "no state": forged_file(sample, CHAINS, state=None),
        "a state that is a list": forged_checkpoint(sample, CHAINS, state=[1]),
        "a generator that is text": forged_checkpoint(sample, CHAINS, generator="mt19937"),
        "a generator that is short": forged_checkpoint(sample, CHAINS, generator=torch.ones(3)),
        "counts of more chains": forged_checkpoint(
            sample, CHAINS, counts=torch.ones(9, dtype=torch.int64)
        ),
        "coords of another dimension": forged_checkpoint(
            sample, CHAINS, coords=torch.ones(2, 3, 7)
        ),
        "coords that are a number": forged_checkpoint(sample, CHAINS, coords=torch.tensor(3.0)),
        "a newer field": forged_checkpoint(sample, CHAINS, adapted=True),
        "settings that are a list": forged_file(sample, CHAINS, same=[1]),
    },
    # lines with checksums
    "journal": {
        "a list": lines([1, 2]),
        "null": lines(None),
        "no plan": lines({"format": "lowland-scan-1", "settings": {}}),
        "a newer format": lines({"format": "lowland-scan-2"}),
        "a newer field": journal(device="cuda"),
        "settings that are a list": journal(settings=[1]),
        "a plan of text": journal(plan="points"),
        "an unknown plan": journal(plan={"strategy": "guess", "chunk": 1, "threads": 1}),
        "a chunk of none": journal(plan={"strategy": "points", "chunk": 0, "threads": 1}),
        "points that are text": journal(chunk={"points": "all", "names": [], "values": []}),
        "rows of other lengths": journal(chunk={"points": [0], "names": ["a"], "values": [[1, 2]]}),
        "rows of text": journal(chunk={"points": [0], "names": ["a"], "values": [["low"]]}),
        "fewer rows than points": journal(chunk={"points": [0, 1], "names": [], "values": [[]]}),
    },
    # checkpoints of others
    "index": {
        "itself": text({"weight_map": {"a": "a.safetensors.index.json"}}),
        "another index": text({"weight_map": {"a": "b.index.json"}}),
        "a way up": text({"weight_map": {"a": "../a.safetensors"}}),
        "an absolute path": text({"weight_map": {"a": "/etc/passwd"}}),
        "a null byte": text({"weight_map": {"a": "a\0.safetensors"}}),
        "a file that is not there": text({"weight_map": {"a": "b.safetensors"}}),
        "a list": text([1]),
        "a map that is a list": text({"weight_map": [1]}),
        "files that are numbers": text({"weight_map": {"a": 3}}),
        "no map": text({}),
        "deep": text('{"weight_map": ' + DEEP + "}"),
    },
    "torch": {
        "sparse": torch_file(sparse),
        "compressed": torch_file(lambda: {"w": torch.eye(3).to_sparse_csr()}),
        "on the meta device": torch_file(lambda: {"w": torch.empty(3, device="meta")}),
        "one value a terabyte long": torch_file(lambda: {"w": torch.zeros(1).expand(BIG)}),
        "a list": torch_file(lambda: [torch.ones(1)]),
        "a number": torch_file(lambda: 3),
        "keys that are numbers": torch_file(lambda: {3: 4}),
        "an end on several disks": several_disks,
        "no file of torch": lambda path: path.write_bytes(b"\x80\x02" + bytes(50)),
    },
    "safetensors": {
        "deep": header(b"[" * 60_000),
        "a list": header([1]),
        "a shape that overflows": header(entry(shape=[2**62, 2**62])),
        "a negative shape": header(entry(shape=[-1])),
        "offsets behind the end": header(entry(data_offsets=[0, BIG])),
        "an unknown dtype": header(entry(dtype="F3"), bytes(8)),
        "a dtype that torch has not": header(entry(dtype="F6_E2M3"), bytes(8)),
        "a header of exabytes": lambda path: path.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
        "metadata that are a list": header({"__metadata__": [1]} | entry(), bytes(8)),
    },
}
ALL = [
    pytest.param(kind, forgery, id=f"{kind}-{name}")
    for kind, forgeries in FORGED.items()
    for name, forgery in forgeries.items()
]


def path_of(folder, kind):
    return folder / ENDINGS.get(kind, "a.safetensors")


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize(("kind", "forgery"), ALL)
def test_a_forged_file_is_an_error_of_one_sentence(tmp_path, kind, forgery):
    path = path_of(tmp_path, kind)
    forgery(path)
    before = peak()
    with pytest.raises(LowlandError) as error:
        READERS[kind](path)
    message = str(error.value)
    assert len(message) < 1200
    assert "\n" not in message
    assert "Traceback" not in message
    unit = 1 if sys.platform == "darwin" else 1024
    assert (peak() - before) * unit < 700 << 20


def test_the_number_of_forgeries():
    assert len(ALL) >= 60
    assert set(FORGED) == set(READERS)


def test_a_record_of_zeros_can_be_read(tmp_path):
    """A record of zeros compresses a thousandfold, and can be read all the same."""
    pred = Predictive("regression", 1, mean=torch.zeros(20 << 20, 1), variance=torch.zeros(1, 1))
    path = pred.save(tmp_path / "zeros.npz")
    assert Predictive.load(path).mean.shape == (20 << 20, 1)
    small = Predictive("regression", 1, mean=torch.zeros(1 << 20, 1), variance=torch.zeros(1, 1))
    assert small.save(tmp_path / "small.npz").stat().st_size < 1 << 20  # and small ones are small


def test_arrays_of_a_users_data_may_be_zeros(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(30 << 20, np.float32))
    assert len(read_arrays(tmp_path / "x.npz")["x"]) == 30 << 20


# -- hours of it: make soak -----------------------------------------------------------------------


def valid_file(kind, folder):
    """A file of each format as lowland writes it."""
    path = path_of(folder, kind)
    table = Table({"method": ["SGD", "SWA"], "nll": torch.tensor([0.5, 0.25])})
    pred = Predictive("classification", 3, probs=torch.rand(4, 2), entropy=torch.rand(4))
    make = {
        "record.json": table.save,
        "surface.json": SurfaceResult(torch.ones(2), None, {"loss": torch.ones(2)}).save,
        "record.npz": pred.save,
        "chain.npz": Chain(torch.ones(1, 2, 1), torch.ones(1, 2), sampler="ess").save,
        "shape": weights(),
        "moments": swag(),
        "tree": tree("demo", step=3, w=torch.ones(3)),
        "training": train,
        "chains": sample,
        "journal": journal(chunk={"points": [0], "names": ["a"], "values": [[0.5]]}),
        "torch": torch_file(lambda: {"w": torch.ones(3)}),
        "safetensors": lambda path: save_file({"w": torch.ones(3)}, path),
    }
    if kind == "index":
        save_file({"w": torch.ones(3)}, folder / "b.safetensors")
        path.write_text(json.dumps({"weight_map": {"w": "b.safetensors"}}))
    else:
        make[kind](path)
    return path


@pytest.mark.parametrize("kind", READERS)
def test_valid_files_are_read(tmp_path, kind):
    READERS[kind](valid_file(kind, tmp_path))


def test_a_user_names_files_as_they_like(tmp_path):
    path = tmp_path / "scan of 12:30.journal"
    journal(chunk={"points": [0], "names": ["a"], "values": [[0.5]]})(path)
    link = tmp_path / "link"
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(path.rename(tmp_path / "elsewhere" / path.name))
    for name in (link, tmp_path / "elsewhere" / path.name):
        book = Journal(name, {"a": 1})
        assert book.replay([0]) == [{"a": 0.5}]


def shapes():
    """A shape of every class, with all its attributes set."""
    g = torch.Generator().manual_seed(0)
    w = torch.randn(6, 40, generator=g)
    surface = ll.LossSurface(
        nn.Linear(2, 1), ll.Regression(noise_variance=1.0), [(torch.ones(4, 2), torch.ones(4, 1))]
    )
    return [
        ll.Line(w[0], w[1]),
        ll.Bezier.between(w[0], w[1], bends=2),
        ll.PolyChain.between(w[0], w[1], bends=1),
        ll.Plane.through(w[0], w[1], w[2]),
        ll.Plane(w[0], w[1], w[2]),
        ll.Subspace(w[0], w[1:3]),
        ll.Subspace.pca(w, rank=2),
        ll.Subspace.random(w[0], rank=2),
        ll.Subspace.hessian(surface, torch.zeros(3), rank=1),
        ll.Simplex(w[:3]),
        ll.SimplicialComplex.connecting([w[0], w[1]], [w[2]]),
    ]


def test_every_shape_comes_back_with_all_that_it_has(tmp_path):
    for shape in shapes():
        shape.save(tmp_path / "a")
        back = Shape.load(tmp_path / "a")
        assert type(back) is type(shape)
        computed = {name for name in vars(shape) if name.startswith("_")}
        stored = {name: value for name, value in vars(shape).items() if name not in computed}
        assert same_tree(vars(back), stored | {"log": None})


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", READERS)
def test_flipped_bits_and_cut_ends(tmp_path, kind):
    """Thousands of damaged files per format: a LowlandError or a read, and no other exception."""
    path = valid_file(kind, tmp_path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 9)):
            damaged[place] ^= 1 << rng.integers(0, 8)
        if rng.random() < 0.3:
            damaged = damaged[: rng.integers(0, len(damaged))]
        path.write_bytes(damaged)
        with suppress(LowlandError):
            READERS[kind](path)


KILLED = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from lowland.records import Table
from tests.trajectory.test_store import append_the_rest, filled
from lowland import Trajectory
path = Path(sys.argv[1])
store = Trajectory.open(path) if (path / "journal.jsonl").exists() else filled(path, 0)
print("ready", flush=True)
n = len(store)
while True:
    n += 1
    append_the_rest(store, n)
    if n % 7 == 0:
        store.rewind(10 * (n - 3))
        n = len(store)
    Table({"a": torch.ones(1000)}).save(path.parent / "table.npz")
"""


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_processes_that_are_killed_at_any_moment(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "run"
    longest = 0
    for _ in range(100):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path), os.getcwd()], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            try:
                process.wait(rng.random())
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.wait()
        store = ll.Trajectory.open(path)  # no warning: a kill loses no iterate
        assert store.steps == [10 * (i + 1) for i in range(len(store))]
        for i in range(len(store)):
            store[i]
        longest = max(longest, len(store))
        if Path(tmp_path / "table.npz").exists():
            Table.load(tmp_path / "table.npz")
    assert longest > 10
