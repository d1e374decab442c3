"""Run folders that commands are given: loaded, and compared with one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowland.artifacts.checkpoint import differences
from lowland.cli.trust import require_trusted
from lowland.errors import ConfigError
from lowland.files import require_no_way_out
from lowland.runs.config import check_config, importable
from lowland.runs.folder import CONFIG, RunFolder
from lowland.runs.plan import FILE as PLAN
from lowland.runs.plan import RunPlan
from lowland.runs.sections import Config
from lowland.runs.setup import Setup

#: settings in which runs of one method may differ
FREE = {"out", "seed", "threads", "device", "connect"}


@dataclass(frozen=True)
class FinishedRun:
    """A run that is done.

    Attributes:
        name: its folder as messages call it. plan: how it computed.
    """

    name: str
    folder: RunFolder
    config: Config
    plan: RunPlan

    def setup(self) -> Setup:
        """Model, task and data, which are evaluated by the run's plan."""
        return Setup(self.config, self.plan)


def load_runs(paths: Sequence[Path], *, trust: bool = False) -> list[FinishedRun]:
    """Reads run folders, which must be done, and have the same settings but for the seed.

    `trust`: call the code that their configurations name, although it was not run here.

    Raises:
        UntrustedError: a run from elsewhere, without `trust`.
        ConfigError: no run folder, a run that is not done, other settings, a seed that comes twice.
    """
    importable(Path.cwd())
    runs = [_load(path, str(path) if len(paths) > 1 else path.name) for path in paths]
    first = runs[0]
    for run in runs[1:]:
        ours, theirs = (r.config.model_dump(mode="json") for r in (first, run))
        changed = differences(ours, theirs, but=FREE, words=(f"in {first.name}", f"in {run.name}"))
        if changed:
            raise ConfigError(
                f"{first.name} and {run.name} are runs with other settings ({'; '.join(changed)}); "
                "give runs that differ in the seed alone, or compare them one by one."
            )
    names: dict[int, str] = {}
    for run in runs:
        seed = run.config.seed
        if seed in names:
            raise ConfigError(
                f"{names[seed]} and {run.name} have the same seed, {seed}, and would count twice; "
                "run one of them with another seed=."
            )
        names[seed] = run.name
    for run in runs:
        require_trusted(run.config, file=run.folder.path / CONFIG, trust=trust)
    return runs


def _load(path: Path, name: str) -> FinishedRun:
    folder = RunFolder(path.expanduser())
    if not (folder.path / CONFIG).is_file():
        raise ConfigError(
            f"{path} is not a run folder: it holds no {CONFIG}; name one that `lowland run` made."
        )
    require_no_way_out(folder.path)
    settings, _ = folder.read()
    config = check_config(settings, where=str(folder.path / CONFIG))
    for method in config.methods:
        for ending in ("json", "npz"):
            file = folder.record(f"{method}.{ending}")
            if not file.is_file():
                raise ConfigError(
                    f"{path} is not done: {file} is missing; run the `lowland run` command that "
                    f"made it again, with out={path}, then compare."
                )
    return FinishedRun(name, folder, config, RunPlan.read(folder.path / PLAN))
