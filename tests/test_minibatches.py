"""The theory of batches, against exact recursions of second moments over all batches."""

from __future__ import annotations

from itertools import combinations, product
from math import isinf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downslope.explain.minibatches import (
    MOST,
    bracket,
    mean_square_threshold,
    noise_floor,
    noise_scale,
    noise_share,
    transient_gain,
)

X = np.round(np.arange(-5, 5, 0.1), 10)
ROWS = np.stack([X, np.ones_like(X)], 1)
LINE = 2 * ROWS[:, :, None] * ROWS[:, None, :]
"""The line tutorial's Hessians of single samples."""


def test_the_line():
    assert round(mean_square_threshold(LINE), 6) == 0.064183
    found = bracket(np.sqrt(2) * ROWS)
    assert (round(found.sufficient, 5), round(found.necessary, 5)) == (0.06246, 0.06539)
    assert round(found.safe, 5) == 0.03846 == round(2 / 52, 5)
    gains = {rate: transient_gain(LINE, rate) for rate in (0.039, 0.05, 0.06, 0.08, 0.1)}
    assert round(gains[0.039][0], 2) == 1.03 and round(gains[0.05][0], 1) == 6.3
    assert round(gains[0.06][0]) == 103
    assert f"{gains[0.08][0]:.0e}" == "6e+04" and f"{gains[0.1][0]:.0e}" == "3e+07"
    assert all(radius < 1 for _, radius in gains.values())
    unstable = (2 * (ROWS**2).sum(1) * 0.1 > 2 + 1e-9).sum()
    assert unstable == 39


def vectors(samples: int, size: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(samples, size)) * random.uniform(0.2, 2, size=(samples, 1))


def moments_of(hessians: np.ndarray, size: int, replacement: bool, rate: float) -> np.ndarray:
    """What an update makes of E[θ θᵀ], by going through every batch there is."""
    n, count = len(hessians), hessians.shape[1]
    places = product(range(n), repeat=size) if replacement else combinations(range(n), size)
    steps = [np.eye(count) - rate * hessians[list(batch)].mean(0) for batch in places]
    return np.mean([np.kron(step, step) for step in steps], 0)


BATCHES = st.tuples(st.integers(1, 3), st.booleans())


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 6), st.integers(1, 3), BATCHES, st.integers(0, 10_000))
def test_threshold_is_where_second_moments_begin_to_grow(samples, size, batches, seed):
    batch_size, replacement = batches
    a = vectors(samples, size, seed)
    hessians = a[:, :, None] * a[:, None, :]
    found = mean_square_threshold(hessians, batch_size, replacement)
    for rate, grows in ((found * 0.9999, False), (found * 1.0001, True)):
        moments = moments_of(hessians, batch_size, replacement, rate)
        assert (np.abs(np.linalg.eigvals(moments)).max() > 1) == grows
    between = bracket(a, batch_size, replacement)
    assert between.safe <= between.sufficient * (1 + 1e-9)
    assert between.sufficient <= found * (1 + 1e-9)
    assert found <= between.necessary * (1 + 1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 6), st.integers(1, 3), BATCHES, st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_noise_floor_is_where_second_moments_settle(samples, size, batches, seed, share):
    batch_size, replacement = batches
    a = vectors(samples, size, seed)
    hessians = a[:, :, None] * a[:, None, :]
    residuals = np.random.default_rng(seed + 1).normal(size=samples)
    residuals -= a @ np.linalg.lstsq(a, residuals, rcond=None)[0]
    gradients = a * residuals[:, None]  # at the optimum: they sum to 0
    rate = share * mean_square_threshold(hessians, batch_size, replacement)
    found = noise_floor(hessians, gradients, rate, batch_size, replacement)
    moments = moments_of(hessians, batch_size, replacement, rate)
    # What E[θ] (0, as it comes out) adds to the second moments is followed with them.
    places = product(range(samples), repeat=batch_size) if replacement else combinations(
        range(samples), batch_size)  # fmt: skip
    chosen = [list(batch) for batch in places]
    steps = [np.eye(size) - rate * hessians[b].mean(0) for b in chosen]
    pushes = [rate * gradients[b].mean(0) for b in chosen]
    mean = np.linalg.solve(np.eye(size) - np.mean(steps, 0), -np.mean(pushes, 0))
    crossed = np.mean([np.kron(s @ mean, p) + np.kron(p, s @ mean)
                       for s, p in zip(steps, pushes, strict=True)], 0)  # fmt: skip
    noise = np.mean([np.kron(p, p) for p in pushes], 0)
    settled = np.linalg.solve(np.eye(size**2) - moments, noise - crossed).reshape(size, size)
    assert found == pytest.approx(np.trace(hessians.mean(0) @ settled) / 2, rel=1e-6, abs=1e-12)
    small = 1e-4 * rate
    floor = noise_floor(hessians, gradients, small, batch_size, replacement)
    spread = noise_share(samples, batch_size, replacement) * (gradients**2).sum(1).mean()
    assert floor == pytest.approx(small * spread / 4, rel=1e-2, abs=1e-15)


def test_edges():
    assert isinf(noise_floor(LINE, ROWS * 0.1, 0.07))
    assert (
        noise_share(100, 100) == 0 and noise_share(100, 1) == 1 and noise_share(9, 4, True) == 0.25
    )
    assert mean_square_threshold(LINE, 100) == pytest.approx(2 / 16.6706816, rel=1e-6)
    flat = np.concatenate([LINE, np.zeros_like(LINE)], 2)
    flat = np.concatenate([flat, np.zeros_like(flat)], 1)  # two parameters that nothing depends on
    assert mean_square_threshold(flat) == pytest.approx(mean_square_threshold(LINE))
    assert isinf(mean_square_threshold(np.zeros((5, 2, 2))))
    with pytest.raises(ValueError, match="too many"):
        mean_square_threshold(np.zeros((2, MOST + 1, MOST + 1)))
    with pytest.raises(ValueError, match="no batches"):
        transient_gain([], 0.1)


def test_noise_scale_is_unbiased():
    random = np.random.default_rng(0)
    gradients = random.normal([1.0, -0.5], [2.0, 0.5], size=(200_000, 2))
    length = {b: (gradients[: 200_000 // b * b].reshape(-1, b, 2).mean(1) ** 2).sum(1).mean()
              for b in (1, 8)}  # fmt: skip
    found = noise_scale((1, length[1]), (8, length[8]))
    assert found.gradient == pytest.approx(1.25, rel=0.02)
    assert found.noise == pytest.approx(4.25, rel=0.02)
    assert found.batch_size == pytest.approx(4.25 / 1.25, rel=0.03)
