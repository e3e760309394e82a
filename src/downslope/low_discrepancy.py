"""Numbers between 0 and 1 that fill the span evenly however few are taken, fixed by a seed."""

from __future__ import annotations

from itertools import count

import numpy as np

DIGITS = 2.0**-53
"""Digits are drawn until they are worth less than this: all that a float64 holds."""


def spread(size: int, place: int, seed: int) -> list[float]:
    """The first `size` numbers of one dimension of a scrambled Halton sequence.

    The k-th is k written in the `place`-th prime number as base, its digits mirrored at the point
    (van der Corput) and each replaced by a permutation drawn for its position. So the first b^j
    numbers lie one in each of b^j equal parts, more numbers only add to fewer, and dimensions of
    different bases fill their squares alike. Sources: J. H. Halton, Numerische Mathematik 2 (1960),
    84–90; E. Braaten and G. Weller, J. Comput. Phys. 33 (1979), 249–258, for the permutations.

    Args:
        place: the dimension, from 0.

    >>> sorted(int(4 * one) for one in spread(4, place=0, seed=7))
    [0, 1, 2, 3]
    >>> spread(3, place=1, seed=7) == spread(9, place=1, seed=7)[:3]
    True
    """
    base = _prime(place)
    left, found, worth = np.arange(size), np.zeros(size), 1.0 / base
    for position in count():
        if worth < DIGITS:
            break
        generator = np.random.Generator(np.random.Philox(key=[seed, 64 * place + position]))
        found += worth * generator.permutation(base)[left % base]
        left, worth = left // base, worth / base
    return [float(one) for one in np.minimum(found, np.nextafter(1.0, 0.0))]


def _prime(place: int) -> int:
    """The prime number at `place`, 2 at 0."""
    primes: list[int] = []
    for number in count(2):
        if all(number % prime for prime in primes):
            primes.append(number)
        if len(primes) > place:
            break
    return primes[-1]
