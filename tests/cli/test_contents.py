"""`lowland average` on files whose tensors are not all weights: what each of them becomes."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import spectral_norm
from torch.nn.utils.parametrizations import spectral_norm as parametrized

from tests.cli.test_average import done, exact, lowland, own  # noqa: F401

FLOAT8 = torch.float8_e4m3fn


def written(folder, states):
    folder.mkdir(exist_ok=True)
    for i, state in enumerate(states, start=1):
        save_file({n: t.contiguous() for n, t in state.items()}, folder / f"step-{i}.safetensors")
    return states


def averaged(folder, *args):
    """What an average writes, and what it prints."""
    out = done(folder, "--no-swag", "--out", folder / "out", *args)
    return load_file(folder / "out" / "swa.safetensors"), out


# -- quantised weights -----------------------------------------------------------------------------


def bitsandbytes(w):
    scale = w.abs().amax(1)
    codes = (w / scale[:, None] * 127).round().to(torch.int8)
    layout = torch.tensor(0, dtype=torch.uint8)
    return {"fc.weight": codes, "fc.SCB": scale, "fc.weight_format": layout}


def float8(w):
    scale = w.abs().amax() / 448
    return {"fc.weight": (w / scale).to(FLOAT8), "fc.weight_scale": scale[None]}


def rows(w):
    scale = w.abs().amax(1, keepdim=True) / 127
    return {"fc.weight": (w / scale).round().to(torch.int8), "fc.weight_scale": scale}


@pytest.mark.parametrize("quantise", [bitsandbytes, float8, rows])
def test_quantised_weights_are_averaged_at_their_values(tmp_path, quantise):
    """The mean of the weights, not the last file's codes times the mean of the scales."""
    torch.manual_seed(0)
    weights = [torch.randn(24, 16) * 2**i for i in range(4)]
    written(tmp_path, [quantise(w) | {"fc.bias": w[:, 0]} for w in weights])
    swa, out = averaged(tmp_path)
    mean = torch.stack(weights).mean(0)
    assert swa.keys() == {"fc.weight", "fc.bias"}
    assert swa["fc.weight"].dtype == torch.float32
    assert float((swa["fc.weight"] - mean).norm() / mean.norm()) < 0.03
    assert "Quantised weights (1 tensor) were averaged and are written in float32" in out
    parts = [quantise(w) for w in weights]  # a broken twin
    scale = torch.stack([p.get("fc.SCB", p.get("fc.weight_scale")) for p in parts]).mean(0)
    wrong = parts[-1]["fc.weight"].float() * scale.reshape(-1, 1)
    assert float((wrong / wrong.norm() * mean.norm() - mean).norm() / mean.norm()) > 0.3


def test_a_configuration_does_not_announce_weights_that_are_no_longer_quantised(tmp_path):
    for step in (1, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file(float8(torch.randn(4, 4)), folder / "model.safetensors")
        (folder / "config.json").write_text('{"n": 1, "quantization_config": {"bits": 8}}')
    done(tmp_path, "--no-swag", "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"n": 1}


def four_bits(i):
    return {
        "fc.weight": torch.randint(0, 255, (8, 1), dtype=torch.uint8),
        "fc.weight.absmax": torch.rand(4),
        "fc.weight.quant_map": torch.rand(16),
        "fc.weight.quant_state.bitsandbytes__nf4": torch.arange(40, dtype=torch.uint8),
    }


def gptq(i):
    words = torch.randint(-(2**30), 2**30, (4, 8), dtype=torch.int32)
    return {
        "fc.qweight": words,
        "fc.qzeros": words[:1].clone(),
        "fc.scales": torch.rand(1, 8).half(),
    }


def codes_alone(i):
    return {"fc.codes": torch.full((3, 3), 10 + i, dtype=torch.int8), "fc.bias": torch.ones(3) * i}


def complex_numbers(i):
    return {"fc.weight": torch.randn(3, dtype=torch.complex64), "fc.bias": torch.ones(3)}


def pruned(i):
    mask = torch.ones(4).index_fill(0, torch.tensor(i), 0)
    return {"fc.weight_orig": torch.randn(4), "fc.weight_mask": mask}


def infinite(i):
    return {"fc.weight": torch.tensor([1.0, 2.0 if i == 0 else float("inf")])}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (four_bits, ["step-2.safetensors: fc.weight is quantised", "fc.weight.absmax", "dequant"]),
        (gptq, ["fc.qweight is quantised", "fc.qzeros, fc.scales"]),
        (codes_alone, ["fc.codes (int8, (3, 3)) differs between", "step-1", "--where"]),
        (complex_numbers, ["fc.weight", "complex64", "view_as_real"]),
        (pruned, ["fc.weight_mask", "differs between"]),
        (infinite, ["fc.weight holds infinite values"]),
    ],
)
def test_weights_without_a_mean_are_refused_by_name(tmp_path, state, words):
    written(tmp_path, [state(i) for i in range(2)])
    for extra in ([], ["--inspect"]):
        code, _, err = lowland(tmp_path, "--no-swag", "--out", tmp_path / "out", *extra)
        assert code == 2, err
        for word in words:
            assert word in err
    assert not (tmp_path / "out").exists()


