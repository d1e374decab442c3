import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import chi2

from lowland.errors import ConfigError, DataError
from lowland.plots import posterior
from lowland.plots.posterior import _dots, _ellipse, _shading
from lowland.records import Chain, SurfaceResult
from tests.plots.contract import FigureContract, assert_readable, assert_whole
from tests.plots.test_trace import chains, grid

X = torch.linspace(-4, 4, 61, dtype=torch.float64)


def plane(density=None, **options):
    """A normal density, or another."""
    values = -(X**2 + X[:, None] ** 2) / 2 if density is None else density(X[None], X[:, None])
    return SurfaceResult(X, X, {"log_density": values}, batchnorm="none", **options)


def banana():
    return plane(lambda x, y: -(x**2) / 2 - ((y + 3 - x**2) / 0.15) ** 2 / 2, examples=405)


class TestPosterior(FigureContract):
    figure = "posterior"

    def record(self):
        return plane(marks={"MAP": torch.zeros(2)}, examples=405, about={"split": "training"})

    def odd_records(self):
        holes = plane()
        holes.log_density[:5] = math.nan
        holes.log_density[5:9] = -math.inf
        flat = plane(lambda x, y: 0 * (x + y))
        ridge = plane(lambda x, y: -((x - y) ** 2) / 0.02)
        wide = SurfaceResult(X, X / 4, plane().metrics)
        thin = SurfaceResult(X, X / 100, plane().metrics)
        records = {"holes": holes, "flat": flat, "ridge": ridge, "wide": wide, "thin": thin}
        return records | {"banana": banana()}

    def test_nothing_of_it_is_cut_off(self):
        super().test_nothing_of_it_is_cut_off()
        everything = {
            "chain": {"a sampler": chains(), "another": chains(1), "grid": grid()},
            "gaussians": {"VI": (torch.zeros(2), torch.eye(2))},
            "path": torch.stack([X, X], 1),
        }
        for name, record in (self.odd_records() | {"": self.record()}).items():
            ax = self.draw(record, **everything)
            assert_readable(ax)
            assert_whole(ax, name)


def ticks(ax):
    return [t.get_text() for t in ax.child_axes[0].get_yticklabels()]


def dots(ax):
    return {c.get_label(): c for c in ax.collections if not c.get_label().startswith("_")}


# -- bands -----------------------------------------------------------------------------------------


def test_bands_end_at_standard_deviations_of_a_gaussian():
    ax = posterior(plane())
    (lines,) = (c for c in ax.collections if not c.filled and hasattr(c, "levels"))
    radii = [np.linalg.norm(path.vertices, axis=1) for path in lines.get_paths()]
    for sd, radius in enumerate(radii[:5], start=1):
        inside = radius[radius < 3.99]
        np.testing.assert_allclose(inside, sd, atol=0.03)
    assert ticks(ax)[:6] == ["0", "0.5", "2", "4.5", "8", "12.5"]


def test_the_temperature_divides_what_was_not_tempered():
    once = plane()
    hot = SurfaceResult(X, X, {"log_density": 100 * once.log_density})
    a, b = posterior(once), posterior(hot, temperature=100.0)
    assert ticks(a) == ticks(b)
    assert ticks(posterior(hot)) != ticks(a)


def test_shades_grow_with_the_standard_deviation_and_go_on_beyond():
    values = -np.array([0.0, 0.5, 1.125, 2.0, 12.5, 50.0, 1600.0, 3200.0, math.inf, math.nan])
    shaded, drop = _shading(values + 7, "log_density", "viridis")
    np.testing.assert_allclose(shaded.levels[[0, 1, 5, -1]], [0, 0.5, 12.5, 1600])
    np.testing.assert_allclose(shaded.shade(drop[:8]), [0, 1, 1.5, 2, 5, 7, 12, 13])
    assert shaded.over
    assert np.isfinite(drop[8])  # where the density is zero is over the last level
    assert drop[8] >= 3200
    assert np.isnan(drop[9])
    low, _ = _shading(-np.array([0.0, 0.1]), "log_density", "viridis")
    assert low.levels.tolist() == [0.0, 0.5]
    assert not low.over


def test_an_infinite_density_is_no_maximum():
    record = plane()
    record.log_density[0, 0] = math.inf
    ax = posterior(record)
    assert ticks(ax)[:3] == ["0", "0.5", "2"]
    assert "grey: NaN or infinite, 1 of 3,721" in ax.texts[-1].get_text().replace("\n", " ")


# -- what is drawn over them -----------------------------------------------------------------------


