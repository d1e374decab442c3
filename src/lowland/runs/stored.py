"""The YAML files of run folders, which may come from elsewhere: written and read with a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lowland.errors import StoreError
from lowland.files import require_inside, write_text
from lowland.schema import require, require_format, require_shallow

MAX_YAML = 256 << 10  # bytes: a configuration has a few thousand, and parsing takes its time


class _Loader(yaml.SafeLoader):
    """YAML without aliases, which make a large value of a few bytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(file: Path, body: dict[str, Any], *, form: str) -> None:
    """Writes a file, atomically. `form`: its format and version, which `read_yaml` insists on."""
    text = yaml.dump({"format": form} | body, Dumper=_Dumper, sort_keys=False)
    if len(text) > MAX_YAML:
        raise StoreError(
            f"{file}: {len(text):,} characters of settings, more than {MAX_YAML:,}; put long "
            "arguments into a file that the configuration names."
        )
    write_text(file, text)


def read_yaml(file: Path, fields: Any, *, form: str, advice: str) -> dict[str, Any]:
    """Reads what `write_yaml` wrote.

    Args:
        fields: the form of its values, see `lowland.schema`; format aside. form: its format and
            version; files from before there was one have none. advice: what to do about another.

    Raises:
        StoreError: damaged, of another version, or not by lowland.
    """
    require_inside(file.parent, file.name)
    try:
        if file.stat().st_size > MAX_YAML:
            raise ValueError(f"larger than {MAX_YAML:,} bytes")
        body = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{file}: damaged ({_line(error)}); {advice}.") from error
    require(body, dict[str, Any], source=file, advice=advice)
    require_shallow(body, source=file, advice=advice)
    require_format(body.pop("format", form), form, source=file)
    require(body, fields, source=file, advice=advice)
    return dict(body)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
