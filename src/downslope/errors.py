"""Every error a caller can meet, in one place.

An error is one sentence: what was wrong, what is allowed, what was given, the nearest name.
All of them are `DownslopeError`s, so one `except` catches them; those about a bad value are
`ValueError`s too. A descent that diverges is a result (its status says so), never an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class DownslopeError(Exception):
    """What every error of this package is."""


class InputError(DownslopeError, ValueError):
    """A value that was given cannot be used; the message says what is allowed."""


class TableError(InputError):
    """A table, or a column of it, cannot be read or used."""


class ProblemError(InputError):
    """A function, model, loss or its data cannot make a problem."""


class OptimizerError(InputError):
    """An optimizer, one of its hyperparameters or a schedule cannot be used."""


class EngineError(InputError):
    """The engine asked for cannot serve; the message holds the reason."""


class StudyError(DownslopeError):
    """A study's folder cannot be read, written or resumed."""


class StudyLockedError(StudyError):
    """Another process is writing to this study."""


def listed(names: Iterable[object]) -> str:
    """Names as words: ``a, b and c``."""
    words = [str(name) for name in names]
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the closest of `names`, or nothing.

    >>> nearest("pric", ["price", "rooms"])
    " (did you mean 'price'?)"
    """
    by_lower = {candidate.lower(): candidate for candidate in names}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
