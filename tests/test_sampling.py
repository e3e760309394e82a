"""Which samples make which step: what every order promises."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from downslope.sampling import ORDERS, batches, epoch_order, torch_seed

rows_, seeds, epochs = st.integers(1, 200), st.integers(0, 2**63 - 1), st.integers(0, 2**40)


@given(rows_, seeds, epochs)
def test_shuffle_visits_every_row_once(rows, seed, epoch):
    assert sorted(epoch_order("shuffle", rows, seed, epoch)) == list(range(rows))


@given(rows_, seeds, epochs)
def test_cyclic_is_the_stored_order(rows, seed, epoch):
    assert epoch_order("cyclic", rows, seed, epoch).tolist() == list(range(rows))


@given(rows_, seeds, epochs)
def test_replacement_draws_as_many_rows_of_those_there_are(rows, seed, epoch):
    drawn = epoch_order("replacement", rows, seed, epoch)
    assert drawn.shape == (rows,) and drawn.min() >= 0 and drawn.max() < rows


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_depends_on_seed_and_epoch_alone(order):
    first = epoch_order(order, 50, 3, 9)
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    for epoch in (0, 9, 4):
        epoch_order(order, 50, 3, epoch)
    np.testing.assert_array_equal(epoch_order(order, 50, 3, 9), first)


@pytest.mark.parametrize("order", ["shuffle", "replacement"])
def test_other_epochs_and_seeds_have_other_orders(order):
    made = {tuple(epoch_order(order, 30, s, e)) for s in range(20) for e in range(20)}
    assert len(made) == 400


def test_shuffle_puts_every_row_everywhere_equally_often():
    """2,000 epochs of 5 rows: each row is in each place 400 ± 5 standard deviations (18) times."""
    counts = np.zeros((5, 5))
    for epoch in range(2000):
        counts[epoch_order("shuffle", 5, 11, epoch), range(5)] += 1
    assert np.abs(counts - 400).max() < 5 * np.sqrt(2000 * 0.2 * 0.8)


def test_replacement_misses_a_share_of_one_over_e():
    missed = [1 - len(set(epoch_order("replacement", 1000, 0, e))) / 1000 for e in range(50)]
    assert np.mean(missed) == pytest.approx(np.exp(-1), abs=0.01)


@given(st.integers(1, 100), st.integers(1, 120), st.booleans())
def test_batches_tile_the_epoch(rows, size, drop_last):
    parts = [list(range(rows))[part] for part in batches(rows, size, drop_last)]
    assert all(len(part) == size for part in parts[:-1])
    joined = [row for part in parts for row in part]
    if drop_last:
        assert all(len(part) == size for part in parts)
        assert joined == list(range(rows // size * size))
    else:
        assert joined == list(range(rows)) and all(parts)


def test_torch_seeds_differ_and_fit():
    made = {torch_seed(seed, step) for seed in range(30) for step in range(30)}
    assert len(made) == 900 and all(0 <= seed < 2**63 for seed in made)
    for seed in made:
        torch.Generator().manual_seed(seed)
