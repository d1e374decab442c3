import math

import torch

from lowland.records import Selection
from tests.plots.contract import FigureContract


def selection(difference, error, best):
    nll = 1 + torch.tensor(difference)
    columns = nll, torch.full_like(nll, 0.1), torch.tensor(difference), torch.tensor(error)
    names = ["SGD", "SWA", "the last eighth"][: len(nll)]
    return Selection(names, *columns, "SGD", best, items=100)


class TestSelection(FigureContract):
    figure = "selection"

    def record(self):
        return selection([0.0, -0.05, 0.02], [0.0, 0.01, 0.03], "SWA")

    def odd_records(self):
        return {
            "one": selection([0.0], [0.0], "SGD"),
            "diverged": selection([0.0, math.inf], [0.0, math.nan], "SGD"),
        }

    def test_points_stand_at_the_differences_with_one_error(self):
        ax = self.draw(self.record())
        points = [float(c.lines[0].get_xdata()[0]) for c in ax.containers]
        assert [round(point, 6) for point in points] == [0.0, -0.05, 0.02]
        (low, _), (high, _) = ax.containers[1].lines[2][0].get_segments()[0]
        assert abs(high - low - 0.02) < 1e-6

    def test_a_candidate_that_diverged_has_no_point(self):
        assert len(self.draw(self.odd_records()["diverged"]).containers) == 1
