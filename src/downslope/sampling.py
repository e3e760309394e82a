"""Which samples make which step. The order of epoch e depends on (order, rows, seed, e) alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["shuffle", "cyclic", "replacement"]
ORDERS: tuple[Order, ...] = ("shuffle", "cyclic", "replacement")

_ORDER_STREAM, _TORCH_STREAM = 0, 1


def epoch_order(order: Order, rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Row numbers in the order epoch `epoch` (from 0) visits them; shape (rows,).

    >>> epoch_order("cyclic", 4, seed=0, epoch=3).tolist()
    [0, 1, 2, 3]
    >>> sorted(epoch_order("shuffle", 4, seed=0, epoch=3).tolist())
    [0, 1, 2, 3]
    """
    if order == "cyclic":
        return np.arange(rows)
    counter = [0, 0, 0, epoch]
    generator = np.random.Generator(np.random.Philox(key=[seed, _ORDER_STREAM], counter=counter))
    if order == "replacement":
        return generator.integers(0, rows, size=rows)
    return generator.permutation(rows)


def torch_seed(seed: int, step: int) -> int:
    """The seed of torch's generator for what is drawn at `step` (0: the start)."""
    generator = np.random.Philox(key=[seed, _TORCH_STREAM], counter=[0, 0, 0, step])
    return int(generator.random_raw()) >> 1  # torch takes signed 64-bit seeds


def batches(rows: int, batch_size: int, drop_last: bool = False) -> list[slice]:
    """The slices of an epoch's order that make its batches; the last may be short.

    >>> batches(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    last = rows if drop_last else rows + batch_size - 1
    ends = range(batch_size, last + 1, batch_size)
    return [slice(end - batch_size, min(end, rows)) for end in ends]
