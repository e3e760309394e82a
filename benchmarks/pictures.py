"""How long large pictures take: from runs to a PNG. Each should take under 2 s.

Beside them the floor: matplotlib drawing the same cells or lines with nothing else around them.
"""

from __future__ import annotations

import io
import platform
import statistics
from collections.abc import Callable
from functools import partial

import matplotlib
import numpy as np
import torch
from _report import Goal, duration
from _timing import OthersLoad, in_turn
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.views.data.grids import outcome_map

RECORDS, REPEATS, MOST = 1000, 5, 2.0


def png(make: Callable[[], Figure]) -> None:
    make().savefig(io.BytesIO(), format="png", dpi=150)


def lines(values: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    points = [np.column_stack([np.arange(values.shape[1]), row]) for row in values]
    axes.add_collection(LineCollection(points, linewidths=0.6))
    axes.set_yscale("log")
    axes.set(xlim=(0, values.shape[1]), ylim=(np.nanmin(values[values > 0]), np.nanmax(values)))
    return figure


def cells(runs: ds.Runs) -> Figure:
    data = outcome_map(runs)
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    axes.pcolormesh(data.x.edges, data.y.edges, np.ma.masked_invalid(data.values))
    axes.set_xscale("log")
    return figure


def main() -> None:
    bowl = ds.Problem.from_function(lambda a, b: a**2 + 10 * b**2, start={"a": 1.0, "b": 1.0})
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    line = ds.Problem.from_model(lambda: nn.Linear(3, 1), x, x[:, :1], loss=nn.MSELoss())
    descend = partial(ds.descend, progress=False)
    alone = descend(bowl, lr=ds.log_range(1e-4, 0.15, 1000), steps=RECORDS)
    seeds = descend(line, lr=ds.log_range(1e-3, 3, 100), seed=range(10), steps=RECORDS)
    side = 256
    rates, momenta = ds.log_range(1e-3, 1, side), np.linspace(0, 0.99, side)
    grid = descend(bowl, optim.SGD, lr=rates, momentum=momenta, steps=60)
    works: dict[str, tuple[Callable[[], Figure], Callable[[], Figure]]] = {
        "losses, 1,000 settings × 1,001 records": (alone.plot.losses, lambda: lines(alone.loss)),
        "losses, 100 settings × 10 seeds × 1,001": (seeds.plot.losses, lambda: lines(seeds.loss)),
        "sensitivity, 1,000 rates": (alone.plot.sensitivity, lambda: lines(alone.loss[:, -1:].T)),
        f"map, {side} × {side}": (grid.plot.map, lambda: cells(grid)),
        f"map of sums, {side} × {side}": (lambda: grid.plot.map(of="sum"), lambda: cells(grid)),
    }
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, "
          f"matplotlib {matplotlib.__version__}, torch {torch.__version__}")  # fmt: skip
    for name, (ours, floor) in works.items():
        load = OthersLoad()
        times = in_turn({"ours": partial(png, ours), "floor": partial(png, floor)}, REPEATS + 1)
        took = statistics.median(times["ours"][1:])
        goal = Goal(took, MOST, "s", at_most=True)
        print(f"{name:40} {duration(took):>8} (first {duration(times['ours'][0])}; bare "
              f"{duration(statistics.median(times['floor'][1:]))}), goal {goal.wanted()} s: "
              f"{'met' if goal.met else 'not met'}; others took {load.share():.0%}")  # fmt: skip


if __name__ == "__main__":
    main()
