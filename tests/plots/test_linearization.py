"""Slopes and terms as the picture shows them."""

import numpy as np
import pytest
import torch

from lowland.errors import ConfigError
from lowland.plots import linearization
from lowland.records import LinearizationResult
from lowland.records.linearization import TERMS
from tests.plots.contract import FigureContract


def record(n=3, *, scales=(1.0, 0.5, 0.25), names=None, height=1.0):
    g = torch.Generator().manual_seed(0)
    sizes = dict(zip(TERMS, (1.0, 0.9, 0.3, 0.02), strict=True))
    terms = {k: height * size * (1 + torch.rand(n, 5, generator=g)) for k, size in sizes.items()}
    mean_terms = {k: values.mean(0) for k, values in terms.items()}
    s = torch.tensor(scales, dtype=torch.float64)
    items = 1 + torch.rand(5, generator=g)
    by_scale = height * 0.1 * s[:, None] ** 2 * items, height * s[:, None] * items
    return LinearizationResult(
        1 + torch.rand(n, generator=g), terms, mean_terms, s, *by_scale, names
    )


class TestLinearization(FigureContract):
    figure = "linearization"

    def record(self):
        return record()

    def odd_records(self):
        return {
            "one scale": record(scales=(1.0,)),
            "named": record(names=["SGD", "the second cycle", "the third cycle"], scales=(1.0,)),
            "many members": record(40, scales=(1.0,)),
            "equal": record(height=0.0),
            "six scales": record(scales=tuple(0.5**i for i in range(6))),
        }


def lines(ax):
    return {line.get_label(): line.get_xydata() for line in ax.lines}


def test_lines_by_scale_have_the_means_and_slopes_of_the_record():
    one = record()
    ensemble, members = lines(linearization(one)).items()
    assert ensemble[0] == "ensemble and average, slope 2.00"
    assert members[0] == "two consecutive members, slope 1.00"
    distance = one.scales * one.distance.mean()
    for (_, xy), values in ((ensemble, one.ensemble), (members, one.consecutive)):
        np.testing.assert_allclose(xy, torch.stack([distance, values.mean(1)], 1))


def test_lines_by_member_have_the_mean_norms_of_its_terms():
    one = record()
    ax = linearization(one, by="member")
    for (label, xy), name in zip(lines(ax).items(), TERMS, strict=True):
        assert label.startswith(name.split("_")[0].replace("first", "first-").rstrip("-"))
        np.testing.assert_allclose(xy[:, 1], one.terms[name].mean(1))
    assert lines(linearization(record(scales=(1.0,)))).keys() == lines(ax).keys()


def test_zeros_have_no_point():
    for xy in lines(linearization(record(height=0.0))).values():
        assert np.isnan(xy[:, 1]).all()


def test_an_unknown_picture_names_those_there_are():
    with pytest.raises(ConfigError, match="expected one of scale, member, got 'layer'"):
        linearization(record(), by="layer")
