"""A plane through many numbers that holds as much of some ways as a plane can.

Its directions are the principal directions of the ways' points about a place (K. Pearson, "On lines
and planes of closest fit", 1901), as Li et al. look at paths of networks ("Visualizing the Loss
Landscape of Neural Nets", 2018, section 7).

>>> way = np.array([[3.0, 0, 0], [1, 1, 0], [0, 0, 0]])
>>> plane = main_plane([way], way[-1])
>>> plane.laid(way)[1].round(12).tolist(), round(float(plane.shares.sum()), 12)
([0.0, 0.0, 0.0], 1.0)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from downslope.views.data.losses import Floats

MOST_POINTS = 300
"""Points of each way, spread evenly, that the directions are found from."""

_NUMBERS = 2**22
"""Numbers that are made at a time, about."""

_NOTHING = 1e-24
"""Share of the squared distances below which a direction is rounding alone."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane in the space of the parameters.

    Attributes:
        centre: (numbers,), a place on it.
        directions: (2, numbers), of length 1 and at right angles.
        shares: (2,), the share of the points' squared distances from the centre that lies along
            each direction; all points together.
    """

    centre: Floats
    directions: Floats
    shares: Floats

    def laid(self, points: Floats) -> tuple[Floats, Floats]:
        """Points (points, numbers) laid onto the plane: their coordinates there, (points, 2), and
        how far they are off it, (points,), in the parameters' unit.

        The distance is that of the difference itself: the difference of two squared lengths would
        lose half of the digits.
        """
        away = points - self.centre
        on = away @ self.directions.T
        return on, np.linalg.norm(away - on @ self.directions, axis=1)

    def points(self, coordinates: Floats) -> Iterator[Floats]:
        """The parameters (numbers,) at each of the coordinates (points, 2), one by one."""
        step = max(1, _NUMBERS // len(self.centre))
        for first in range(0, len(coordinates), step):
            yield from self.centre + coordinates[first : first + step] @ self.directions


def main_plane(ways: Sequence[Floats], centre: Floats) -> Plane:
    """The plane through `centre` along the two main directions of all ways together.

    Args:
        ways: each (points, numbers), at least two numbers; of more than `MOST_POINTS` points, so
            many are looked at.
        centre: (numbers,).
    """
    away = np.concatenate([way[evenly(len(way), MOST_POINTS)] - centre for way in ways])
    total = float((away**2).sum())
    directions = _directions(away, total)
    along = ((away @ directions.T) ** 2).sum(0)
    shares = along / total if total > 0 else np.array([1.0, 0.0])
    return Plane(centre, directions, shares)


def evenly(count: int, most: int) -> np.ndarray:
    """Up to `most` of `count` places, spread evenly, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _directions(away: Floats, total: float) -> Floats:
    """The two main directions (2, numbers) of points (points, numbers) about 0."""
    points, numbers = away.shape
    found: list[Floats] = []
    if total > 0:
        if numbers <= points:
            _, vectors = np.linalg.eigh(away.T @ away)
            pair = vectors[:, :-3:-1].T
        else:
            _, vectors = np.linalg.eigh(away @ away.T)
            pair = vectors[:, :-3:-1].T @ away
            pair = (pair @ away.T) @ away  # once more, for the digits that squaring has lost
        for direction in pair:
            rest = _at_right_angles(direction / max(np.linalg.norm(direction), 1e-300), found)
            length = np.linalg.norm(rest)
            if length > 1e-6 and ((away @ (rest / length)) ** 2).sum() > _NOTHING * total:
                found.append(rest / length)
    while len(found) < 2:  # the points lie on a line, or are one: any direction will do
        axis = np.zeros(numbers)
        axis[np.argmin(sum((d**2 for d in found), np.zeros(numbers)))] = 1.0
        rest = _at_right_angles(axis, found)
        found.append(rest / np.linalg.norm(rest))
    made = np.stack(found)
    # Which way a direction points is free: its largest number is made positive.
    largest = np.abs(made).argmax(1)[:, None]
    signed: Floats = made * np.sign(np.take_along_axis(made, largest, 1))
    return signed


def _at_right_angles(direction: Floats, others: Sequence[Floats]) -> Floats:
    for _ in range(2):  # twice is enough for all digits
        for other in others:
            direction = direction - (direction @ other) * other
    return direction
