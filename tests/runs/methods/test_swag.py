"""SWAG: a Gaussian from the moments of the iterates."""

import pytest
import torch

from lowland.runs.methods.swag import DiagonalSWAG, gaussian


@pytest.mark.parametrize("rank", [0, 2])
def test_the_gaussian_has_the_moments_of_the_iterates(finished, rank):
    run = finished.run
    trained = finished.load(run.averaged(0))
    post = gaussian(run, {run.averaged(0).name: trained}, [run.averaged(0)], rank)
    iterates = trained.iterates
    stacked = torch.stack([iterates[i].weights for i in range(len(iterates))]).double()
    torch.testing.assert_close(post.mean.double(), stacked.mean(0), rtol=1e-5, atol=1e-6)
    expected = iterates.swag(rank=2).posterior() if rank else None
    if expected is not None:
        assert torch.equal(post.draw(3), expected.draw(3))


def test_the_diagonal_is_another_posterior(finished):
    run = finished.run
    inputs = {run.averaged(0).name: finished.load(run.averaged(0))}
    diagonal = DiagonalSWAG().posterior(run, inputs)
    assert not torch.equal(diagonal.draw(0), gaussian(run, inputs, [run.averaged(0)], 2).draw(0))
    assert torch.equal(diagonal.draw(0), gaussian(run, inputs, [run.averaged(0)], 0).draw(0))
