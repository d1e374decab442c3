from dataclasses import replace

import numpy as np
import pytest
import torch

import lowland as ll
from tests.plots.contract import FigureContract
from tests.records.examples import EXAMPLES


class TestSpectrum(FigureContract):
    figure = "spectrum"

    def record(self):
        return EXAMPLES["SpectrumResult"][0]

    def odd_records(self):
        record = self.record()
        none = torch.zeros(0)
        return {
            "one probe": EXAMPLES["SpectrumResult"][1],
            "no eigenvalues": replace(record, eigenvalues=none, residuals=none),
            "no probes": replace(record, nodes=torch.zeros(0, 3), weights=torch.zeros(0, 3)),
            "zero": replace(record, eigenvalues=none, residuals=none, nodes=0 * record.nodes),
        }

    def test_density_band_and_spikes_are_those_of_the_record(self):
        record = self.record()
        ax = self.draw(record, width=0.2)
        (line,) = (line for line in ax.lines if line.get_label() == "density")
        density = record.smoothed(width=0.2)
        floor = ax.get_ylim()[0]
        np.testing.assert_allclose(line.get_ydata(), density.mean.numpy().clip(floor))
        assert ax.get_yscale() == "log"
        spikes = [c for c in ax.collections if "leading" in str(c.get_label())]
        assert [segment[0, 0] for segment in spikes[0].get_segments()] == [3.0, 2.0]

    def test_nothing_to_draw_and_bad_widths_are_refused(self):
        record = self.odd_records()["no eigenvalues"]
        with pytest.raises(ll.DataError, match="no eigenvalues and no density"):
            self.draw(replace(record, nodes=torch.zeros(0, 3), weights=torch.zeros(0, 3)))
        with pytest.raises(ll.ConfigError, match="width: expected a number above 0"):
            self.draw(record, width=-1)
