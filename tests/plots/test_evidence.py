from lowland.records import Evidence
from tests.plots.contract import FigureContract


class TestEvidence(FigureContract):
    figure = "evidence"

    def record(self):
        return {
            "PCA of the walk": Evidence(-812.4, 0.3, "tempering", 10_000),
            "random": Evidence(-840.0, 0.0, "grid", 4_000),
        }

    def odd_records(self):
        return {"one": Evidence(-3.0, 0.0, "grid", 10), "wide": Evidence(1e6, 1e3, "tempering", 9)}

    def test_points_stand_at_the_evidence_with_two_errors(self):
        ax = self.draw(self.record())
        points = [c.lines[0].get_xdata()[0] for c in ax.containers]
        assert points == [-812.4, -840.0]
        (low, _), _ = ax.containers[0].lines[2][0].get_segments()[0]
        assert abs(low + 813.0) < 1e-9
