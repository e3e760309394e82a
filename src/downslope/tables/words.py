"""Names, counts and cells of a table as words; rows are numbered from 1 for people."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from downslope.errors import TableError, listed

# What rich takes for the start of a markup tag.
_TAG = re.compile(r"\[(?=[a-zA-Z/#@])")


def shown(name: str, width: int = 40) -> str:
    r"""A name (or any text out of a table) made safe to print: names are data.

    Control characters, line breaks, invisible and direction-changing characters are escaped as
    `repr` does it, backslashes doubled, and brackets that could open rich markup get a backslash.

    Args:
        name: any text.
        width: the most characters of the result; what is cut off is shown as ``…``.

    >>> print(shown("two\nlines"))
    two\nlines
    >>> print(shown("[red]alert"))
    \[red]alert
    """
    tags = {match.start() for match in _TAG.finditer(name[: width + 1])}
    pieces: list[str] = []
    length = 0
    for position, character in enumerate(name):
        if position in tags:
            piece = "\\["
        elif character == "\\" or not character.isprintable():
            piece = character.encode("unicode_escape").decode("ascii")
        else:
            piece = character
        pieces.append(piece)
        length += len(piece)
        if length > width:
            while length > width - 1:
                length -= len(pieces.pop())
            return "".join(pieces) + "…"
    return "".join(pieces)


def quoted(name: str, width: int = 40) -> str:
    """`shown`, between quotation marks."""
    return f"'{shown(name, width)}'"


def some(names: Sequence[str], most: int = 8) -> str:
    """Names as words, the first `most` of them: ``'a', 'b' and 3 more``."""
    words = [quoted(name) for name in names[:most]]
    return listed(words if len(names) <= most else [*words, f"{len(names) - most} more"])


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def number_name(value: float) -> str:
    """A number as the name of a class: ``0``, ``2.5``; `float` of it is the number again."""
    whole = value.is_integer() and abs(value) <= 2**53
    return str(int(value)) if whole else repr(value)


def first_row(mask: NDArray[np.bool_]) -> int:
    """The number, counted from 1, of the first row where `mask` (rows,) is true."""
    return int(np.argmax(mask)) + 1


def missing_value(name: str, gap: NDArray[np.bool_]) -> TableError:
    """The error for a missing value under ``missing="error"``."""
    return TableError(
        f"column {quoted(name)} has no value in row {first_row(gap):,}; "
        "missing='error' allows none (choose 'mean' or 'drop')"
    )


def check_names(names: Sequence[str], where: str) -> None:
    """Every column has a name, and none has another's (polars would rename it silently)."""
    for position, name in enumerate(names, start=1):
        if not name.strip():
            raise TableError(
                f"column {position} of {where} has no name; give it one, or leave it out "
                "(pandas writes its index so, unless to_csv gets index=False)"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise TableError(
            f"{where} has more than one column named {listed(map(quoted, twice))}; "
            "names must differ"
        )
