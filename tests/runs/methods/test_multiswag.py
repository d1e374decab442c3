"""MultiSWAG: a mixture of SWAG's Gaussians."""

from lowland.posteriors import Mixture
from lowland.runs.methods.swag import gaussian


def test_its_components_are_the_gaussians_of_independent_trajectories(finished):
    run, method = finished.run, finished.method("multiswag")
    inputs = finished.inputs(method)
    post = method.posterior(run, inputs)
    assert isinstance(post, Mixture)
    means = {float(gaussian(run, inputs, [run.averaged(i)], 2).mean.sum()) for i in range(2)}
    assert {float(component.mean.sum()) for component in post.components} == means
    assert len(means) == 2