def test_where_leaves_integers_that_change_to_the_last_checkpoint(tmp_path):
    states = written(tmp_path, [codes_alone(i) for i in range(2)])
    swa, out = averaged(tmp_path, "--where", "bias")
    assert torch.equal(swa["fc.codes"], states[-1]["fc.codes"])
    assert "Integers and booleans (1 tensor) are the last checkpoint's: fc.codes" in out


def test_a_weight_is_not_averaged_in_part(tmp_path):
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    written(tmp_path, [layer.state_dict()] * 2)
    code, _, err = lowland(tmp_path, "--no-swag", "--where", "original0", "--out", tmp_path / "o")
    assert code == 2
    assert "original0 would be averaged and parametrizations.weight.original1 would not" in err
    averaged(tmp_path, "--where", "original")


def test_attention_masks_with_infinities_stay_as_they_are(tmp_path):
    mask = torch.full((3, 3), float("-inf")).triu(1)
    states = written(tmp_path, [{"mask": mask, "w": torch.rand(2)} for _ in range(3)])
    swa, out = averaged(tmp_path)
    assert torch.equal(swa["mask"], mask)
    torch.testing.assert_close(swa["w"].double(), exact(states, "w"))
    assert "(1 tensor) are the same in all checkpoints: mask" in out


# -- spectral norm ---------------------------------------------------------------------------------


def of_one_size(norm):
    """Layers whose weights do not tell by their shapes which axis is the matrix's first."""
    return nn.Sequential(
        norm(nn.Linear(4, 4)),
        nn.Unflatten(1, (4, 1, 1)),
        norm(nn.ConvTranspose2d(4, 4, 3)),
        norm(nn.Conv2d(4, 4, 3)),
        nn.Flatten(),
        norm(nn.Linear(4, 1)),
    )


def iterates(model, count, *, rate=0.05):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for _ in range(count):
        for _ in range(40):
            optimizer.zero_grad()
            x = torch.randn(32, 4)
            (model(x)[:, 0] - x.sum(1)).square().mean().backward()
            optimizer.step()
        yield {name: t.clone() for name, t in model.state_dict().items()}


def sigmas(model):
    """What each layer divides by, and the largest singular value of its matrix."""
    for layer in model.eval():
        if not hasattr(layer, "weight"):
            continue
        axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        if hasattr(layer, "parametrizations"):
            raw, weight = layer.parametrizations.weight.original, layer.weight
        else:
            raw = layer.weight_orig
            next(iter(layer._forward_pre_hooks.values()))(layer, None)
            weight = layer.weight
        used = (raw.norm() / weight.norm()).item()
        yield used, torch.linalg.matrix_norm(raw.movedim(axis, 0).flatten(1), 2).item()


@pytest.mark.parametrize("norm", [spectral_norm, parametrized])
def test_the_vectors_of_spectral_norm_are_those_of_the_averaged_weight(tmp_path, norm):
    torch.manual_seed(0)
    model = of_one_size(norm)
    states = written(tmp_path, list(iterates(model, 4, rate=0.2)))
    swa, out = averaged(tmp_path, "--ema", "0.5")
    raw = [name for name in swa if name.endswith(("original", "_orig"))]
    for name in raw:
        torch.testing.assert_close(swa[name].double(), exact(states, name), rtol=1e-5, atol=1e-6)
    for state in (swa, load_file(tmp_path / "out" / "ema.safetensors")):
        model.load_state_dict(state)
        for used, largest in sigmas(model):
            assert used == pytest.approx(largest, rel=1e-5)
    assert re.search(r"Vectors of spectral norm \(8 tensors\) are the singular vectors", out)
    mean = {name: exact(states, name).float() for name in swa}  # a broken twin
    model.load_state_dict(mean)
    assert max(abs(used / largest - 1) for used, largest in sigmas(model)) > 1e-3


def test_vectors_stay_with_a_weight_that_is_not_averaged(tmp_path):
    torch.manual_seed(0)
    states = written(tmp_path, list(iterates(of_one_size(spectral_norm), 2)))
    swa, out = averaged(tmp_path, "--where", "bias")
    for name in ("0.weight_orig", "0.weight_u", "0.weight_v"):
        assert torch.equal(swa[name], states[-1][name])
    assert "What --where leaves out (12 tensors) is the last checkpoint's" in out
    assert "singular vectors" not in out


def test_vectors_of_older_code(tmp_path):
    """`weight_bar` with parameters u and v, as generative models had them before torch did."""
    torch.manual_seed(0)
    states = []
    for _ in range(3):
        w = torch.randn(5, 3)
        u, _, v = torch.linalg.svd(w)
        vectors = {"c.weight_u": u[:, 0], "c.weight_v": v[0]}
        states.append(vectors | {"c.weight_bar": w})
    written(tmp_path, states)
    swa, _ = averaged(tmp_path)
    w, u, v = (swa[f"c.weight_{end}"] for end in ("bar", "u", "v"))
    assert float(u @ w @ v) == pytest.approx(float(torch.linalg.matrix_norm(w, 2)), rel=1e-5)


