"""What is told of a volume between modes: how it grew, and test errors at random points of it."""

from __future__ import annotations

from pathlib import Path

from lowland.cli.simplex_folder import COMPLEX, SimplexFolder
from lowland.core.threads import using_threads
from lowland.posteriors import Uniform
from lowland.records import GrowthResult, Table

COLUMNS = {  # of a growth's table -> heading, format
    "log_volume": ("log volume", "{:.2f}"),
    "height": ("height of the new one", "{:.2f}"),
    "loss_mean": ("mean train loss", "{:.4f}"),
    "loss_max": ("highest train loss", "{:.4f}"),
    "test_error_mean": ("mean test error", "{:.4f}"),
    "test_error_max": ("highest test error", "{:.4f}"),
}


def sampled(path: Path, points: int) -> Table:
    """Test figures at random points of the volume between two modes, the modes first."""
    stage = SimplexFolder.open(path, trust=True)  # the runs are this study's
    file = stage.record("points.json")
    if not file.is_file():
        shape, setup = stage.shapes()[COMPLEX], stage.setup
        drawn = Uniform(shape)
        weights = [*shape.anchors[: len(stage.names)], *map(drawn.draw, range(points))]
        with using_threads(2):
            setup.surface.evaluate(iter(weights), setup.test).save(file)
    return Table.load(file)


def growth(found: GrowthResult) -> list[str]:
    table = found.table()
    names = [name for name in COLUMNS if name in table.columns]
    lines = head([found.unit, *(COLUMNS[name][0] for name in names)])
    for row in table.rows():
        cells = [
            "-" if row[name] != row[name] else COLUMNS[name][1].format(row[name]) for name in names
        ]
        left = "" if row["kept"] else " (left out)"
        lines.append(f"| {row[found.unit]:.0f}{left} | " + " | ".join(cells) + " |")
    return [*lines, "", found.stop_reason] if found.stop_reason else lines


def head(cells: list[str]) -> list[str]:
    return ["| " + " | ".join(cells) + " |", "| " + " | ".join(["---"] * len(cells)) + " |"]


def inside(points: Table) -> str:
    """A sentence about test errors at points of a volume; the two modes are the first rows."""
    error = points.error.double()
    modes, drawn = error[:2], error[2:]
    worst = 100 * float(drawn.max() - modes.max())
    return (
        f"Test error of the two modes: {modes[0]:.4f} and {modes[1]:.4f}; at {len(drawn)} random "
        f"points of the volume {drawn.min():.4f} to {drawn.max():.4f}, mean {drawn.mean():.4f}: "
        f"at most {worst:+.2f} points from the worse mode, "
        f"{int((drawn <= modes.max() + 0.01).sum())} of them within one point of it."
    )
