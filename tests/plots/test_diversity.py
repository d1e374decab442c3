import pytest
import torch

from lowland.errors import ConfigError
from lowland.records import DiversityResult
from tests.plots.contract import FigureContract


def diversity(n: int, **fields) -> DiversityResult:
    matrix = torch.rand(n, n, generator=torch.Generator().manual_seed(0)).double()
    cosine = 2 * matrix - 1
    names = [f"step {100 * i}" for i in range(n)]
    return DiversityResult(names, cosine, None, matrix, **fields)


class TestDiversity(FigureContract):
    figure = "diversity"

    def record(self):
        return diversity(4, kl=torch.full((4, 4), 0.25).double())

    def odd_records(self):
        return {"many": diversity(30), "one": diversity(1), "equal": diversity(2)}

    def test_the_metric_is_the_caller_s_or_the_divergence(self):
        record = self.record()
        assert self.draw(record).get_xlabel() == "KL divergence, row from column (nats)"
        ax = self.draw(record, metric="cosine_mean")
        assert "cosine" in ax.get_xlabel()
        assert ax.images[0].get_clim() == (-1.0, 1.0)
        with pytest.raises(ConfigError, match="expected one of cosine_mean, distance, kl, got 'n"):
            self.draw(record, metric="nll")
