"""Global random states, borrowed and given back: torch's, and where asked all that are known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


@contextmanager
def borrowed(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Let what happens inside draw as it likes; afterwards the global state is what it was.

    Args:
        device: where it happens, besides the CPU.
        seed: what to set the generators to first.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            torch.manual_seed(seed)
        yield


@contextmanager
def all_borrowed(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """The same with Python's and NumPy's own generators, from which a user's code may draw."""
    plain, arrays = random.getstate(), np.random.get_state()
    try:
        with borrowed(device, seed):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)


def state(device: torch.device) -> list[Tensor]:
    """The global generators' states, to see whether something was drawn."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
