"""Many weight vectors over a loader: one engine, tables of metrics, model averages."""

from lowland.evaluate.function_draws import functions, regular_grid
from lowland.evaluate.likelihood import LogLikelihood
from lowland.evaluate.pool import pool
from lowland.evaluate.predict import predict
from lowland.evaluate.table import evaluate

__all__ = ["LogLikelihood", "evaluate", "functions", "pool", "predict", "regular_grid"]
