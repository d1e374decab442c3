"""`lowland status`: the artifacts of a run folder, and how far each is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from lowland.artifacts import Status
from lowland.artifacts.nodes import GRAPH, read_graph
from lowland.artifacts.status import statuses
from lowland.cli.arguments import RunFolderPath
from lowland.cli.console import Terminal, say, visible
from lowland.cli.origins import changed_origins

#: where commands put what they make of a run
_INSIDE = ("compare", "connect", "connect/plane", "simplex", "subspace/*", "scan/*", "sharpness")
_WIDTH = 300  # characters of a line in a file
_STYLES = {"done": "green", "under way": "yellow", "stale": "red", "damaged": "red"}


def status(
    run: RunFolderPath,
) -> None:
    """Show what a run folder holds: what is done, under way, missing or stale, and why.

    It reads the folder alone, and calls nothing that the configuration names.
    """
    run = run.expanduser()
    console = Terminal()
    tree = Tree(visible(str(run)))
    states: list[Status] = []
    for folder in folders(run):
        graph = statuses_of(folder)
        for source in graph if folder == run else []:
            if source.state == "given":
                say(console, f"{source.name}: {source.reason}")
        branch = tree if folder == run else tree.add(visible(f"{folder.relative_to(run)}/"))
        _add_graph(branch, graph)
        states += [each for each in graph if each.state != "given"]
    # a file takes lines of any length, and a terminal wraps them
    (console if console.is_terminal else Terminal(width=_WIDTH)).print(tree)
    counts = {state: sum(each.state == state for each in states) for state in _ORDER}
    parts = [f"{count} {state}" for state, count in counts.items() if count]
    say(console, f"{', '.join(parts)}; {size_text(sum(each.size for each in states))}.")


def statuses_of(folder: Path) -> list[Status]:
    """The artifacts of a folder; those of a stage are stale where its run has other inputs now."""
    changed = changed_origins(folder)
    states = []
    for each in statuses(folder, read_graph(folder)):  # inputs first
        causes = [name for name in each.inputs if name in changed]
        if causes and each.state == "done":
            each = replace(each, state="stale", reason=changed[causes[0]])
            changed[each.name] = f"other {each.name}"
        states.append(each)
    return states


def folders(run: Path) -> list[Path]:
    """A run folder, and those inside that commands such as `connect` made."""
    nodes = read_graph(run)  # raises where it is no run folder
    inside = sorted(file.parent for pattern in _INSIDE for file in run.glob(f"{pattern}/{GRAPH}"))
    return [run, *inside] if nodes else inside


_ORDER = ("done", "under way", "started", "missing", "stale", "damaged")


def _add_graph(tree: Tree, states: list[Status]) -> None:
    """A branch for each artifact from which no other is built."""
    built = {each.name: each for each in states if each.state != "given"}
    inputs = {name for each in built.values() for name in each.inputs}
    seen: set[str] = set()
    for each in built.values():
        if each.name not in inputs:
            _add(tree, each, built, seen)


def _add(tree: Tree, each: Status, built: dict[str, Status], seen: set[str]) -> None:
    """A branch for an artifact, and below it what it was built from, each once."""
    repeated = each.name in seen
    text = Text(each.name)
    if repeated:
        text.append(" (above)", style="dim")
    else:
        text.append(f"  {each.state}", style=_STYLES.get(each.state, ""))
        text.append(_details(each))
    branch = tree.add(text)
    if not repeated:
        seen.add(each.name)
        for name in each.inputs:
            if name in built:
                _add(branch, built[name], built, seen)


def _details(each: Status) -> str:
    """Size and time of what is done; who builds it, and how far; why it is stale."""
    if each.state == "done":
        took = "" if each.seconds is None else f", {each.seconds:.1f} s"
        return f", {size_text(each.size)}{took}"
    if each.owner is not None:
        total = "" if each.owner.total is None else f" of {each.owner.total}"
        return f" in {each.owner}: {each.owner.done}{total}"
    if each.state == "started":
        return ": it goes on from its checkpoint"
    return f": {visible(each.reason)}" if each.reason else ""


def size_text(size: int) -> str:
    """Bytes in the largest unit that gives a number above one.

    >>> size_text(1536), size_text(3 << 30)
    ('1.5 KB', '3.0 GB')
    """
    value = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TB"
