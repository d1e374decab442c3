"""UCI sets: standardised by the examples that are trained on, and by no others."""

import numpy as np
import pytest
import torch

import lowland as ll
from lowland.zoo import uci, uci_net

N, D = 40, 3


@pytest.fixture
def root(tmp_path):
    """A set whose test examples lie far away, with a column that varies in them alone."""
    g = np.random.default_rng(0)
    x = g.normal(size=(N, D)) * [1.0, 10.0, 0.1] + [0.0, 5.0, -3.0]
    y = 100 + 7 * g.normal(size=N)
    mask = np.zeros((2, N), bool)
    mask[0, :4] = mask[1, 4:8] = True
    x[:4] += 1000
    y[:4] += 1000
    x = np.column_stack([x, np.full(N, 0.1)])
    x[:4, -1] = 9
    np.savez(tmp_path / "far.npz", x=x, y=y, test_mask=mask)
    return tmp_path


def raw(root):
    with np.load(root / "far.npz") as file:
        return file["x"], file["y"], file["test_mask"]


def test_standardised_by_the_training_examples_alone(root):
    data = uci(name="far", root=root, validation=0.25)
    x, y = data["train"]
    assert {k: len(data[k][0]) for k in ("train", "validation", "test")} == {
        "train": 27, "validation": 9, "test": 4
    }  # fmt: skip
    assert x.dtype == y.dtype == torch.float32
    assert y.shape == (27, 1)
    zero, one = torch.zeros(D), torch.ones(D)
    torch.testing.assert_close(x[:, :D].mean(0), zero, atol=1e-5, rtol=0)
    torch.testing.assert_close(x[:, :D].std(0, correction=0), one, atol=1e-5, rtol=0)
    assert abs(float(y.mean())) < 1e-5
    # the broken twin, statistics of the whole set, would put the test examples within a few units
    whole, _, mask = raw(root)
    twin = (whole - whole.mean(0)) / whole.std(0)
    assert abs(twin[mask[0]][:, :D]).max() < 4
    assert data["test"][0][:, 0].min() > 100
    assert data["test"][1].min() > 100


def test_every_example_is_in_one_part(root):
    for split in (0, 1):
        data = uci(name="far", root=root, split=split, validation=0.25)
        _, y, mask = raw(root)
        task = data["task"]
        back = {
            part: (data[part][1].double() * task.target_std + task.target_mean).flatten()
            for part in ("train", "validation", "test")
        }
        np.testing.assert_allclose(back["test"], y[mask[split]], rtol=1e-5)
        every = np.sort(np.concatenate([values.numpy() for values in back.values()]))
        np.testing.assert_allclose(every, np.sort(y), rtol=1e-5)


def test_columns_that_never_vary_are_zero_everywhere(root):
    data = uci(name="far", root=root)
    assert data["constant"] == [D]
    for part in ("train", "validation", "test"):
        assert not data[part][0][
            :, D
        ].any()  # in test examples too, where it would be 8.9 otherwise
    # 0.1 summed 36 times is not 3.6: a standard deviation that is rounding must not divide
    train = raw(root)[0][4:, D]
    assert 0 <= train.std() < 1e-12


def test_without_validation_all_other_examples_are_trained_on(root):
    data = uci(name="far", root=root, validation=0)
    assert "validation" not in data
    assert len(data["train"][0]) == N - 4


def test_held_out_examples_are_a_function_of_seed_and_split(root):
    a, b = (uci(name="far", root=root)["validation"][1] for _ in range(2))
    assert torch.equal(a, b)
    other = uci(name="far", root=root, seed=1)["validation"][1]
    assert not torch.equal(a, other)


def test_metrics_are_in_the_targets_units(root):
    data = uci(name="far", root=root, split=1)
    assert data["model"] == {"inputs": D + 1}
    net = uci_net(**data["model"])
    surface = ll.LossSurface(net, data["task"], [data["test"]])
    pred = ll.predict(surface, surface.layout.flatten(net))
    _, y, mask = raw(root)
    np.testing.assert_allclose(pred.targets.flatten(), y[mask[1]], rtol=1e-5)
    expected = float(((pred.mean.flatten().numpy() - y[mask[1]]) ** 2).mean() ** 0.5)
    assert pred.metrics()["rmse"] == pytest.approx(expected, rel=1e-5)
    density = torch.distributions.Normal(pred.mean, pred.variance.sqrt())
    nll = -density.log_prob(torch.from_numpy(y[mask[1]])[:, None]).mean()
    assert pred.metrics()["nll_gaussian"] == pytest.approx(float(nll), rel=1e-5)


def test_what_is_not_there(root):
    with pytest.raises(ll.ConfigError, match=r"no such set; in .* there are: far"):
        uci(name="near", root=root)
    with pytest.raises(ll.ConfigError, match="there are: none"):
        uci(name="far", root=root / "other")
    for split in (-1, 2):
        with pytest.raises(ll.ConfigError, match="splits 0 to 1"):
            uci(name="far", root=root, split=split)
    for share in (-0.1, 1.0):
        with pytest.raises(ll.ConfigError, match="share in"):
            uci(name="far", root=root, validation=share)
    for share in (0.001, 0.99):
        with pytest.raises(ll.ConfigError, match="choose another share"):
            uci(name="far", root=root, validation=share)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"test_mask": np.zeros((2, N - 1), bool)}, r"test_mask \(splits, N\)"),
        ({"test_mask": np.zeros((2, N), int)}, "booleans"),
        ({"y": np.zeros(N - 1)}, r"y \(N,\)"),
        ({"y": np.full(N, np.nan)}, "40 examples hold NaN"),
        ({"y": np.full(N, 2.0)}, "nothing to learn"),
        ({"x": None}, "expected arrays"),
    ],
    ids=["mask-length", "mask-kind", "y-length", "nan", "constant-target", "no-x"],
)
def test_files_of_another_form(root, change, what):
    x, y, mask = raw(root)
    arrays = {"x": x, "y": y, "test_mask": mask} | change
    np.savez(root / "bad.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(ll.DataError, match=what):
        uci(name="bad", root=root)
