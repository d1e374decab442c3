"""Converts the docstrings of the library into Markdown for the site.

Docstrings end with a doctest without a heading, list several short arguments or errors in one line,
and have other public names in backticks. The site needs fenced code, one entry per line, and links.
"""

import re
from pathlib import Path

import griffe

_HEADING = re.compile(r"^(Args|Raises|Attributes):$")
#: " b: " or " c, d: " after the end of a sentence; " DataError: " among Raises; no " None: "
_NEXT = re.compile(r"(?<=[.]) (?=(?:[a-z]\w*, )*[a-z]\w*: |[A-Z]\w*Error: )")
_SHARED = re.compile(r"^    \w+(?:, \w+)+:")
_NAME = re.compile(r"(?<![\[`\w])`([\w.]+)`(?![\]`])")


def names_of_pages(pages: Path) -> dict[str, str]:
    """The names documented in the pages of the API: {short name: full name}."""
    lines = (line for page in pages.glob("*.md") for line in page.read_text("utf-8").splitlines())
    names = [line.removeprefix("::: ").strip() for line in lines if line.startswith("::: ")]
    return {name.rpartition(".")[2]: name for name in names}


def fence_doctests(text: str) -> str:
    """Doctests as fenced blocks.

    >>> fence_doctests(">" * 3 + " 1 + 1\\n2\\n\\nIt ends.").replace("`", "'").splitlines()
    ["'''pycon", '>>> 1 + 1', '2', "'''", '', 'It ends.']
    """
    out: list[str] = []
    inside = False
    for line in text.splitlines():
        if line.startswith(">>>") and not inside:
            out.append("```pycon")
            inside = True
        elif inside and not line.strip():
            out.append("```")
            inside = False
        out.append(line)
    return "\n".join([*out, "```"] if inside else out)


def split_entries(text: str) -> str:
    """Every argument and error of a section on its own line.

    A no-break space joins attributes that share a description: the second would be read as a type.

    >>> print(
    ...     split_entries("Args:\\n    a: one. b, c: two\\n        or three.\\n\\nThe end. a: no.")
    ... )
    Args:
        a: one.
        b, c: two
            or three.
    <BLANKLINE>
    The end. a: no.
    """
    out: list[str] = []
    inside = ""
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            inside = heading[1]
        elif line.strip() and not line.startswith(" "):
            inside = ""
        if inside and line.startswith("    "):
            first, *others = _NEXT.split(line)
            out += [first, *("    " + other for other in others)]
            if inside == "Attributes" and (shared := _SHARED.match(out[-1])):
                out[-1] = out[-1].replace(", ", ",\N{NO-BREAK SPACE}", shared[0].count(","))
        else:
            out.append(line)
    return "\n".join(out)


def link_names(text: str, names: dict[str, str]) -> str:
    """Documented names in backticks as links, outside of code.

    >>> link_names("see `SWAG`, `lowland.SWAG` and `x`", {"SWAG": "lowland.SWAG"})
    'see [`SWAG`][lowland.SWAG], [`lowland.SWAG`][lowland.SWAG] and `x`'
    """

    def link(match: re.Match[str]) -> str:
        full = names.get(match[1].rpartition(".")[2])
        return f"[`{match[1]}`][{full}]" if full and full.endswith(match[1]) else match[0]

    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(p if p.startswith("```") else _NAME.sub(link, p) for p in parts)


class HouseStyle(griffe.Extension):
    """Rewrites every docstring as it is loaded."""

    def __init__(self, pages: str = "docs/api") -> None:
        self.names = names_of_pages(Path(pages))

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Called by griffe with the whole package.

        `lowland.sgd` is the function, though griffe finds the file of that name first.
        """
        for name, member in list(pkg.members.items()):
            if not member.is_alias or not member.target_path.startswith(f"{pkg.name}."):
                continue
            target = member.final_target
            if target.is_module and name in target.members:
                pkg.set_member(name, griffe.Alias(name, target.members[name], parent=pkg))

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Called by griffe with each module, class, function and attribute."""
        if obj.docstring is None:
            return
        others = {short: full for short, full in self.names.items() if short != obj.name}
        obj.docstring.value = link_names(split_entries(fence_doctests(obj.docstring.value)), others)
