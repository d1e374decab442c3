"""Deep ensembles."""

import torch


def test_its_members_are_independent_networks(finished, posterior_of):
    post = posterior_of("ensemble")
    assert post.support == 2
    for i in range(2):
        point = finished.load(finished.run.annealed(i)).point
        assert torch.equal(post.draw(i), point.weights)
    assert not torch.equal(post.draw(0), post.draw(1))
    assert finished.method("ensemble").label(finished.run) == "Deep ensemble of 2"
