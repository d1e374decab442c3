"""ESPRO: draws from simplexes that grew around annealed networks."""

import torch

from lowland.posteriors import Uniform


def test_draws_lie_in_the_simplex(finished, posterior_of):
    post = posterior_of("espro")
    assert isinstance(post, Uniform)
    anchors = finished.load(finished.run.simplex(0)).simplex.anchors.double()
    w = post.draw(5).double()
    edges = (anchors[1:] - anchors[0]).T
    shares = torch.linalg.lstsq(edges, (w - anchors[0])[:, None]).solution[:, 0]
    torch.testing.assert_close(edges @ shares, w - anchors[0], rtol=1e-3, atol=1e-4)
    assert bool((shares > -1e-3).all())
    assert float(shares.sum()) < 1 + 1e-3


def test_one_component_has_the_plain_title(finished):
    assert finished.method("espro").label(finished.run) == "ESPRO"
    several = finished.run.config.simplex.model_copy(update={"components": 2})
    config = finished.run.config.model_copy(update={"simplex": several})
    run = type(finished.run)(config, finished.run.setup)
    assert finished.method("espro").label(run) == "ESPRO of 2"
    assert len(finished.method("espro").parts(run)) == 4
