"""What `watch` costs a training loop: with and without it in turn, medians of the ratios.

A step of a small net (where the cost shows most, in microseconds), and of nets whose step takes
about 5 ms and more, where it should cost at most 5%. The first steps, which are looked at closely,
are measured apart. Both sides end with the same weights, which is checked.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable
from contextlib import nullcontext

import torch
from _timing import OthersLoad, in_turn
from torch import nn, optim

import downslope as ds
from downslope.loops.observers import LOOKS

Loop = Callable[[bool, int], list[torch.Tensor]]


def small(batch: int) -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)), torch.randn(batch, 16)


def wide(batch: int) -> tuple[nn.Module, torch.Tensor]:
    layers = [nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 1)]
    return nn.Sequential(*layers), torch.randn(batch, 256)


def deep(batch: int) -> tuple[nn.Module, torch.Tensor]:
    layers = [m for _ in range(30) for m in (nn.Linear(96, 96), nn.BatchNorm1d(96), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(96, 1)), torch.randn(batch, 96)


CASES = {
    "16-32-1 net, batch 32": (small, 32, 400),
    "256-512-512-1 net, batch 256": (wide, 256, 100),
    "30 layers of 96 with batch norm, batch 128": (deep, 128, 100),
}


def loop(make: Callable[[int], tuple[nn.Module, torch.Tensor]], batch: int, kind: type) -> Loop:
    """The usual loop, in two parts: the steps looked at closely, and those after them."""

    def run(watched: bool, steps: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model, X = make(batch)
        y = X.sum(1, keepdim=True).sin()
        optimizer = kind(model.parameters(), lr=1e-3)
        loss_fn = nn.MSELoss()
        with ds.watch(model, optimizer) if watched else nullcontext() as watch:
            for _ in range(steps):
                optimizer.zero_grad()
                loss = loss_fn(model(X), y)
                if watch is not None:
                    watch.loss(loss)
                loss.backward()
                optimizer.step()
        return [p.detach() for p in model.parameters()]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)  # neither side waits for other threads then
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, torch {torch.__version__}, 1 thread, "
          f"medians of {repeats}")  # fmt: skip
    for title, (make, batch, steps) in CASES.items():
        for kind in (optim.SGD, optim.Adam):
            measure(f"{title}, {kind.__name__}", loop(make, batch, kind), steps, repeats)


def measure(title: str, run: Loop, steps: int, repeats: int) -> None:
    same = all(torch.equal(a, b) for a, b in zip(run(True, 40), run(False, 40), strict=True))
    load = OthersLoad()
    times = in_turn(
        {
            "watched": lambda: run(True, LOOKS + steps),
            "watched, first": lambda: run(True, LOOKS),
            "plain": lambda: run(False, LOOKS + steps),
            "plain, first": lambda: run(False, LOOKS),
        },
        repeats,
    )
    each = {}
    for side in ("watched", "plain"):
        pairs = zip(times[side], times[f"{side}, first"], strict=True)
        each[side] = [(whole - first) / steps for whole, first in pairs]
    ratio = statistics.median(a / b for a, b in zip(each["watched"], each["plain"], strict=True))
    step = statistics.median(each["plain"])
    more = statistics.median(a - b for a, b in zip(each["watched"], each["plain"], strict=True))
    firsts = statistics.median(
        (a - b) / LOOKS for a, b in zip(times["watched, first"], times["plain, first"], strict=True)
    )
    judged = "" if step < 5e-3 else (" (≤ 5%: met)" if ratio <= 1.05 else " (≤ 5%: not met)")
    print(f"{title}: step {step * 1e3:.3g} ms, watched {ratio - 1:+.1%}{judged}, "
          f"{more * 1e6:.0f} µs a step; {firsts * 1e6:.0f} µs in the first {LOOKS}; "
          f"same weights: {same}; others' load {load.share():.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
