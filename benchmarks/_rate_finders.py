"""Peers that suggest a rate from one training with a growing rate.

`valley` is the rule of fastai's ``lr_find`` (fastai/callback/schedule.py), written again from its
description: the rate grows from 1e-7 to 10 over 100 steps, the loss is smoothed, and the suggestion
lies half-way down the longest falling subsequence of losses. `steepest` is the torch-lr-finder
package's own range test and suggestion.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from importlib.util import find_spec
from math import isfinite

import numpy as np
import torch
from _rate_problems import BATCH, Case
from torch.utils.data import DataLoader, TensorDataset

LOWEST, HIGHEST, STEPS = 1e-7, 10.0, 100
SMOOTHING, STOP = 0.98, 4.0

HAVE_TORCH_LR_FINDER = find_spec("torch_lr_finder") is not None


def _loader(case: Case) -> DataLoader[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(77)
    return DataLoader(TensorDataset(case.X, case.y), BATCH, shuffle=True, generator=generator)


def valley(case: Case) -> float:
    """The default suggestion of fastai."""
    model, optimizer = case.fresh()
    rates, losses = [], []
    mean, best, loader = 0.0, float("inf"), _loader(case)
    while len(rates) < STEPS:
        for x, y in loader:
            rate = LOWEST * (HIGHEST / LOWEST) ** (len(rates) / STEPS)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = case.loss(model(x), y)
            loss.backward()
            optimizer.step()
            mean = SMOOTHING * mean + (1 - SMOOTHING) * float(loss.detach())
            rates.append(rate)
            losses.append(mean / (1 - SMOOTHING ** len(rates)))
            best = min(best, losses[-1])
            if losses[-1] > STOP * best or not isfinite(losses[-1]) or len(rates) == STEPS:
                return _valley(rates[STEPS // 10 : -5], losses[STEPS // 10 : -5])
    raise AssertionError("the loader gave no batch")


def _valley(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Half-way into the middle third of the longest falling subsequence's span."""
    longest = np.ones(len(losses), dtype=int)
    for place in range(1, len(losses)):
        higher = np.flatnonzero(np.array(losses[:place]) > losses[place])
        if len(higher):
            longest[place] = longest[higher].max() + 1
    end = int(longest.argmax())
    third = longest[end] / 3
    return float(rates[end - longest[end] + int(third) + int(third / 2)])


def steepest(case: Case) -> float:
    """torch-lr-finder's suggestion."""
    import matplotlib.pyplot as plt
    from torch_lr_finder import LRFinder

    model, optimizer = case.fresh()
    optimizer.param_groups[0]["lr"] = LOWEST
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        finder = LRFinder(model, optimizer, case.loss, device="cpu")
        finder.range_test(_loader(case), end_lr=HIGHEST, num_iter=STEPS)
        figure, axes = plt.subplots()
        _, rate = finder.plot(ax=axes)
        plt.close(figure)
    return float(rate)
