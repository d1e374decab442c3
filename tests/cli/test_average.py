"""`lowland average`: what comes out is the mean of the files, under the names that they have."""

import json
import os
import re
import runpy
import sys
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import lowland as ll
from lowland import SWAG, ParamLayout
from lowland.artifacts.places import leases_of
from lowland.cli import average_moments
from lowland.records import Table
from tests.cli import inside
from tests.cli.forked import lowland as forked

OWN = """
import torch
from torch import nn

def net(width=6):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))

def splits(rows=60, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 4, generator=g)
    y = (x @ torch.randn(4, 3, generator=g)).argmax(1)
    parts = zip(x.split(rows // 3), y.split(rows // 3))
    return dict(zip(("train", "validation", "test"), parts))
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A project with a model, data and a configuration; the working folder."""
    (tmp_path / "own_average.py").write_text(OWN)
    body = {
        "model": {"name": "own_average:net"},
        "data": {"name": "own_average:splits"},
        "samples": 4,
        "threads": 1,
        "average": {"scales": [0.0, 0.5, 1.0]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(body))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("own_average", None)


def lowland(*args):
    return inside.lowland("average", *args, "--trust")  # what it is for: test_trust.py


def done(*args):
    code, out, err = lowland(*args)
    assert code == 0, err
    return out


def net(width=6):
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 3))


def walk(count, *, seed=0, width=6):
    """State dicts of a little training run, as its script would save them."""
    torch.manual_seed(seed)
    model = net(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(count):
        x = torch.randn(16, 4)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()
        yield {name: t.clone() for name, t in model.state_dict().items()}


def saved(folder, count=5, **options):
    """Checkpoints step-8, step-9, ... : natural and alphabetical order differ."""
    folder.mkdir(parents=True, exist_ok=True)
    states = list(walk(count, **options))
    for i, state in enumerate(states, start=8):
        save_file(state, folder / f"step-{i}.safetensors")
    return states


def loss_of(state, batch):
    """The loss of a state dict on rows, as its own code would work it out."""
    model = net()
    model.load_state_dict(state)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model.eval()(batch[0]), batch[1]))


def exact(states, name):
    return torch.stack([s[name].double() for s in states]).mean(0)


PARAMETERS = [name for name, _ in net().named_parameters()]


# -- without a model -------------------------------------------------------------------------------


def test_the_average_is_the_exact_mean_under_the_models_own_names(own):
    states = saved(own / "run")
    out = done("run", "--rank", 3)
    swa = load_file(own / "averaged" / "swa.safetensors")
    model = net()
    model.load_state_dict(swa)  # strict: every name, nothing else
    for name in PARAMETERS:
        torch.testing.assert_close(swa[name].double(), exact(states, name), rtol=1e-6, atol=1e-7)
        assert not torch.equal(swa[name], states[-1][name])
    for name in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
        assert torch.equal(swa[name], states[-1][name])
    assert "BatchNorm statistics (2 tensors) are the last checkpoint's" in out
    assert "update_bn" in out
    assert "5 checkpoints, steps 8 to 12" in out
    record = json.loads((own / "averaged" / "average.json").read_text())
    assert [c["step"] for c in record["checkpoints"]] == [8, 9, 10, 11, 12]
    assert record["rank"] == 3


