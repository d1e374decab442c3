"""Raises an error for a page that loads anything from another site."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

#: a script, picture or frame, or a style sheet or font; ordinary links are allowed
_EXTERNAL = re.compile(
    r'<(?:script|img|iframe)\b[^>]*\bsrc="?(https?:[^">\s]+)'
    r'|<link\b(?=[^>]*\brel="?(?:stylesheet|preload|preconnect|icon)\b)[^>]*\bhref="?(https?:[^">\s]+)'
)


def external_addresses(html: str) -> list[str]:
    """The addresses that a browser would load.

    >>> external_addresses(
    ...     '<script src="https://a.org/b.js"></script><a href="https://a.org">a</a>'
    ... )
    ['https://a.org/b.js']
    """
    return [one or other for one, other in _EXTERNAL.findall(html)]


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs with each finished page."""
    addresses = external_addresses(output)
    if addresses:
        raise PluginError(f"{page.file.src_uri} would fetch {', '.join(addresses)}; keep it here.")
    return output
