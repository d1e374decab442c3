"""Refuses a page that would fetch anything from elsewhere while it is read."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

#: a script, picture or frame, or a style sheet or font; links to follow are another matter
_FETCHED = re.compile(
    r'<(?:script|img|iframe)\b[^>]*\bsrc="?(https?:[^">\s]+)'
    r'|<link\b(?=[^>]*\brel="?(?:stylesheet|preload|preconnect|icon)\b)[^>]*\bhref="?(https?:[^">\s]+)'
)


def fetched(html: str) -> list[str]:
    """The addresses that a browser would ask.

    >>> fetched('<script src="https://a.org/b.js"></script><a href="https://a.org">a</a>')
    ['https://a.org/b.js']
    """
    return [one or other for one, other in _FETCHED.findall(html)]


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with each finished page."""
    found = fetched(output)
    if found:
        raise PluginError(f"{page.file.src_uri} would fetch {', '.join(found)}; keep it here.")
    return output
