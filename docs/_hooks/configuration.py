"""Writes the keys of a run into docs/configuration.md: `python docs/_hooks/configuration.py`.

The tables are between `<!-- keys of SECTION -->` and `<!-- end -->`. A test fails if the page
differs from the declarations in `lowland.runs.sections`.
"""

import re
from pathlib import Path

from lowland.runs import sections
from lowland.runs.keys import Key, default_text, keys_of, section_of

PAGE = Path(__file__).parents[1] / "configuration.md"
_TABLE = re.compile(r"(<!-- keys of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_PREFIXES = {"Config": ""} | {
    type_.__name__: f"{name}."
    for name, field in sections.Config.model_fields.items()
    if (type_ := section_of(field.annotation)) is not None
}


def with_tables(page: str) -> str:
    """The page with tables for all its markers."""

    def table(match: re.Match[str]) -> str:
        rows = [_row(each, _PREFIXES[match[2]]) for each in keys_of(getattr(sections, match[2]))]
        head = "| key | meaning | values | default |\n| --- | --- | --- | --- |\n"
        return f"{match[1]}{head}{''.join(rows)}{match[3]}"

    return _TABLE.sub(table, page)


def _row(key: Key, prefix: str) -> str:
    unit = f", in {key.unit}" if key.unit else ""
    default = "required" if key.required else f"`{default_text(key.default)}`"
    return f"| `{prefix}{key.name}` | {key.description} | {key.values}{unit} | {default} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
