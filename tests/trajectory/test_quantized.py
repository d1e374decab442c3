"""Quantised weights of checkpoints: their values by the formulas of the formats, or a refusal."""

import pytest
import torch

from lowland import StoreError
from lowland.trajectory.quantized import dequantize, quantized

FLOAT8 = torch.float8_e4m3fn


def codes(*shape, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-128, 128, shape, generator=g).to(torch.int8)


def values(tensors):
    out = dequantize(tensors, source="a.safetensors")
    assert out.keys() == {"m.weight"}
    assert out["m.weight"].dtype == torch.float32
    return out["m.weight"].double()


@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv", "scale_weight"])
@pytest.mark.parametrize("dtype", [torch.int8, FLOAT8])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (6, 1), (6, 2), (2, 4)])
def test_scales_of_tensors_rows_groups_and_blocks(name, dtype, shape):
    q, s = codes(6, 8).to(dtype), torch.rand(shape, dtype=torch.bfloat16) + 0.1
    result = values({"m.weight": q, f"m.{name}": s, "m.input_scale": torch.ones(1)})
    for i in range(6):
        for j in range(8):
            place = {
                (): (),
                (1,): (0,),
                (6,): (i,),
                (6, 1): (i, 0),
                (6, 2): (i, j // 4),
                (2, 4): (i // 3, j // 2),
            }[shape]
            assert float(result[i, j]) == pytest.approx(float(q[i, j]) * float(s[place]), rel=1e-6)


def test_blocks_of_128_whose_last_is_smaller():
    q, s = torch.ones(300, 131).to(FLOAT8), torch.arange(1.0, 7.0).view(3, 2)
    with pytest.raises(StoreError, match=r"m.weight .*\(300, 131\) values each of \(3, 2\) scales"):
        values({"m.weight": q, "m.weight_scale_inv": s})  # of 100 or 128 rows
    result = values({"m.weight": q[:290], "m.weight_scale_inv": s})
    for i, j in ((0, 0), (127, 127), (128, 128), (255, 0), (256, 129), (289, 129)):
        assert result[i, j] == s[i // 128, j // 128]


def test_zero_points():
    q, s, z = codes(4, 6), torch.rand(4, 1), torch.tensor([[1], [-3], [0], [7]], dtype=torch.int8)
    result = values({"m.weight": q, "m.weight_scale": s, "m.weight_zero_point": z})
    torch.testing.assert_close(result, (q.double() - z.double()) * s.double())


def test_bitsandbytes_rows():
    q, c = codes(4, 6), torch.rand(4) + 1
    layout = torch.tensor(0, dtype=torch.uint8)
    expected = q.double() * c.double()[:, None] / 127
    for more in ({}, {"m.weight_format": layout}):
        torch.testing.assert_close(values({"m.weight": q, "m.SCB": c} | more), expected)
    with pytest.raises(StoreError, match=r"m.weight is quantised .*weight_format"):
        values({"m.weight": q, "m.SCB": c, "m.weight_format": layout + 2})


def test_float8_without_scales_has_its_own_value():
    w = torch.tensor([[0.5, -3.0]]).to(FLOAT8)
    assert values({"m.weight": w}).tolist() == [[0.5, -3.0]]
    assert dequantize({"norm.scale": w[0]}, source="a")["norm.scale"].tolist() == [0.5, -3.0]


class Opaque(torch.Tensor):
    """Of a class that does not say its values."""

    def dequantize(self):
        raise NotImplementedError("no kernel")


def half_a_byte():
    return torch.zeros(4, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
@pytest.mark.parametrize(
    "tensors",
    [
        lambda: {"m.weight_packed": codes(4, 2).int(), "m.weight_scale": torch.ones(4, 1)},
        lambda: {"m.weight._data": codes(4, 2), "m.weight._scale": torch.ones(4, 1)},
        lambda: {"_weight_qdata": codes(4, 2), "_weight_scale": torch.ones(4, 1)},
        lambda: {"w1_blocks": codes(4, 2).view(torch.uint8), "w1_scales": codes(4)},
        lambda: {"W_q": codes(4, 2).int(), "scale": torch.ones(4, 1), "zero": torch.ones(4, 1)},
        lambda: {"m.weight": half_a_byte(), "m.weight_scale": torch.ones(4, 1)},
        lambda: {"m.weight": torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)},
        lambda: {"m.weight": torch.ones(3).as_subclass(Opaque)},
        lambda: {"m.weight": codes(4, 2), "m.weight_scale": torch.ones(3, 1)},
        lambda: {
            "m.weight": codes(4, 2),
            "m.weight_scale": torch.ones(1),
            "m.weight_g_idx": codes(2),
        },
    ],
)
def test_forms_that_a_file_does_not_explain_are_refused_by_name(tensors):
    state = tensors()
    first = next(iter(state))
    with pytest.raises(StoreError, match=rf"a.pt: {first} is quantised and cannot be averaged"):
        dequantize(state, source="a.pt")


def test_masks_and_indices_beside_scales_are_no_weights():
    state = {
        "attn.mask": torch.ones(4, 4, dtype=torch.uint8).tril(),
        "attn.index": torch.arange(9),
        "attn.scale": torch.ones(3),
        "attn.steps": torch.tensor(7, dtype=torch.uint8),
        "logit_scale": torch.ones(()),
    }
    assert quantized(state) == {}
    assert dequantize(state, source="a").keys() == state.keys()


def test_several_weights_of_one_module_have_their_own_scales():
    state = {"a": codes(2, 2), "a_scale": torch.ones(1), "b": codes(2, 2), "b_scale": torch.ones(1)}
    assert quantized(state) == {"a": ["a_scale"], "b": ["b_scale"]}