def test_dots_are_draws_of_all_chains_in_the_planes_coordinates():
    record = chains(4, draws=50)
    ax = posterior(plane(), chain=record, coordinates=(2, 0))
    ((name, plotted),) = dots(ax).items()
    assert name == "ess samples"
    np.testing.assert_array_equal(plotted.get_offsets(), record.draws[:, [2, 0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("coordinate 2", "coordinate 0")
    assert "bands are a slice, dots a projection" in ax.texts[-1].get_text().replace("\n", " ")
    axes = posterior(plane(about={"coordinates": [2, 0]}), chain=record)
    np.testing.assert_array_equal(dots(axes)["ess samples"].get_offsets(), record.draws[:, [2, 0]])


def test_many_draws_are_thinned_evenly():
    record = chains(4, draws=1000)
    plotted = posterior(plane(), chain=record, dots=100)
    xy = dots(plotted)["ess samples"].get_offsets()
    assert len(xy) == 100
    rows = [int((record.draws[:, :2] == torch.tensor(p)).all(1).nonzero()) for p in np.array(xy)]
    assert np.bincount(np.array(rows) // 1000).tolist() == [25, 25, 25, 25]
    assert "100 draws" in plotted.texts[-1].get_text()


def test_draws_with_weights_come_as_often_as_they_weigh():
    record = grid(21)
    xy, areas = _dots("", record, (0, 1), 4000)
    often = areas / areas.sum()
    mean, second = often @ xy, often @ xy**2
    np.testing.assert_allclose(mean, record.mean, atol=0.02)
    np.testing.assert_allclose(second, record.covariance.diagonal(), rtol=0.02)
    # as dots of equal area they would be spread as the grid is
    assert (xy**2).mean(0).min() > 1.2 * float(record.covariance.diagonal().max())


def test_records_by_name_have_a_colour_each():
    ax = posterior(plane(), chain={"ESS": chains(), "NUTS": chains(seed=1)})
    plotted = dots(ax)
    assert list(plotted) == ["ESS", "NUTS"]
    faces = {tuple(c.get_facecolor()[0]) for c in plotted.values()}
    assert len(faces) == 2


def test_the_ellipse_is_where_the_gaussian_is_that_far_from_its_mean():
    mean = torch.tensor([1.0, -2.0], dtype=torch.float64)
    covariance = torch.tensor([[4.0, 1.5], [1.5, 1.0]], dtype=torch.float64)
    xy = _ellipse(mean, covariance, 3.0)
    off = xy - mean
    distance = (off @ torch.linalg.inv(covariance) * off).sum(1).sqrt()
    np.testing.assert_allclose(distance, 3.0)
    np.testing.assert_allclose(xy[0], xy[-1])
    # half the covariance's rows are no marginal: it is the ellipse of 98.9% of the draws
    draws = torch.distributions.MultivariateNormal(mean, covariance)
    torch.manual_seed(0)
    z = draws.sample((20000,)) - mean
    inside = ((z @ torch.linalg.inv(covariance) * z).sum(1) < 9).double().mean()
    assert float(inside) == pytest.approx(chi2(2).cdf(9), abs=0.003)


def test_ellipses_are_the_marginals_of_the_planes_coordinates():
    root = torch.tensor([[1.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.25, -0.5, 0.5]])
    covariance, mean = root @ root.T, torch.tensor([0.5, 0.0, -0.5])
    ax = posterior(plane(), gaussians={"VI": (mean, covariance)}, coordinates=(2, 0), sigmas=2)
    (line,) = (line for line in ax.lines if line.get_label() == "VI, 2 sd")
    x, y = line.get_xdata(), line.get_ydata()
    assert x.max() == pytest.approx(-0.5 + 2 * math.sqrt(covariance[2, 2]), rel=1e-3)
    assert y.max() == pytest.approx(0.5 + 2 * math.sqrt(covariance[0, 0]), rel=1e-3)


def test_a_path_and_the_records_own_overlays_are_drawn():
    steps = torch.stack([X[::10], X[::10] / 2], 1)
    record = plane(curves={"level": torch.rand(4, 2)})
    for path, name in ((steps, "SGD"), ({"SGLD": steps}, "SGLD")):
        ax = posterior(record, path=path)
        labels = {line.get_label(): line for line in ax.lines}
        np.testing.assert_allclose(labels[name].get_xydata(), steps)
        assert "level" in labels
    assert not record.paths
    assert list(record.curves) == ["level"]


def test_the_users_axes_keep_their_neighbours():
    figure = Figure(figsize=(12, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    right.plot([0, 1])
    assert posterior(plane(), ax=left) is left
    figure.canvas.draw()
    assert left.get_tightbbox().x1 <= right.get_tightbbox().x0
    assert_readable(left)


# -- what cannot be drawn --------------------------------------------------------------------------


def test_what_is_no_plane_of_a_density_raises():
    with pytest.raises(ConfigError, match="expected a plane, got a line"):
        posterior(SurfaceResult(X, None, {"log_density": -X}))
    with pytest.raises(ConfigError, match="expected one of loss, got 'log_density'"):
        posterior(SurfaceResult(X, X, {"loss": plane().log_density}))
    with pytest.raises(DataError, match="no finite values"):
        posterior(plane(lambda x, y: math.nan * (x + y)))
    for options in ({"temperature": 0.0}, {"sigmas": -1.0}):
        with pytest.raises(ConfigError, match=r"(temperature|sigmas): expected a number above 0"):
            posterior(plane(), **options)


def test_missing_coordinates_raise():
    with pytest.raises(ConfigError, match="two different ones from 0 on, got 1 and 1"):
        posterior(plane(), coordinates=(1, 1))
    one = Chain(torch.zeros(1, 4, 1), torch.zeros(1, 4), sampler="ess")
    with pytest.raises(
        ConfigError, match="chain: the plane has coordinates 0 and 1, the chain or Gaussian has 1"
    ):
        posterior(plane(), chain=one)
    with pytest.raises(ConfigError, match="VI: the plane has coordinates 0 and 5"):
        posterior(plane(), gaussians={"VI": (torch.zeros(2), torch.eye(2))}, coordinates=(0, 5))
    with pytest.raises(ConfigError, match="dots: expected a whole number of at least 1, got 0"):
        posterior(plane(), chain=chains(), dots=0)
