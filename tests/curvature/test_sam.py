import pytest
import torch

import lowland as ll
from lowland.curvature.sam import SAMSharpness
from tests.curvature.nets import MINIMUM, quadratic


def test_at_a_minimum_it_is_the_largest_eigenvalue():
    result = ll.sharpness(quadratic(), MINIMUM, kind="sam", radius=[0.05, 0.1])
    torch.testing.assert_close(result.value, 4.0 * result.radius**2 / 2, rtol=1e-3, atol=0)
    assert (result.values <= result.value[:, None]).all()


def test_one_step_is_the_formula_of_the_paper():
    surface, w = quadratic(), MINIMUM + 1.0
    _, g = surface.value_and_grad(w)
    rise = float(surface(w + 0.1 * g / g.norm()) - surface(w))
    result = ll.sharpness(surface, w, kind=SAMSharpness(steps=1, restarts=1), radius=0.1)
    assert float(result) == pytest.approx(rise)
    many = ll.sharpness(surface, w, kind=SAMSharpness(steps=30), radius=0.1)
    assert float(many) > float(result)
