"""Simplexes that grow around networks."""

import pytest
import torch


@pytest.fixture
def artifact(finished):
    return finished.run.simplex(0)


def test_a_simplex_grows_around_the_annealed_network(finished, artifact):
    simplex = finished.load(artifact).simplex
    network = finished.load(finished.run.annealed(0)).point.weights
    assert torch.equal(simplex.anchors[0], network)
    assert len(simplex.anchors) == 3


def test_the_record_has_a_row_a_vertex_and_no_seconds(finished, artifact):
    growth = finished.load(artifact).growth
    assert growth.vertices.tolist() == [1, 2, 3]
    assert "seconds" not in growth.metrics
    assert all(len(values) == 3 for values in growth.metrics.values())


def test_its_cost_counts_the_points_of_each_step(finished, artifact):
    growth = finished.load(artifact)
    fits, epochs, samples = 2, 1, 2
    assert artifact.passes({artifact.name: growth}) == fits * epochs * samples
