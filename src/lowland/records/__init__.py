"""What came out, as frozen records that go to disk and come back.

A record holds tensors, numbers, strings and dicts of these. `.save(path)` writes `.json` (short
things, to be read by people) or `.npz` (arrays), after the path's ending; `.load(path)` gives the
record back. Nothing is pickled.
"""

from lowland.records.base import Record
from lowland.records.chain import Chain
from lowland.records.cycles import CycleSeries
from lowland.records.diversity import DiversityResult
from lowland.records.evidence import Evidence
from lowland.records.iterates import IterateTable
from lowland.records.landscape import BarrierResult, PathResult, SimilarityResult, SurfaceResult
from lowland.records.linearization import LinearizationResult
from lowland.records.predictive import Predictive
from lowland.records.selection import Selection
from lowland.records.sharpness import SharpnessResult, WidthsResult
from lowland.records.simplex import FunctionsResult, GrowthResult, TernaryResult
from lowland.records.spectrum import SpectrumResult
from lowland.records.table import Table
from lowland.records.tempering import TemperingResult
from lowland.records.training import TrainingLog
from lowland.records.uncertainty import Reliability, RiskCoverage, ShiftCurves

__all__ = [
    "BarrierResult",
    "Chain",
    "CycleSeries",
    "DiversityResult",
    "Evidence",
    "FunctionsResult",
    "GrowthResult",
    "IterateTable",
    "LinearizationResult",
    "PathResult",
    "Predictive",
    "Record",
    "Reliability",
    "RiskCoverage",
    "Selection",
    "SharpnessResult",
    "ShiftCurves",
    "SimilarityResult",
    "SpectrumResult",
    "SurfaceResult",
    "Table",
    "TemperingResult",
    "TernaryResult",
    "TrainingLog",
    "WidthsResult",
]
