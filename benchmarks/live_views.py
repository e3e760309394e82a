"""What moving pictures and live views cost.

A live view: descents of the parabola network (1-10-1, 200 points) with and without it in turn,
medians of the ratios (and of those of the processor's time, which other processes disturb less);
the runs are checked to be the same to the bit. Each case is one chunk of runs: of several, `looped`
and `stacked` are shared out over processes only where nobody looks on.
A moving picture: 5,000 steps of one run, recorded every 10, as GIF.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from _timing import OthersLoad, in_turn
from rich.console import Console
from torch import nn, optim

import downslope as ds
from downslope.execution import carry_out
from downslope.views.live import LiveView, Notebook, Screen, Terminal

KEPT = ("loss", "parameters")
CASES = {  # engine: (runs, steps)
    "looped": (1, 5_000),
    "stacked": (64, 2_000),
    "fused": (256, 100_000),
}


class Nowhere:
    """Takes the place of a notebook's output."""

    def __call__(self, shown: Any) -> Nowhere:
        return self

    def update(self, shown: Any) -> None:
        pass


def terminal() -> Screen:
    out = StringIO()
    return Terminal(Console(file=out, force_terminal=True, width=100, height=30))


def notebook() -> Screen:
    return Notebook(Nowhere())


def problem() -> ds.Problem:
    torch.manual_seed(0)
    x = torch.linspace(-1, 1, 200).reshape(-1, 1)
    y = x**2 + 0.2 * torch.rand(x.shape)
    return ds.Problem.from_model(
        lambda: nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1)),
        x, y, loss=nn.MSELoss(),
    )  # fmt: skip


class Counted:
    """A screen, and how often it was drawn on."""

    def __init__(self, screen: Screen) -> None:
        self.screen, self.fits, self.times = screen, screen.fits, 0

    def show(self, data: Any) -> None:
        self.times += 1
        self.screen.show(data)

    def close(self) -> None:
        self.screen.close()


def live(engine: str, runs: int, steps: int, repeats: int) -> None:
    rates = np.geomspace(0.001, 0.1, runs).tolist()
    asked = {"lr": rates, "every": 10 if engine != "fused" else 500, "keep": KEPT, "engine": engine}
    plan = ds.descend(problem(), optim.SGD, steps=1, progress=False, **asked).plan
    assert plan is not None
    plan = replace(plan, options=replace(plan.options, updates=steps))
    results, drawn = {}, {}
    spent: dict[str, list[float]] = {}

    def side(name: str, screen: Callable[[], Screen] | None) -> Callable[[], None]:
        def work() -> None:
            counted = None if screen is None else Counted(screen())
            view = None if counted is None else LiveView(counted)
            start = time.process_time()
            results[name] = carry_out(plan, None, False, view)
            spent.setdefault(name, []).append(time.process_time() - start)
            drawn[name] = 0 if counted is None else counted.times

        return work

    sides = {"none": side("none", None), "terminal": side("terminal", terminal),
             "notebook": side("notebook", notebook)}  # fmt: skip
    for work in sides.values():
        work()
    load = OthersLoad()
    times = in_turn(sides, repeats)
    for name in ("terminal", "notebook"):
        for part in ("loss", "steps", "status"):
            same = np.array_equal(getattr(results["none"], part), getattr(results[name], part),
                                  equal_nan=part == "loss")  # fmt: skip
            assert same, f"{engine} with {name}: another {part}"
        ratios = [a / b for a, b in zip(times[name], times["none"], strict=True)]
        work = statistics.median(
            a / b for a, b in zip(spent[name][1:], spent["none"][1:], strict=True)
        )
        print(
            f"{engine:8} {runs:4} runs × {steps:7,} steps | {statistics.median(times['none']):6.2f}"
            f" s without | {name:8} × {statistics.median(ratios):.2f}"
            f" ({min(ratios):.2f} to {max(ratios):.2f}), processor time × {work:.2f}"
            f" | drawn {drawn[name]} times | others' load {load.share():.0%}"
        )


def moving(repeats: int) -> None:
    runs = ds.descend(
        problem(), optim.SGD, lr=0.05, steps=5000, every=10, keep=KEPT, progress=False
    )
    with tempfile.TemporaryDirectory() as folder:
        for what in ("fit", "losses"):
            seconds = []
            for _ in range(repeats):
                start = time.perf_counter()
                made = runs.animate(Path(folder) / "a.gif", what)
                seconds.append(time.perf_counter() - start)
            size = made.stat().st_size / 1e6
            print(f"GIF of {what}: {statistics.median(seconds):.2f} s, {size:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, matplotlib {matplotlib.__version__}, medians of {repeats}"
    )
    moving(repeats)
    for engine, (runs, steps) in CASES.items():
        live(engine, runs, steps, repeats)


if __name__ == "__main__":
    main()
