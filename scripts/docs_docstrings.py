"""An extension of Griffe, which reads the docstrings for the reference.

``>>>`` examples are code, with a heading or without; and names that share a description get one
each (Griffe would read ``validation, test: rows kept apart`` as an attribute "validation," of the
type "test").
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_SHARED = re.compile(r"^[ ]{4}(\w+(?:, \w+)+)(: .*(?:\n[ ]{5,}.*)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)


class Plainer(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(apart(obj.docstring.value))


def fenced(words: str) -> str:
    """The docstring with a fence around each of its examples."""
    return _EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", words)


def apart(words: str) -> str:
    """The docstring with an entry for each of the names that share one."""
    return _SHARED.sub(
        lambda found: "\n".join(f"    {name}{found[2]}" for name in found[1].split(", ")), words
    )
