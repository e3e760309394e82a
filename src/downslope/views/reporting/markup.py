"""HTML put together from parts, in which whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

VOID = frozenset({"img", "link", "meta", "br"})
"""Elements that hold nothing and have no end."""


class Markup(str):
    """Text that is HTML already."""


def tag(element: str, /, *inside: str, **attributes: str | None) -> Markup:
    """An element around its parts; an attribute that is None is left out.

    Names of attributes are written with ``_`` for ``-``, and ``class_`` for ``class``.

    >>> tag("td", "a < b", class_="wide", data_value=None)
    '<td class="wide">a &lt; b</td>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if element in VOID:
        return Markup(f"<{element}{given}>")
    return Markup(f"<{element}{given}>{joined(inside)}</{element}>")


def joined(parts: Iterable[str], between: str = "") -> Markup:
    """Parts one after another, each escaped if it is not markup."""
    return Markup(between.join(text(part) for part in parts))


def text(words: str) -> Markup:
    r"""Words made safe to stand in a page, or between an attribute's quotation marks.

    Names out of a table are data: what opens a tag is escaped, and a character that cannot be seen
    (or turns the direction of what follows) is written out.

    >>> print(text("<script>"), text("a\u202eb"))
    &lt;script&gt; a\u202eb
    """
    if isinstance(words, Markup):
        return words
    seen = [
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii")
        for c in words
    ]
    return Markup(escape("".join(seen)))
