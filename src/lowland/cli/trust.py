"""Whether a configuration was run here: it names callables, which opening its folder would call."""

from __future__ import annotations

import hashlib
import importlib.util
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import platformdirs
import typer
import yaml

from lowland.errors import ConfigError
from lowland.runs.sections import Config, Factory
from lowland.runs.user_code import is_project

Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Call what the configuration names, though it was not run here before: it can be any "
        "code, so read it first. From then on it needs no such option.",
    ),
]


class UntrustedError(ConfigError):
    """A configuration that names code which was not run here."""


def require_trusted(config: Config, *, file: Path, trust: bool) -> None:
    """Raises `UntrustedError` unless a configuration was run here, or `trust` is set, which lists
    it as run here."""
    if trust:
        remember(config)
    if trust or fingerprint(config) in _fingerprints():
        return
    names = dict.fromkeys(one.name for one in _factories(config))
    names |= dict.fromkeys(name for name in config.methods if ":" in name)
    raise UntrustedError(
        f"{file} names code that was not run here before ({', '.join(names)}), and that can be any "
        "code; read the file, and add --trust to call it."
    )


def remember(config: Config) -> None:
    """Lists a configuration as one that was run here."""
    digest = fingerprint(config)
    if digest in _fingerprints():
        return
    file = state_file()
    with suppress(OSError):  # without a place for it --trust is needed
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "a", encoding="ascii") as lines:
            lines.write(f"{digest}\n")


def state_file() -> Path:
    """The hashes of what was run here, a line each."""
    return platformdirs.user_state_path("lowland", appauthor=False) / "configurations.txt"


def fingerprint(config: Config) -> str:
    """A hash of what a configuration calls: names, arguments, and where a project's own code lies.

    What else it says, such as learning rates, names no code.
    """
    body = [[one.name, one.args, _place(one.name)] for one in _factories(config)]
    body += [[name, {}, _place(name)] for name in config.methods if ":" in name]
    return hashlib.sha256(yaml.safe_dump(body, sort_keys=False).encode()).hexdigest()


def _factories(config: Config) -> list[Factory]:
    return [one for one in (config.model, config.data, config.task) if isinstance(one, Factory)]


def _fingerprints() -> set[str]:
    try:
        return set(state_file().read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()


def _place(name: str) -> str:
    """The file of a project's own module or package: another project may have one of that name."""
    package = name.partition(":")[0].partition(".")[0]
    if package == "lowland":
        return ""
    try:
        spec = importlib.util.find_spec(package)  # of a name without a dot: nothing is imported
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return ""
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or ())
    return next((str(Path(place).resolve()) for place in places if is_project(place)), "")
