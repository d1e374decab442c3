"""Model averages over posteriors that commands make, and their table."""

import pytest
import torch

import lowland as ll
from lowland.artifacts import Graph, Source
from lowland.posteriors import Ensemble, Gaussian
from lowland.records import Table
from lowland.runs.config import check_config
from lowland.runs.posterior_predictions import AveragesTable, PosteriorPrediction, metrics_row
from lowland.runs.run import Run
from lowland.runs.setup import Setup
from tests.runs.test_predictions import BODY

POINTS = torch.randn(2, 15, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def run():
    config = check_config(BODY, where="test")
    return Run(config, Setup(config))


def prediction(run, label, posterior, *, seed=0, draws=4):
    source = Source(f"points/{label}", posterior, {"points": label})
    return PosteriorPrediction(
        run,
        label.lower(),
        label,
        [source],
        lambda inputs: inputs[source.name],
        draws=draws,
        seed=seed,
    )


def test_an_ensemble_counts_whole_and_other_posteriors_draw_by_draw(run, tmp_path):
    posteriors = {
        "Ensemble": Ensemble(POINTS),
        "Gaussian": Gaussian(POINTS[0], torch.full((15,), 0.1)),
    }
    artifacts = [prediction(run, label, post, seed=7) for label, post in posteriors.items()]
    table = AveragesTable(artifacts)
    graph = Graph(tmp_path)
    graph.build([table])
    surface, test = run.setup.surface, run.setup.test
    expected = {
        "Ensemble": ll.predict(surface, posteriors["Ensemble"], test),
        "Gaussian": ll.predict(surface, posteriors["Gaussian"], test, samples=4, seed=7),
    }
    rows = list(Table.load(tmp_path / "records" / "averages.json").rows())
    assert rows == [metrics_row(label, pred) for label, pred in expected.items()]
    assert [row["samples"] for row in rows] == [2, 4]
    for artifact in artifacts:
        assert torch.equal(graph.load(artifact).probs, expected[artifact.label].probs)


def test_the_seed_and_the_number_of_draws_are_settings(run):
    post = Ensemble(POINTS)
    prints = {
        prediction(run, "Ensemble", post, seed=seed, draws=draws).fingerprint
        for seed in (0, 1)
        for draws in (4, 5)
    }
    assert len(prints) == 4
