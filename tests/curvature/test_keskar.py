import itertools

import pytest
import torch

import lowland as ll
from lowland.curvature import keskar
from lowland.curvature.keskar import KeskarSharpness
from lowland.curvature.random_matrix import RandomMatrix
from lowland.errors import ConfigError
from tests.curvature.nets import EIGENVALUES, MINIMUM, NOISE, quadratic, relu_net, surface_of

WIDTHS = MINIMUM.abs() + 1


def closed_form(radius, half_widths=WIDTHS):
    """The maximum of a separable quadratic in a box, at a corner."""
    rise = (EIGENVALUES * (radius * half_widths) ** 2).sum() / 2
    return 100 * float(rise) / (1 + NOISE)


def test_in_the_full_space_it_is_the_closed_form():
    result = ll.sharpness(quadratic(), MINIMUM)
    assert result.kind == "keskar"
    assert result.radius.tolist() == [1e-3, 5e-4]
    assert result.value.tolist() == pytest.approx([closed_form(1e-3), closed_form(5e-4)], rel=1e-5)


class BoxWithoutOne(KeskarSharpness):
    """A broken twin."""

    def scale(self, weights):
        return weights.abs()


def test_a_box_without_one_is_another_measure():
    result = ll.sharpness(quadratic(), MINIMUM, kind=BoxWithoutOne(), radius=0.1)
    assert float(result) == pytest.approx(closed_form(0.1, MINIMUM.abs()), rel=1e-6)
    assert float(result) < 0.9 * closed_form(0.1)


def matrices(monkeypatch):
    """The random matrices of a test, in order."""
    created = []

    def make(*args, **options):
        created.append(RandomMatrix(*args, **options))
        return created[-1]

    monkeypatch.setattr(keskar, "RandomMatrix", make)
    return created


def test_in_a_line_it_is_the_closed_form(monkeypatch):
    created = matrices(monkeypatch)
    result = ll.sharpness(
        quadratic(), MINIMUM, kind=KeskarSharpness(subspace=1, restarts=4), radius=0.1
    )
    expected = []
    for matrix in created:
        a = matrix.times(torch.ones(1).double())
        bound = 0.1 * (abs(float(a @ MINIMUM / (a @ a))) + 1)
        expected.append(100 * float((EIGENVALUES * (bound * a) ** 2).sum()) / 2 / (1 + NOISE))
    assert len(expected) == 4
    assert result.values[0].tolist() == pytest.approx(expected, rel=1e-5)
    assert float(result) == pytest.approx(sum(expected) / 4, rel=1e-5)  # the mean of subspaces


def test_in_a_subspace_it_is_a_corner_from_which_nothing_ascends(monkeypatch):
    created = matrices(monkeypatch)
    kind = KeskarSharpness(subspace=3, restarts=5)
    result = ll.sharpness(quadratic(), MINIMUM, kind=kind, radius=0.1)
    for matrix, value in zip(created, result.values[0].tolist(), strict=True):
        a = torch.stack([matrix.times(z) for z in torch.eye(3).double()], 1)
        bound = 0.1 * ((torch.linalg.pinv(a) @ MINIMUM).abs() + 1)
        maxima = []
        for signs in itertools.product((-1.0, 1.0), repeat=3):
            z = bound * torch.tensor(signs).double()
            slope = a.T @ (EIGENVALUES * (a @ z))
            if bool((slope * z >= 0).all()):
                maxima.append(100 * float(slope @ z) / 2 / (1 + NOISE))
        assert min(abs(value / maximum - 1) for maximum in maxima) < 1e-4


def test_it_is_not_invariant():
    surface, point = surface_of(relu_net())
    assert ll.sharpness(surface, point, radius=0.01).invariant is False
    kind = KeskarSharpness(subspace=5, restarts=2)
    assert ll.sharpness(surface, point, kind=kind, radius=0.01).invariant is False


def test_what_it_does_not_suit_raises():
    net = torch.nn.Linear(1, 1, bias=False)
    data = [(torch.ones(2, 1), torch.zeros(2, 1))]
    density = ll.LossSurface(net, ll.Regression(noise_variance=1e-4), data)
    with pytest.raises(ConfigError, match=r"1 \+ L\(w\)"):
        ll.sharpness(density, torch.zeros(1))
    with pytest.raises(ConfigError, match="subspace: expected a whole number from 1 to 5"):
        ll.sharpness(quadratic(), MINIMUM, kind=KeskarSharpness(subspace=100))
    for options in ({"subspace": 0}, {"restarts": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            KeskarSharpness(**options)
