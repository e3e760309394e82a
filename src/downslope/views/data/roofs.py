"""Which losses a picture's axis has to hold: not those far worse than where the runs started."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

BLOWN_UP = 10.0
"""Times the initial loss: what lies above is left outside where only wild runs would show it."""

_PLAINLY = 2.0


def not_blown_up(
    values: ArrayLike,
    starts: ArrayLike,
    signs: ArrayLike = 1.0,
    start_signs: ArrayLike = 1.0,
    times: float = BLOWN_UP,
) -> Floats:
    """The finite `values` that are not blown up, (some,); those of each sign apart.

    Blown up is what lies so many `times` as far out as the starts, and as many times further from
    the best value than the worst start: upwards where the loss is minimised, downwards where it is
    maximised.

    Args:
        values: of any shape.
        starts: the losses at the start; without any, nothing counts as blown up.
        signs, start_signs: -1 for runs that maximise, else 1, in a shape that fits.

    >>> not_blown_up([1.0, 26.0, 36745.0], [26.0]).tolist()
    [1.0, 26.0]
    >>> not_blown_up([-1.0, -26.0, -36745.0], [-26.0], -1, -1).tolist()
    [-1.0, -26.0]
    """
    values, first = np.asarray(values, dtype=np.float64), np.asarray(starts, dtype=np.float64)
    signs, start_signs = (
        np.broadcast_to(signs, values.shape),
        np.broadcast_to(start_signs, first.shape),
    )
    kept = [np.empty(0)]
    for sign in (1.0, -1.0):
        some = values[np.isfinite(values) & (signs == sign)]
        begun = first[np.isfinite(first) & (start_signs == sign)]
        if len(some):
            kept.append(some[sign * some <= _roof(sign * some, sign * begun, times)])
    return np.concatenate(kept)


def seen_plainly(
    values: ArrayLike, starts: ArrayLike, signs: ArrayLike = 1.0, start_signs: ArrayLike = 1.0
) -> Floats:
    """`not_blown_up` for an axis that is not logarithmic: where anything is blown up it holds less,
    for lines on their way there would flatten all others.
    """
    calm = not_blown_up(values, starts, signs, start_signs)
    if len(calm) == np.isfinite(values).sum():
        return calm
    return not_blown_up(values, starts, signs, start_signs, _PLAINLY)


def _roof(scores: Floats, starts: Floats, times: float) -> float:
    """The score (less is better) above which runs have blown up."""
    if not len(starts):
        return np.inf
    least, worst = min(scores.min(), starts.min()), starts.max()
    if least == worst == 0:  # nothing to go by: runs that start at the best value, 0
        return np.inf
    with np.errstate(over="ignore"):
        return float(max(times * abs(starts).max(), least + times * (worst - least)))
