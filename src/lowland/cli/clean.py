"""`lowland clean`: how much disk a run folder takes, and what of it can go."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer
from rich.text import Text

from lowland.artifacts.clean import Usage, remove, usage
from lowland.cli.arguments import RunFolderPath
from lowland.cli.console import Terminal, say
from lowland.cli.stage_folder import words_of
from lowland.cli.status import folders, size_text
from lowland.cli.tables import print_table
from lowland.errors import ConfigError

_REMOVABLE = {
    "stale": "of settings that are no longer those of the run",
    "unfinished": "stopped builds of such settings, with the states of their optimizers",
    "intermediate": "iterates and means from which all that needs them was built",
}


def clean(
    run: RunFolderPath,
    remove_: Annotated[
        str | None,
        typer.Option(
            "--remove",
            metavar="WHAT,...",
            help="What to remove, some of stale (of settings that are no longer those of the run), "
            "unfinished (stopped builds of such settings) and intermediate (iterates and means "
            "from which all that needs them was built; other methods would build them again).",
        ),
    ] = None,
) -> None:
    """Show what takes how much disk in a run folder; with --remove, remove some of it."""
    run = run.expanduser()
    uses = words_of(remove_)
    for word in uses:
        if word not in _REMOVABLE:
            raise ConfigError(f"--remove: expected some of {', '.join(_REMOVABLE)}, got {word!r}.")
    console = Terminal()
    usages = {folder: usage(folder) for folder in folders(run)}
    for folder, entries in usages.items():
        columns: dict[str, list[str | Text]] = {
            "use": [each.use for each in entries],
            "size": [size_text(each.size) for each in entries],
        }
        names = [each.name for each in entries]
        print_table(columns, console, rows="artifact", labels=names, title=str(folder))
    if uses:
        freed = sum(
            remove(folder, [each for each in entries if each.use in uses])
            for folder, entries in usages.items()
        )
        say(console, f"{size_text(freed)} removed.")
        return
    entries = list(itertools.chain(*usages.values()))
    for use, text in _REMOVABLE.items():
        total = _total(entries, use)
        if total:
            say(console, f"{size_text(total)} {use}: {text}; `--remove {use}` removes them.")


def _total(entries: list[Usage], use: str) -> int:
    return sum(each.size for each in entries if each.use == use)
