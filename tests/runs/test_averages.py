"""SWA and EMA weights of a trajectory, ready to be served."""

import torch


def test_swa_is_the_mean_of_the_iterates(finished):
    average = finished.load(finished.run.average(0, "swa"))
    iterates = finished.load(finished.run.averaged(0)).iterates
    mean = torch.stack([iterates[i].weights for i in range(len(iterates))]).double().mean(0)
    torch.testing.assert_close(average.weights.double(), mean, rtol=1e-5, atol=1e-6)


def test_the_ema_is_that_of_the_trajectory(finished):
    average = finished.load(finished.run.average(0, "ema"))
    assert torch.equal(average.weights, finished.load(finished.run.averaged(0)).ema.point.weights)


def test_an_average_is_a_state_dict_for_people(finished):
    for name in ("average-0", "ema-0"):
        point = finished.results.graph.load(
            finished.run.average(0, "swa" if name == "average-0" else "ema")
        )
        layout = finished.run.setup.layout
        folder = finished.folder / "weights"
        assert (folder / f"{name}.safetensors").is_file()
        model = finished.run.setup.model(0)
        layout.load_(model, point.weights)
        assert torch.equal(layout.flatten(model), point.weights)
