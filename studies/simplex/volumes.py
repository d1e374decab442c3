"""Results for a volume between modes: its growth, and test errors at its random points."""

from __future__ import annotations

from pathlib import Path

from lowland.cli.simplex_folder import COMPLEX, SimplexFolder
from lowland.core.threads import using_threads
from lowland.posteriors import Uniform
from lowland.records import GrowthResult, Table

COLUMNS = {  # key of the growth's table -> heading, format
    "log_volume": ("log volume", "{:.2f}"),
    "height": ("height of the new one", "{:.2f}"),
    "loss_mean": ("mean train loss", "{:.4f}"),
    "loss_max": ("highest train loss", "{:.4f}"),
    "test_error_mean": ("mean test error", "{:.4f}"),
    "test_error_max": ("highest test error", "{:.4f}"),
}


def point_metrics(path: Path, points: int) -> Table:
    """Test metrics of the modes, then of random points of the volume between them."""
    stage = SimplexFolder.open(path, trust=True)  # this study made the runs
    file = stage.record("points.json")
    if not file.is_file():
        shape, setup = stage.shapes()[COMPLEX], stage.setup
        uniform = Uniform(shape)
        weights = [*shape.anchors[: len(stage.names)], *map(uniform.draw, range(points))]
        with using_threads(2):
            setup.surface.evaluate(iter(weights), setup.test).save(file)
    return Table.load(file)


def growth_table(result: GrowthResult) -> list[str]:
    rows = []
    for row in result.table().rows():
        note = "" if row["kept"] else " (left out)"
        cells = {
            title: "-" if row[name] != row[name] else form.format(row[name])
            for name, (title, form) in COLUMNS.items()
            if name in row
        }
        rows.append({result.unit: f"{row[result.unit]:.0f}{note}"} | cells)
    table = Table.from_rows(rows).to_markdown()
    return [table, "", result.stop_reason] if result.stop_reason else [table]


def error_sentence(points: Table) -> str:
    """A sentence on test errors at points of a volume; the first two rows are the modes."""
    error = points.error.double()
    modes, samples = error[:2], error[2:]
    worst = 100 * float(samples.max() - modes.max())
    return (
        f"Test error of the two modes: {modes[0]:.4f} and {modes[1]:.4f}; at {len(samples)} random "
        f"points of the volume {samples.min():.4f} to {samples.max():.4f}, "
        f"mean {samples.mean():.4f}: at most {worst:+.2f} points from the worse mode, "
        f"{int((samples <= modes.max() + 0.01).sum())} of them within one point of it."
    )
