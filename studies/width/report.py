"""Tables and pictures of the study, from its records."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from measurements import RAYS
from solutions import METHODS

from lowland import plots
from lowland.records import PathResult, SurfaceResult, Table, WidthsResult


def tables(results: Path) -> str:
    """Solutions and widths, as Markdown; what is missing is left out."""
    parts = []
    machine = results / "machine.txt"
    if machine.exists():
        parts.append(machine.read_text().strip())
    rows = []
    for path in sorted(results.glob("seed*-solutions.json")):
        for row in Table.load(path).rows():
            metrics = {
                name: f"{row[name]:.4f}" for name in row if name.startswith(("train", "test"))
            }
            size = {name: f"{row[name]:.1f}" for name in ("norm", "distance")}
            rows.append({"seed": path.stem[4], "solution": row["solution"], **metrics, **size})
    if rows:
        parts += [
            "Solutions, on all examples; distance: between SWA and SGD.",
            Table.from_rows(rows).to_markdown(),
        ]
    rows = [row for path in sorted(results.glob("seed*-rays-*-SWA.json")) for row in widths(path)]
    if rows:
        parts += [
            "Where the training loss has risen by 0.1 along a ray, in units of the direction: mean "
            "and range over the same rays from both solutions, and on how many SWA is wider.",
            Table.from_rows(rows).to_markdown(),
        ]
    return "\n\n".join(parts) or "No cell is there yet."


def widths(path: Path) -> list[dict[str, str]]:
    """The row of one pair of solutions."""
    seed, _, rays, _ = path.stem.split("-")
    other = path.with_name(path.name.replace("-SWA", "-SGD"))
    if not other.exists():
        return []
    swa, sgd = (WidthsResult.load(each).width for each in (path, other))
    row = {"seed": seed[4:], "rays": "plain" if rays == "plain" else "filter-normalised"}
    for name, width in (("SGD", sgd), ("SWA", swa)):
        row[name] = (
            f"{float(width.mean()):.3g} ({float(width.min()):.3g} to {float(width.max()):.3g})"
        )
    return [row | {"SWA wider": f"{int((swa > sgd).sum())} of {len(swa)}"}]


def pictures(results: Path, folder: Path) -> None:
    """Of seed 0, those whose records are there."""
    for rays in RAYS:
        pair(results, folder, rays)
    line = results / "seed0-line.json"
    if line.exists():
        draw_line(PathResult.load(line), folder)
    for plane in ("iterates", "ends"):
        files = [results / f"seed0-plane-{plane}-{split}.json" for split in ("train", "test")]
        if all(file.exists() for file in files):
            figure = Figure(figsize=(12, 5.4), layout="constrained")
            for file, ax in zip(files, figure.subplots(1, 2), strict=True):
                metric = "error" if file.stem.endswith("test") else "loss"
                plots.surface(SurfaceResult.load(file), ax=ax, metric=metric)
                ax.set_title("test error" if metric == "error" else "train loss")
            plots.save(figure, folder / f"plane-{plane}.png")


def pair(results: Path, folder: Path, rays: str) -> None:
    """Train loss and test error along rays from SGD and SWA, side by side."""
    files = {method: results / f"seed0-rays-{rays}-{method}.json" for method in METHODS}
    if not all(file.exists() for file in files.values()):
        return
    records = {method: WidthsResult.load(file) for method, file in files.items()}
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    for metric, ax in zip(("loss", "test_error"), figure.subplots(1, 2), strict=True):
        plots.widths(records, ax=ax, metric=metric)
    plots.save(figure, folder / f"rays-{rays}.png")


def draw_line(record: PathResult, folder: Path) -> None:
    """Train loss and test error on the line through SGD and SWA, side by side."""
    assert record.test_error is not None
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    values = {"train loss (nats)": record.loss, "test error (fraction)": record.test_error}
    for (name, y), ax in zip(values.items(), figure.subplots(1, 2), strict=True):
        ax.plot(record.t, y)
        for end in (0, 1):
            ax.axvline(end, color="grey", linestyle=":")
        ax.set(xlabel=r"$\alpha$, from SGD at 0 to SWA at 1", ylabel=name)
    plots.save(figure, folder / "line.png")