def test_vectors_whose_weight_a_file_does_not_show_are_refused(tmp_path):
    layer = parametrized(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)))
    written(tmp_path, [layer.state_dict()] * 2)
    code, _, err = lowland(tmp_path, "--no-swag", "--out", tmp_path / "out")
    assert code == 2
    assert "parametrizations.weight.1._u" in err
    assert "--config" in err


def test_a_configuration_shows_the_weight_that_a_file_does_not(own):  # noqa: F811
    """Weight norm under spectral norm: the vectors are those of the weight that is normalised."""
    (own / "own_chain.py").write_text(CHAIN)
    (own / "config.yaml").write_text(
        (own / "config.yaml").read_text().replace("own_average:net", "own_chain:net")
    )
    import own_chain

    torch.manual_seed(0)
    states = [own_chain.net().train() for _ in range(3)]
    written(own / "run", [net.state_dict() for net in states])
    out = done("run", "--no-swag", "--config", "config.yaml")
    assert "Vectors of spectral norm were re-estimated for the averages (2 tensors)" in out
    net = own_chain.net()
    net.load_state_dict(load_file(own / "averaged" / "swa.safetensors"))
    norm = torch.linalg.matrix_norm(net.eval()[0].weight.detach(), 2)
    assert float(norm) == pytest.approx(1, rel=1e-5)


CHAIN = """
from torch import nn
from torch.nn.utils import parametrizations as p

def net():
    return nn.Sequential(p.spectral_norm(p.weight_norm(nn.Linear(4, 5))), nn.Linear(5, 3))
"""


# -- the list --------------------------------------------------------------------------------------


def test_every_tensor_that_is_not_averaged_is_listed_with_the_reason(tmp_path):
    """Buffers of a user's own cannot be told from parameters: averaged, and named."""
    states = [
        {
            "0.weight": torch.rand(2, 2),
            "0.mu": torch.rand(2),
            "1.running_var": torch.rand(2),
            "1.num_batches_tracked": torch.tensor(i),
            "2.weight_fake_quant.scale": torch.rand(1),
            "2.weight_fake_quant.zero_point": torch.tensor([i, 5], dtype=torch.int32),
            "index": torch.arange(3),
        }
        for i in range(3)
    ]
    written(tmp_path, states)
    swa, out = averaged(tmp_path)
    for name, tensor in states[-1].items():
        assert torch.equal(swa[name], tensor) == (name not in ("0.weight", "0.mu"))
    record = json.loads((tmp_path / "out" / "average.json").read_text())["tensors"]
    assert record.keys() == states[0].keys() - {"0.weight"}
    assert "BatchNorm statistics (1 tensor) are the last checkpoint's, and do not fit" in out
    assert "neither weight nor bias (1 tensor) were averaged; exclude" in out
    assert "Ranges of quantisation-aware training (2 tensors)" in out
    for name in record:
        assert name in out
    listing = done(tmp_path, "--inspect")
    assert all(name in listing for name in record)


def test_with_a_model_its_buffers_are_told_from_its_weights(own):  # noqa: F811
    from tests.cli.test_average import walk

    states = [s | {"loss.weight": torch.ones(2)} for s in walk(3)]
    written(own / "run", states)
    out = done("run", "--no-swag", "--config", "config.yaml")
    assert "re-estimated for the averages (2 tensors): 1.running_mean, 1.running_var" in out
    assert "model of the configuration does not have (1 tensor) were left out: loss.weight" in out
    assert "loss.weight" not in load_file(own / "averaged" / "swa.safetensors")


# -- several sets of weights in a file -------------------------------------------------------------


def weight_averaging(folder, count=3):
    """Files of Lightning's `WeightAveraging`: `state_dict` is the average."""
    for i in range(1, count + 1):
        iterate = {"net.weight": torch.tensor([float(i)])}
        average = {"net.weight": torch.tensor([100.0 * i])}
        content = {"state_dict": average, "current_model_state": iterate, "global_step": i}
        torch.save(content, folder / f"step={i}.ckpt")


def test_lightnings_averages_are_not_averaged_again(tmp_path):
    weight_averaging(tmp_path)
    swa, out = averaged(tmp_path)
    assert swa["net.weight"].item() == 2
    assert "'current_model_state' was taken, and not 'state_dict' (an average already)" in out
    assert json.loads((tmp_path / "out" / "average.json").read_text())["key"] == (
        "current_model_state"
    )
    swa, out = averaged(tmp_path, "--key", "state_dict")
    assert swa["net.weight"].item() == 200
    assert "was taken" not in out


def test_iterates_and_averages_are_not_mixed(tmp_path):
    weight_averaging(tmp_path)
    torch.save({"state_dict": {"net.weight": torch.ones(1)}}, tmp_path / "step=2.ckpt")
    code, _, err = lowland(tmp_path, "--no-swag", "--out", tmp_path / "out")
    assert code == 2
    assert "step=2.ckpt: nothing under key 'current_model_state'" in err
