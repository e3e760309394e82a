"""Rates found by `tune` and by two well-known finders, judged by an ordinary torch loop.

54 problems (linear, logistic, tanh network × condition 1, 30, 1000 × SGD, momentum 0.9, Adam ×
seeds), 300 steps of batch 32. Each finder's rate is trained with by the usual loop over fresh
orders of its own shuffling; the median final loss over all rows is divided by the best median on a
grid of 33 rates from 1e-6 to 1e2 over as many other fresh orders. The grid is computed with
`descend`, after the usual loop has shown on a sample of points that it ends at the same loss.

Goals: within 1.1 × in at least 46 of 54 and within 1.5 × in all; one call of `tune` costs at most
10 ordinary trainings (warm; the first call of each program is reported apart).

    python benchmarks/rate_finder.py              # everything, some ten minutes
    python benchmarks/rate_finder.py --every 7    # every seventh problem
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from itertools import count

import numpy as np
import torch
from _rate_finders import HAVE_TORCH_LR_FINDER, steepest, valley
from _rate_problems import BATCH, NOISE, ROWS, STEPS, Case, cases, own_shuffling, train
from _timing import OthersLoad, in_turn, seconds

import downslope as ds
from downslope.sampling import epoch_order

GRID = ds.log_range(1e-6, 1e2, 33)
FRESH, GRID_SEEDS = 50_000, 90_000
"""Where the seeds of the judging and of the grid begin: far from those that `tune` takes."""

AGREE = 1e-3
"""Relative difference of final losses (float32) up to which loop and `descend` are the same."""

WITHIN = {1.1: 46 / 54, 1.5: 1.0}
MOST_TRAININGS = 10.0


@dataclass(frozen=True)
class Judged:
    """What came out for one problem: rates and ratios by finder, times in seconds."""

    name: str
    best: float
    best_rate: float
    rates: dict[str, float]
    ratios: dict[str, float]
    cold: float
    warm: list[float]
    training: list[float]
    difference: float


def tuned(case: Case) -> ds.Tuning:
    return ds.tune(case.problem, case.optimizer, steps=STEPS, batch_size=BATCH, progress=False,
                   **case.settings)  # fmt: skip


def judged_by_loop(case: Case, rate: float, orders: int) -> float:
    """The median final loss over fresh orders."""
    return statistics.median(train(case, rate, own_shuffling(FRESH + k)) for k in range(orders))


def grid(case: Case, orders: int) -> np.ndarray:
    """Median final losses at the rates of the grid, (rates,); inf where they are no numbers."""
    runs = ds.descend(
        case.problem, case.optimizer, lr=GRID, seed=range(GRID_SEEDS, GRID_SEEDS + orders),
        steps=STEPS, every=STEPS, batch_size=BATCH, divergence=None, progress=False,
        **case.settings,
    )  # fmt: skip
    ends = runs.score.reshape(len(GRID), orders)
    return np.median(np.where(np.isfinite(ends), ends, np.inf), axis=1)


def disagreement(case: Case, rate: float) -> float:
    """How far `descend` is from the usual loop on the same order."""

    def orders() -> Iterator[torch.Tensor]:
        for epoch in count():
            yield torch.from_numpy(epoch_order("shuffle", ROWS, GRID_SEEDS, epoch))

    by_loop = train(case, rate, orders())
    runs = ds.descend(
        case.problem, case.optimizer, lr=[rate, *GRID], seed=GRID_SEEDS, steps=STEPS, every=STEPS,
        batch_size=BATCH, divergence=None, progress=False, **case.settings,
    )  # fmt: skip
    return abs(float(runs.score[0]) / by_loop - 1)


def judge(case: Case, orders: int, repeats: int) -> Judged:
    found: list[ds.Tuning] = []
    cold = seconds(lambda: found.append(tuned(case)))
    times = in_turn(
        {"tune": lambda: tuned(case), "train": lambda: train(case, 0.01, own_shuffling(FRESH))},
        repeats,
    )
    assert found[0].lr is not None
    finders: dict[str, Callable[[Case], float]] = {"valley": valley}
    if HAVE_TORCH_LR_FINDER:
        finders["torch-lr-finder"] = steepest
    rates = {"tune": found[0].lr, **{name: finder(case) for name, finder in finders.items()}}
    medians = grid(case, orders)
    best = float(medians.min())
    rate = GRID[int(medians.argmin())]
    return Judged(
        name=f"{case.kind:8} κ={case.condition:<4} {case.method:8} seed {case.seed}",
        best=best,
        best_rate=rate,
        rates=rates,
        ratios={name: judged_by_loop(case, rate, orders) / best for name, rate in rates.items()},
        cold=cold,
        warm=times["tune"],
        training=times["train"],
        difference=max(disagreement(case, rate), disagreement(case, rate / 10)),
    )


def line(one: Judged) -> str:
    cells = [f"{one.rates[name]:8.3g} {one.ratios[name]:8.3g}" for name in one.rates]
    cost = statistics.median(a / b for a, b in zip(one.warm, one.training, strict=True))
    return (f"{one.name} | {one.best:8.4g} {one.best_rate:8.3g} | {' | '.join(cells)} "
            f"| {cost:5.2f}")  # fmt: skip


def summary(all_of: list[Judged]) -> None:
    print(f"\n{'finder':18}{'≤ 1.1 ×':>9}{'≤ 1.5 ×':>9}{'≤ 2 ×':>9}{'median':>9}{'worst':>9}")
    for name in all_of[0].ratios:
        ratios = [one.ratios[name] for one in all_of]
        within = [sum(r <= bound for r in ratios) for bound in (1.1, 1.5, 2.0)]
        print(f"{name:18}" + "".join(f"{n:6} / {len(ratios)}"[-9:].rjust(9) for n in within)
              + f"{statistics.median(ratios):9.3g}{max(ratios):9.3g}")  # fmt: skip
    ratios = [one.ratios["tune"] for one in all_of]
    for bound, share in WITHIN.items():
        got, wanted = sum(r <= bound for r in ratios), int(np.ceil(share * len(ratios) - 1e-9))
        met = "met" if got >= wanted else "NOT MET"
        print(f"goal: within {bound} × in at least {wanted} of {len(ratios)}: {got}, {met}")
    costs = [
        statistics.median(a / b for a, b in zip(one.warm, one.training, strict=True))
        for one in all_of
    ]
    met = "met" if max(costs) <= MOST_TRAININGS else "NOT MET"
    print(
        f"one call of tune costs {statistics.median(costs):.3g} ordinary trainings (median; "
        f"at most {max(costs):.3g}; goal at most {MOST_TRAININGS:g}): {met}"
    )
    print(
        f"a training takes {statistics.median(t for o in all_of for t in o.training):.3f} s, a "
        f"call of tune {statistics.median(t for o in all_of for t in o.warm):.3f} s warm; the "
        f"first call of a program up to {max(o.cold for o in all_of):.2f} s"
    )
    worst = max(one.difference for one in all_of)
    met = "agreed" if worst <= AGREE else "DISAGREED"
    print(f"descend and the usual loop {met} on two rates of each problem: {worst:.0e} at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="27 problems each [2]")
    parser.add_argument("--every", type=int, default=1, help="take every so many-th problem [1]")
    parser.add_argument("--orders", type=int, default=15, help="fresh orders [15]")
    parser.add_argument("--repeats", type=int, default=3, help="of the timings [3]")
    parser.add_argument("--noise", type=float, default=NOISE, help=f"of the targets [{NOISE}]")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a step of this size is slower on more
    peer = version("torch-lr-finder") if HAVE_TORCH_LR_FINDER else "not installed, left out"
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"torch {torch.__version__}, torch-lr-finder {peer}")  # fmt: skip
    print(f"{ROWS} rows, {STEPS} steps of batch {BATCH}, noise {given.noise:g}, medians of "
          f"{given.orders} fresh orders, everything on one thread")  # fmt: skip
    print("problem, optimizer | best on the grid: loss, rate | "
          "each finder: rate, × best | cost of tune in trainings")  # fmt: skip
    load, done = OthersLoad(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DOWNSLOPE_CACHE"] = folder  # so that first calls are first calls
        for case in list(cases(given.seeds, given.noise))[:: given.every]:
            done.append(judge(case, given.orders, given.repeats))
            if len(done) == 1:
                print(f"finders: {', '.join(done[0].rates)}")
            print(line(done[-1]), flush=True)
    summary(done)
    print(f"other processes took {load.share():.0%} of the machine meanwhile")


if __name__ == "__main__":
    main()
