"""Torch's global random state, borrowed and given back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


def state(device: torch.device) -> list[Tensor]:
    """The global generators' states, to see whether something was drawn."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states
