"""Cases 8 to 12: what is measured on our side alone, or beside torch and a bare kernel."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _cases import line_one_by_one, relu_net, two_rates
from _peak import Peak
from _report import Goal, Row, duration, warm_and_cold
from _timing import OthersLoad, in_turn, median_ratio, seconds
from torch import nn, optim

import downslope as ds

CACHE = "DOWNSLOPE_CACHE"
"""The environment variable that names the folder of compiled programs."""


def known_problem(engine: str, quick: bool, repeats: int) -> Row:
    """8: what a call costs that has next to nothing to do."""
    problem = relu_net(True).problem

    def call() -> ds.Runs:
        return ds.descend(
            problem, optim.SGD, lr=0.01, steps=1, every=1, engine=engine, progress=False
        )

    cold = seconds(call)
    load = OthersLoad()
    times = in_turn({"ours": call}, 4 * repeats)["ours"]
    goal = Goal(statistics.median(times) * 1e3, 10.0, "ms", at_most=True)
    title = "one run, one step, on a problem it knows (1-10-1 ReLU, 200 points)"
    return Row(8, title, warm_and_cold(times, cold), "", (goal,), "", load.share())


def compiling(engine: str, quick: bool, repeats: int) -> Row:
    """9: fresh processes, with and without compiled programs on disk."""
    load = OthersLoad()
    firsts, seconds_, cached = [], [], []
    for _ in range(max(2, repeats // 2)):
        with tempfile.TemporaryDirectory() as folder:
            firsts.append(_fresh("first", engine, folder)[0])
        with tempfile.TemporaryDirectory() as folder:
            seconds_.append(_fresh("second", engine, folder)[0])
            cached.append(_fresh("cached", engine, folder))
    from_disk = [took for took, _ in cached]
    trace = statistics.median(traced for _, traced in cached)
    above = statistics.median(took - traced for took, traced in cached)
    goals = (
        Goal(statistics.median(seconds_), 0.4, "s, cold", at_most=True),
        Goal(statistics.median(firsts), 1.2, "s, the process's first call", at_most=True),
        Goal(above, 0.05, "s from disk, above torch's traces", at_most=True),
    )
    ours = f"from disk {duration(statistics.median(from_disk))}"
    note = f"torch's own traces of one sample and of four take {duration(trace)} of these"
    return Row(9, "compiling a 10-25-1 net (301 parameters)", ours, "", goals, note, load.share())


def many_runs(engine: str, quick: bool, repeats: int) -> Row:
    """10: the cost of a run does not grow with their number, nor does memory beyond results."""
    counts = (1000, 10_000) if quick else (1000, 10_000, 100_000, 1_000_000)
    cases = {str(count): line_one_by_one(False, count) for count in counts}
    sides = {name: partial(case.ours, engine) for name, case in cases.items()}
    cold = seconds(sides[str(counts[0])])
    load = OthersLoad()
    times = in_turn(sides, repeats)
    each = {name: statistics.median(times[name]) / int(name) * 1e6 for name in times}
    few, many = counts[0] if quick else 10_000, counts[-1]
    grown = median_ratio(times, str(many), str(few)) * few / many
    goals = [
        Goal((grown - 1) * 100, 15.0, f"% more a run at {many:,} than at {few:,}", at_most=True)
    ]
    note = ", ".join(f"{int(name):,} runs: {cost:.3g} µs a run" for name, cost in each.items())
    if sys.platform == "linux":
        above, results = _fresh("memory", engine, os.environ.get(CACHE, "off"), counts[-1])
        goals.append(Goal((above - results) / 1e9, 1.0, "GB above the results", at_most=True))
        note += f"; results {results / 1e9:.2g} GB"
    title = f"straight line, one sample a step, 2,000 steps, {counts[0]:,} to {many:,} runs"
    return Row(
        10, title, warm_and_cold(times[str(many)], cold), "", tuple(goals), note, load.share()
    )  # fmt: skip


def least_squares(engine: str, quick: bool, repeats: int) -> Row:
    """11: a linear model's batch descent needs its rows once."""
    count, steps, rate = (10_000, 1000, 0.01) if quick else (1_000_000, 10_000, 0.01)
    generator = torch.Generator().manual_seed(3)
    X = torch.randn(count, 20, generator=generator) * torch.linspace(0.1, 1, 20)
    y = X @ torch.linspace(-1, 1, 20)[:, None] + 0.1 * torch.randn(count, 1, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(20, 1)
    problem = ds.Problem.from_model(model, X, y, loss=nn.MSELoss())

    def ours() -> ds.Runs:
        return ds.descend(
            problem, optim.SGD, lr=rate, batch_size="full", steps=steps, every=steps,
            engine=engine, progress=False,
        )  # fmt: skip

    def gradient_pass() -> None:
        model.zero_grad()
        nn.functional.mse_loss(model(X), y).backward()

    gradient_pass()
    cold = seconds(ours)
    load = OthersLoad()
    times = in_turn({"ours": ours, "pass": gradient_pass}, repeats)
    exact = _least_squares_loss(model, X, y, rate, steps)
    difference = abs(float(ours().table["final_loss"][0]) / exact - 1)
    return Row(
        11, f"least squares, {count:,} rows × 20, full batch, {steps:,} steps",
        warm_and_cold(times["ours"], cold),
        f"torch: one pass forward and backward {duration(statistics.median(times['pass']))}",
        (Goal(median_ratio(times, "ours", "pass"), 4.0, "passes", at_most=True),),
        f"loss differs by {difference:.0e} from the closed form in float64", load.share(),
    )  # fmt: skip


def _least_squares_loss(
    model: nn.Linear, X: torch.Tensor, y: torch.Tensor, rate: float, steps: int
) -> float:
    """The loss after that many steps, by the eigenvectors of the loss's second derivative.

    The gradient is H w - c: in each eigenvector's direction, the way that is left to the minimum
    is multiplied by 1 - rate × eigenvalue in every step.
    """
    A = np.hstack([X.double().numpy(), np.ones((len(X), 1))])
    target = y.double().numpy()[:, 0]
    eigenvalues, vectors = np.linalg.eigh(2 / len(A) * A.T @ A)
    weights = [model.weight.detach().double().numpy()[0], model.bias.detach().double().numpy()]
    least = np.linalg.solve(A.T @ A, A.T @ target)
    left = vectors.T @ (np.concatenate(weights) - least)
    reached = least + vectors @ ((1 - rate * eigenvalues) ** steps * left)
    return float(np.mean((A @ reached - target) ** 2))


def two_threads(engine: str, quick: bool, repeats: int) -> list[Row]:
    """12: one thread and two; the bare kernel says what this machine has to give."""
    rows = []
    for case in (two_rates(quick), relu_net(quick)):
        peak = Peak()
        cold = seconds(lambda case=case: case.ours(engine))
        sides: Mapping[str, Callable[[], object]] = {
            "1": partial(_with_threads, 1, partial(case.ours, engine)),
            "2": partial(_with_threads, 2, partial(case.ours, engine)),
            "kernel 1": partial(peak.work, 1),
            "kernel 2": partial(peak.work, 2),
        }
        load = OthersLoad()
        times = in_turn(sides, repeats)
        bare = 2 * median_ratio(times, "kernel 1", "kernel 2")
        rows.append(
            Row(
                12, f"1 → 2 threads, case {case.number}",
                f"1: {duration(statistics.median(times['1']))}, "
                f"2: {warm_and_cold(times['2'], cold)}", "",
                (Goal(median_ratio(times, "1", "2"), 1.8, "× faster on 2 threads"),),
                f"a bare multiply-add kernel: {bare:.3g} ×", load.share(),
            )
        )  # fmt: skip
    return rows


def _with_threads(threads: int, work: Callable[[], object]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    work()
    torch.set_num_threads(before)


def _fresh(what: str, engine: str, folder: str, count: int = 0) -> list[float]:
    command = [sys.executable, Path(__file__).with_name("_fresh.py"), what, engine, str(count)]
    environment = {**os.environ, CACHE: folder}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, env=environment
    )  # fmt: skip
    return json.loads(done.stdout)
