"""What a terminal shows, and names that would do more than be shown."""

import io

from lowland.cli.console import Terminal

HOSTILE = [
    "[/b]",
    "[bold]x[/bold]",
    "\x1b[31mred\x1b[0m",
    "\x9b31m",
    "a\rb",
    "\u202egnp",
    ":smile:",
]


def output_of(write, width=80, **options):
    """What `write(console)` prints."""
    out = io.StringIO()
    write(Terminal(file=out, width=width, **options))
    return out.getvalue()


def assert_shown_as_it_is(name, write):
    """No character of a name is obeyed, whatever the width."""
    for width in (20, 80, 200):
        out = output_of(write, width)
        assert not [c for c in out if c != "\n" and not c.isprintable()], repr(out)
    return out
