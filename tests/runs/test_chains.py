"""The posterior in a subspace: its span, its chains, and the plane of a picture."""

import pytest
import torch

from lowland.errors import ConfigError
from lowland.runs.chains import evaluations, missing_diagnostics, posterior_title, require
from lowland.runs.shape_sections import Inference


def test_the_subspace_is_spanned_by_the_deviations_of_the_iterates(finished):
    sub = finished.load(finished.run.subspace())
    expected = finished.load(finished.run.averaged(0)).iterates.pca(rank=2)
    assert sub.k == 2
    torch.testing.assert_close(sub.center, expected.center)
    torch.testing.assert_close(sub.basis.abs(), expected.basis.abs(), rtol=1e-4, atol=1e-6)


def test_chains_know_their_subspace_and_not_how_long_they_took(finished):
    run = finished.run
    artifact = run.chain()
    chain = artifact.within({run.chain().name: finished.load(artifact), run.subspace().name:
                             finished.load(run.subspace())})  # fmt: skip
    assert chain.coords.shape == (4, 5, 2)
    assert chain.temperature == 20
    assert "seconds" not in chain.about
    w = chain.posterior().draw(0)
    sub = finished.load(run.subspace())
    z = sub.basis.double() @ (w - sub.center).double() / sub.basis.double().square().sum(1)
    torch.testing.assert_close(sub.point(z).weights, w, rtol=1e-3, atol=1e-4)


def test_a_log_density_costs_a_third_of_a_training_step(finished):
    artifact = finished.run.chain()
    chain = finished.load(artifact)
    assert artifact.passes({artifact.name: chain}) == pytest.approx(evaluations(chain) / 3)


def test_fewer_examples_cost_less(finished):
    total = finished.run.setup.clean.num_examples
    assert finished.run.setup.share_of(None) == 1
    assert finished.run.setup.share_of(total // 2) == pytest.approx(0.5, abs=0.01)
    assert finished.run.setup.share_of(10 * total) == 1


def test_the_plane_shows_the_log_posterior_and_the_iterates(finished):
    record = finished.load(finished.run.posterior_plane())
    assert record.y is not None
    assert list(record.paths) == ["SGD"]


def test_titles_are_those_of_the_paper():
    assert posterior_title(Inference(kind="curve", sampler="nuts", rank=2)) == "Curve + NUTS"


@pytest.mark.parametrize(
    ("settings", "iterates", "words"),
    [
        ({"rank": 5}, [1, 2, 3], "rank: expected at most 2, which 3 iterates span, got 5"),
        ({"kind": "random", "rank": 10_000}, None, "rank: expected at most 610"),
    ],
)
def test_too_many_directions_are_refused_before_anything_is_trained(
    finished, settings, iterates, words
):
    with pytest.raises(ConfigError, match=words):
        require(finished.run.setup, Inference(**settings), iterates=iterates)


def test_one_chain_needs_no_diagnostics(monkeypatch):
    monkeypatch.setattr("lowland.runs.chains.find_spec", lambda name: None)
    assert missing_diagnostics(Inference(chains=1)) is None
    assert missing_diagnostics(Inference(sampler="vi")) is None
    assert "arviz-stats" in missing_diagnostics(Inference(chains=2))