def test_swag_is_the_offline_covariance_of_the_files(own):
    states = saved(own / "run", count=6)
    done("run", "--rank", 4)
    layout = ParamLayout(net())
    swag = SWAG.load(own / "averaged" / "swag.safetensors", layout=layout)
    w = torch.stack([layout.flatten(s).double() for s in states])
    running = torch.stack([w[: i + 1].mean(0) for i in range(6)])
    last = (w - running)[2:]  # of the last four, by step: 10, 11, 12, 13
    gram = swag.deviations.double().T @ swag.deviations.double()
    torch.testing.assert_close(swag.mean.double(), w.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swag.variance.double(), w.var(0, correction=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gram, last.T @ last, rtol=1e-4, atol=1e-6)
    alphabetical = torch.stack([w[i] for i in (2, 3, 4, 5, 0, 1)])  # a broken twin
    wrong = alphabetical - torch.stack([alphabetical[: i + 1].mean(0) for i in range(6)])
    assert not torch.allclose(gram, wrong[2:].T @ wrong[2:], rtol=1e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_dtypes_are_kept_and_sums_are_wide(own, dtype):
    states = [{"w": (100 + torch.rand(50, dtype=torch.float64)).to(dtype)} for _ in range(9)]
    for i, state in enumerate(states):
        torch.save(state | {"position_ids": torch.arange(i, i + 3)}, own / f"net-{i}.pt")
    done(own / "net-*.pt", "--no-swag")
    swa = load_file(own / "averaged" / "swa.safetensors")
    assert swa["w"].dtype == dtype
    torch.testing.assert_close(swa["w"], exact(states, "w").to(dtype), rtol=0, atol=0.5)
    wide = 1e-12 if dtype == torch.float64 else torch.finfo(dtype).eps * 0.51
    torch.testing.assert_close(swa["w"].double(), exact(states, "w"), rtol=wide, atol=0)
    assert swa["position_ids"].tolist() == [8, 9, 10]
    assert not (own / "averaged" / "swag.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_whoever_could_read_the_checkpoints_can_read_the_averages(own):
    saved(own / "run")
    for mode in (0o640, 0o600):
        for file in (own / "run").iterdir():
            file.chmod(mode)
        done("run")
        for name in ("swa", "swag"):
            assert (own / "averaged" / f"{name}.safetensors").stat().st_mode & 0o777 == mode


def test_the_last_few_and_those_from_a_step_on(own):
    states = saved(own / "run")
    done("run", "--last", 2)
    swa = load_file(own / "averaged" / "swa.safetensors")
    torch.testing.assert_close(swa["0.weight"].double(), exact(states[-2:], "0.weight"))
    done("run", "--from", 10, "--out", "later")
    swa = load_file(own / "later" / "swa.safetensors")
    torch.testing.assert_close(swa["0.weight"].double(), exact(states[2:], "0.weight"))


def test_where_leaves_the_rest_to_the_last_checkpoint(own):
    states = saved(own / "run")
    done("run", "--where", "^3")
    swa = load_file(own / "averaged" / "swa.safetensors")
    torch.testing.assert_close(swa["3.bias"].double(), exact(states, "3.bias"))
    assert torch.equal(swa["0.weight"], states[-1]["0.weight"])
    assert SWAG.load(own / "averaged" / "swag.safetensors").layout.names == ("3.bias", "3.weight")


def test_an_exponential_average_beside_it(own):
    states = saved(own / "run", count=4)
    done("run", "--ema", 0.5)
    w = [s["0.weight"].double() for s in states]
    expected = w[0]
    for value in w[1:]:
        expected = 0.5 * expected + 0.5 * value
    found = load_file(own / "averaged" / "ema.safetensors")["0.weight"].double()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


#: what the graph has for itself
GRAPH = {"artifacts", "events.jsonl", "graph.json", "plan.json"}


def listed(folder):
    """What people see in a folder."""
    return sorted({path.name for path in folder.iterdir()} - GRAPH)


def test_nothing_of_an_earlier_average_stays_beside_a_new_one(own):
    saved(own / "ck")
    done("ck", "--ema", "0.5", "--out", "av")
    assert {p.name for p in (own / "av").glob("*.safetensors")} == {
        "swa.safetensors",
        "swag.safetensors",
        "ema.safetensors",
    }
    done("ck", "--last", "3", "--no-swag", "--out", "av")
    assert [p.name for p in (own / "av").glob("*.safetensors")] == ["swa.safetensors"]


def lightning(folder, count=3):
    """Lightning's files, of a module whose `net` is the network."""
    folder.mkdir(parents=True)
    states = list(walk(count))
    for i, state in enumerate(states, start=1):
        content = {"state_dict": {f"net.{n}": t for n, t in state.items()}, "global_step": 10 * i}
        torch.save(content, folder / f"epoch={i}-step={10 * i}.ckpt")
    torch.save(content, folder / "last.ckpt")
    return states


def test_lightnings_folder_with_and_without_its_prefix(own):
    states = lightning(own / "lightning_logs" / "version_0" / "checkpoints")
    out = done("lightning_logs")
    assert "3 checkpoints, steps 10 to 30" in out
    swa = load_file(own / "averaged" / "swa.safetensors")
    torch.testing.assert_close(swa["net.3.bias"].double(), exact(states, "3.bias"))
    done("lightning_logs", "--prefix", "net.", "--out", "bare")
    net().load_state_dict(load_file(own / "bare" / "swa.safetensors"))
    done("lightning_logs", "--config", "config.yaml", "--out", "judged")
    net().load_state_dict(load_file(own / "judged" / "swa.safetensors"))


def test_a_trainers_folder_stays_one_that_from_pretrained_reads(own):
    states = list(walk(3))
    for i, state in enumerate(states, start=1):
        folder = own / "bert" / f"checkpoint-{5 * i}"
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps({"n": i}))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "vocab.txt").write_text("a b")
        (folder / "trainer_state.json").write_text("{}")
        torch.save({}, folder / "optimizer.pt")
    done("bert")
    assert listed(own / "averaged") == [
        "average.json",
        "config.json",
        "model.safetensors",
        "swag.safetensors",
        "tokenizer.json",
        "vocab.txt",
    ]
    assert (own / "averaged" / "config.json").read_text() == '{"n": 3}'
    with safe_open(own / "averaged" / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"  # transformers insists
        torch.testing.assert_close(
            file.get_tensor("0.weight").double(), exact(states, "0.weight"), rtol=1e-6, atol=1e-7
        )


def test_adapters_stay_adapters(own):
    for step in (5, 10):
        folder = own / "lora" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        factor = {"a.lora_A.weight": torch.full((2, 3), float(step))}
        save_file(factor, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text("{}")
        save_file({"base": torch.ones(1)}, folder / "other.safetensors")
    done("lora", "--no-swag")
    assert listed(own / "averaged") == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "average.json",
    ]
    found = load_file(own / "averaged" / "adapter_model.safetensors")
    assert found["a.lora_A.weight"].tolist() == [[7.5] * 3] * 2


def test_inspection_writes_nothing_and_imports_nothing(own):
    states = lightning(own / "run")
    sys.modules.pop("own_average", None)
    before = sorted(own.rglob("*"))
    out = done("run", "--inspect", "--config", "config.yaml")
    assert sorted(own.rglob("*")) == before
    assert "own_average" not in sys.modules
    size = sum(states[0][name].numel() for name in PARAMETERS)
    for text in (f"P = {size} in 6 tensors", "net.0: 2 tensors", "float32, int64", "fit together"):
        assert text in out
    assert out.index("step=10.ckpt") < out.index("step=20.ckpt") < out.index("step=30.ckpt")


def test_large_deviations_go_to_a_file_and_leave_none_behind(own, monkeypatch):
    saved(own / "run")
    done("run", "--out", "plain")
    monkeypatch.setattr(average_moments, "IN_MEMORY", 0)
    done("run", "--out", "mapped")
    a, b = (SWAG.load(own / name / "swag.safetensors") for name in ("plain", "mapped"))
    assert torch.equal(a.deviations, b.deviations)
    assert listed(own / "mapped") == ["average.json", "swa.safetensors", "swag.safetensors"]
    not_finite(own)
    assert lowland("run", "--out", "failed")[0] == 2
    assert listed(own / "failed") == ["average.json"]
    assert not list(own.rglob("deviations.tmp"))


# -- with a model and data -------------------------------------------------------------------------


def test_a_configuration_refreshes_batchnorm_and_compares(own):
    saved(own / "run")
    out = done("run", "--config", "config.yaml", "--ema", 0.5)
    assert "BatchNorm statistics were re-estimated" in out
    import own_average

    data = own_average.splits()
    swa = load_file(own / "averaged" / "swa.safetensors")
    x = data["train"][0]
    first = nn.functional.linear(x.double(), swa["0.weight"].double(), swa["0.bias"].double())
    torch.testing.assert_close(swa["1.running_mean"].double(), first.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(swa["1.running_var"].double(), first.var(0), rtol=1e-5, atol=1e-6)
    table = Table.load(own / "averaged" / "comparison.json")
    assert table.method == ["last checkpoint", "SWA", "EMA", "SWAG"]
    for row, state in ((0, load_file(own / "run" / "step-12.safetensors")), (1, swa)):
        assert float(table.nll[row]) == pytest.approx(loss_of(state, data["test"]), rel=1e-5)
    record = json.loads((own / "averaged" / "average.json").read_text())
    assert record["scale"] in (0.0, 0.5, 1.0)
    assert float(table.scale[3]) == record["scale"]
    if record["scale"] == 0:
        assert float(table.nll[3]) == pytest.approx(float(table.nll[1]), rel=1e-5)


def test_every_checkpoint_is_evaluated_on_request(own):
    states = saved(own / "run", count=3)
    done("run", "--config", "config.yaml", "--each", "--no-swag")
    table = Table.load(own / "averaged" / "comparison.json")
    assert table.method == ["step 8", "step 9", "last checkpoint", "SWA"]
    import own_average

    test = own_average.splits()["test"]
    for i, state in enumerate(states):
        assert float(table.nll[i]) == pytest.approx(loss_of(state, test), rel=1e-5)


def test_parameters_that_are_not_averaged_are_the_last_checkpoints_in_metrics(own):
    states = saved(own / "run")
    done("run", "--config", "config.yaml", "--where", "^3", "--no-swag")
    swa = load_file(own / "averaged" / "swa.safetensors")
    assert torch.equal(swa["0.weight"], states[-1]["0.weight"])
    import own_average

    table = Table.load(own / "averaged" / "comparison.json")
    loss = loss_of(swa, own_average.splits()["test"])
    assert float(table.nll[1]) == pytest.approx(loss, rel=1e-5)


# -- what users get wrong --------------------------------------------------------------------------


class Mine:
    """What a pickle may hold."""


def pickled(own):
    torch.save({"state_dict": net().state_dict(), "args": Mine()}, own / "a.ckpt")
    return ["a.ckpt", "--no-swag"]


def mixed(own):
    saved(own / "run", count=2)
    save_file(net(width=7).state_dict(), own / "run" / "step-10.safetensors")
    return ["run"]


def renamed(own):
    saved(own / "run", count=2)
    state = {f"model.{n}": t for n, t in net().state_dict().items()}
    save_file(state, own / "run" / "step-10.safetensors")
    return ["run"]


def not_finite(own):
    states = saved(own / "run", count=3)
    states[1]["3.bias"][0] = float("inf")
    save_file(states[1], own / "run" / "step-9.safetensors")
    return ["run"]


def cut_off(own):
    saved(own / "run", count=3)
    path = own / "run" / "step-9.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    return ["run"]


def empty(own):
    (own / "run").mkdir()
    return ["run"]


def alone(own):
    saved(own / "run", count=1)
    return ["run"]


def into_the_source(own):
    saved(own / "run")
    return ["run", "--out", "run"]


def into_a_file(own):
    saved(own / "run")
    return ["run", "--out", "config.yaml"]


def of_another_model(own):
    saved(own / "run", width=7)
    return ["run", "--config", "config.yaml"]


def too_late(own):
    saved(own / "run")
    return ["run", "--from", "99"]


def without_steps(own):
    for name in ("a", "b"):
        save_file(net().state_dict(), own / f"{name}.safetensors")
    return ["a.safetensors", "b.safetensors", "--from", "1"]


def each_without_data(own):
    saved(own / "run")
    return ["run", "--each"]


def a_bad_rank(own):
    saved(own / "run")
    return ["run", "--rank", "1"]


def twice(own):
    saved(own / "run")
    return ["run", "run/step-9.safetensors"]


@pytest.mark.parametrize(
    ("arrange", "words"),
    [
        (pickled, ["a.ckpt", "weights_only=True", "run code", "save_file(torch.load"]),
        (mixed, ["0.bias is (7,) in", "step-10", "(6,) in", "step-8", "two models"]),
        (renamed, ["model.0.bias", "step-10", "lacks", "two models"]),
        (not_finite, ["step-9.safetensors", "NaN or infinite", "3.bias"]),
        (cut_off, ["step-9.safetensors", "damaged"]),
        (empty, ["run is empty", "checkpoint-*", "Lightning"]),
        (alone, ["SWAG needs two checkpoints", "step-8", "--no-swag"]),
        (into_the_source, ["run is not empty", "--out"]),
        (into_a_file, ["config.yaml is a file"]),
        (of_another_model, ["model of the configuration", "0.weight expected (6, 4), got (7, 4)"]),
        (too_late, ["no checkpoint is of step 99", "8, 9, 10, 11, 12"]),
        (without_steps, ["a.safetensors has no step"]),
        (each_without_data, ["--each", "--config"]),
        (a_bad_rank, ["rank: expected 0 (diagonal) or at least 2"]),
        (lambda own: ["none-*.pt"], ["no checkpoint matches none-*.pt"]),
        (lambda own: ["gone.pt"], ["gone.pt: no such file"]),
        (twice, ["step-9.safetensors is named twice"]),
    ],
)
def test_one_sentence_and_exit_code_2(own, arrange, words):
    args = arrange(own)
    before = {p: p.read_bytes() for p in own.rglob("*") if p.is_file()}
    code, _, err = lowland(*args)
    assert code == 2, err
    assert "Traceback" not in err
    for word in words:
        assert word in err
    after = {
        p: p.read_bytes() for p in own.rglob("*") if p.is_file() and "__pycache__" not in str(p)
    }
    made = {p.relative_to(own / "averaged").parts[0] for p in after.keys() - before.keys()}
    assert made <= {"average.json", *GRAPH}  # the mark of a folder that was begun
    assert not made or arrange is not_finite
    assert all(after[p] == before[p] for p in after.keys() & before.keys())


def test_an_earlier_average_may_be_replaced(own):
    saved(own / "run")
    done("run", "--last", 2)
    first = load_file(own / "averaged" / "swa.safetensors")["3.bias"]
    done("run")
    assert not torch.equal(load_file(own / "averaged" / "swa.safetensors")["3.bias"], first)


def test_the_example_runs_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[2]
    monkeypatch.setattr(sys, "argv", ["train.py", "2"])
    runpy.run_path(str(root / "examples" / "checkpoints" / "train.py"))
    config = root / "configs" / "digits.yaml"
    out = done("run", "--last", 15, "--config", config, "--ema", 0.8)
    assert "choose SWAG's scale: 150 of 150" in out
    assert len(Table.load("averaged/comparison.json")) == 4


def test_fewer_checkpoints_than_the_rank_are_no_warning(own):
    saved(own / "run", count=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done("run", "--config", "config.yaml")
    assert SWAG.load(own / "averaged" / "swag.safetensors").rank == 3


def test_the_five_lines_of_the_page_do_the_same(own, monkeypatch):
    saved(own / "runs" / "bert")
    done("runs/bert", "--config", "config.yaml", "--no-swag")
    import own_average

    page = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.S) if "surface = " in b]
    data = own_average.splits()
    model = net()
    names = {
        "ll": ll,
        "model": model,
        "train_loader": [data["train"]],
        "test_loader": [data["test"]],
    }
    with pytest.warns(UserWarning, match="5 iterates"):  # fewer than the rank
        exec(block, names)
    swa = load_file(own / "averaged" / "swa.safetensors")
    for name in PARAMETERS:
        assert torch.equal(model.state_dict()[name], swa[name])
    torch.testing.assert_close(model.state_dict()["1.running_var"], swa["1.running_var"])
    assert names["pred"].probs.shape == (20, 3)


def test_two_averages_do_not_share_a_folder(tmp_path):
    for step in (1, 2):
        torch.save({"w.weight": torch.full((2,), float(step))}, tmp_path / f"checkpoint-{step}.pt")
    files = sorted(tmp_path.glob("*.pt"))
    out = tmp_path / "out"
    with leases_of(out).hold("average", "an average"):
        code, _, err = inside.lowland("average", *files, "--out", out)
    assert code == 2
    assert f"an average in {out} is under way in process {os.getpid()} since" in err
    assert [path.name for path in out.iterdir()] == ["artifacts"]
    assert inside.lowland("average", *files, "--out", out)[0] == 0


# -- the same command again ------------------------------------------------------------------------


def built(folder):
    """The artifacts that were built, in their order."""
    lines = (folder / "events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    return [event["artifact"] for event in events if event["event"] == "built"]


def built_again(own, *args):
    """What a command builds in the folder of an earlier one, and what it prints."""
    before = len(built(own / "averaged"))
    out = done("run", *args)
    return set(built(own / "averaged")[before:]), out


def contents(folder):
    """What two equal averages share byte by byte."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in ("events.jsonl", "timing.json")
        and ".leases" not in path.parts
    }


CONFIG = ("--config", "config.yaml", "--ema", 0.5)
#: what is made from the configuration's data, or from what is
ROWS = {"rows/swa", "rows/ema", "rows/swag"}
ENDS = {"tables/comparison"}
MOMENTS = {"moments/swag", "moments/ema"}
FILES = {"weights/swa", "weights/ema", "record"}
TUNED = {"tuning/swag", "rows/swag", "tables/comparison", "record"}


def test_the_second_call_builds_nothing_and_prints_the_same(own):
    saved(own / "run")
    first = done("run", *CONFIG)
    before = contents(own / "averaged")
    names, second = built_again(own, *CONFIG)
    assert names == set()
    assert contents(own / "averaged") == before
    table = second.index("Test data")
    assert second[table:] == first[first.index("Test data") :]


def change_checkpoint(own):
    (state,) = walk(1, seed=7)
    save_file(state, own / "run" / "step-9.safetensors")


def change_last(own):
    (state,) = walk(1, seed=7)
    save_file(state, own / "run" / "step-12.safetensors")


def change_config(old, new):
    def change(own):
        file = own / "config.yaml"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    return change


def change_data(own):
    """Other test examples."""
    source = own / "own_average.py"
    source.write_text(
        OWN.replace(
            'return dict(zip(("train", "validation", "test"), parts))',
            'd = dict(zip(("train", "validation", "test"), parts))\n'
            '    d["test"] = tuple(t[:15] for t in d["test"])\n    return d',
        )
    )
    sys.modules.pop("own_average")


@pytest.mark.parametrize(
    ("change", "args", "names", "words"),
    [
        (
            change_checkpoint,
            CONFIG,
            MOMENTS | FILES | ROWS | TUNED,
            "moments/swag is built again (other checkpoint/step-9.safetensors",
        ),
        (
            change_last,
            CONFIG,
            MOMENTS | FILES | ROWS | TUNED | {"rows/checkpoint/step-12.safetensors"},
            "other checkpoint/step-12.safetensors, model",
        ),
        (
            change_config("- 0.5", "- 0.25"),
            CONFIG,
            TUNED,
            "tuning/swag is built again (scales: [0.0, 0.5, 1.0] there, [0.0, 0.25, 1.0] now",
        ),
        (change_config("samples: 4", "samples: 5"), CONFIG, TUNED, "samples: 4 there, 5 now"),
        (
            change_data,
            CONFIG,
            ROWS | ENDS | {"rows/checkpoint/step-12.safetensors"},
            "rows/swa is built again (other data/test",
        ),
        (
            None,
            ("--config", "config.yaml", "--ema", 0.75),
            {"moments/ema", "weights/ema", "rows/ema", "tables/comparison", "record"},
            "moments/ema is built again (decay: 0.5 there, 0.75 now",
        ),
        (None, (*CONFIG, "--rank", 2), {"moments/swag", "weights/swa", "rows/swa"} | TUNED, "rank"),
        (
            None,
            (*CONFIG, "--each"),
            {f"rows/checkpoint/step-{step}.safetensors" for step in range(8, 12)} | ENDS,
            "tables/comparison is built again",
        ),
    ],
    ids=["checkpoint", "last", "scales", "samples", "data", "ema", "rank", "each"],
)
def test_a_change_builds_exactly_what_depends_on_it(own, change, args, names, words):
    saved(own / "run")
    done("run", *CONFIG)
    if change is not None:
        change(own)
    again, out = built_again(own, *args)
    assert again == names
    assert words in out
    assert built_again(own, *args)[0] == set()
    fresh = [*args, "--out", "fresh"]
    done("run", *fresh)
    for name in listed(own / "fresh"):
        assert (own / "averaged" / name).read_bytes() == (own / "fresh" / name).read_bytes(), name


def test_status_and_clean_read_the_folder(own):
    saved(own / "run")
    done("run", *CONFIG)
    done("run", "--last", 3)
    code, out, err = inside.lowland("status", own / "averaged")
    assert code == 0, err
    lines = out.splitlines()
    assert "checkpoint/step-10.safetensors: blake2b: " in out
    assert "step-9" not in out  # of the earlier selection
    assert any("moments/swag  done" in line for line in lines)
    assert lines[-1].startswith("3 done; ")
    code, out, err = inside.lowland("clean", own / "averaged")
    assert code == 0, err
    rows = [line.split()[:2] for line in out.splitlines()]
    assert ["moments/swag", "stale"] in rows
    assert ["moments/swag", "result"] in rows
    before = contents(own / "averaged")
    assert inside.lowland("clean", own / "averaged", "--remove", "stale")[0] == 0
    after = contents(own / "averaged")
    assert after.items() < before.items()
    assert not any("moments-ema" in name for name in after)
    assert built_again(own, "--last", 3)[0] == set()


def test_an_ema_is_written_from_a_mean_that_clean_removes(own):
    saved(own / "run")
    done("run", "--ema", 0.5)
    assert "intermediate" in inside.lowland("clean", own / "averaged")[1]
    assert inside.lowland("clean", own / "averaged", "--remove", "intermediate")[0] == 0
    assert not list((own / "averaged" / "artifacts").glob("moments-ema*"))
    assert built_again(own, "--ema", 0.5)[0] == set()


def test_a_plan_is_recorded_and_another_one_refused(own):
    saved(own / "run")
    done("run", *CONFIG)
    file = own / "averaged" / "plan.json"
    plan = json.loads(file.read_text())
    assert plan["threads"] == 1
    plan["evaluation"]["chunk"] += 1
    (own / "other.json").write_text(json.dumps(plan))
    with (own / "config.yaml").open("a") as config:
        config.write(f"plan: {own / 'other.json'}\n")
    code, _, err = lowland("run", *CONFIG)
    assert code == 2
    assert "was computed by another plan" in err


def test_an_average_of_an_earlier_version_is_refused_and_left_as_it_is(own):
    saved(own / "run")
    (own / "averaged").mkdir()
    (own / "averaged" / "average.json").write_text('{"rank": 3, "checkpoints": []}')
    (own / "averaged" / "swa.safetensors").write_bytes(b"weights")
    before = contents(own / "averaged")
    code, _, err = lowland("run")
    assert code == 2
    assert "averaged is an average without graph.json, as an earlier version of lowland" in err
    assert "--out" in err
    assert contents(own / "averaged") == before


def test_what_people_edited_is_left_as_it_is(own):
    for i, state in enumerate(walk(2), start=1):
        folder = own / "run" / f"checkpoint-{i}"
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors")
        (folder / "config.json").write_text('{"n": 1}')
    done("run")
    config = own / "averaged" / "config.json"
    config.write_text('{"n": 1, "id2label": {}}')
    names, out = built_again(own)
    assert names == set()
    assert "averaged/config.json was edited, and stays as it is; delete it" in out
    assert json.loads(config.read_text()) == {"n": 1, "id2label": {}}
    config.unlink()
    done("run")
    assert json.loads(config.read_text()) == {"n": 1}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_nobody_else_can_read_averages_of_private_checkpoints(own):
    """One private checkpoint is enough, and the files of the graph are as private as the view."""
    saved(own / "run")
    (own / "run" / "step-9.safetensors").chmod(0o600)
    done("run", *CONFIG)
    folder = own / "averaged"
    large = [path for path in folder.rglob("*.safetensors") if path.is_file()]
    assert len(large) == 3 + 4
    for path in large:
        assert path.stat().st_mode & 0o077 == 0
    for name in ("moments-swag", "moments-ema", "weights-swa", "weights-ema"):
        (place,) = (folder / "artifacts").glob(f"{name}-*")
        assert place.stat().st_mode & 0o077 == 0
    assert (folder / "comparison.json").stat().st_mode & 0o044


@pytest.mark.parametrize("event", [1, 4, 9, 16, 25, 36, 49, 64])
def test_a_kill_at_any_file_and_the_same_command_again_give_equal_bytes(own, event):
    """Events are files that are about to take their place: each of them may be the last."""
    saved(own / "run")
    done("run", *CONFIG, "--out", "whole")
    stop = ("before-replace", event, "SIGKILL")
    args = ["average", "run", *CONFIG, "--trust", "--out", "killed"]
    code, _, err = forked(*args, folder=own.parent, cwd=own, event=stop)
    assert code == -9, err
    done("run", *CONFIG, "--out", "killed")
    expected, found = contents(own / "whole"), contents(own / "killed")
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []
