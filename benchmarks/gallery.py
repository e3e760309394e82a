"""How long each example of the gallery takes, as a user calls it, and how large a report is.

Each should take under 20 s on two cores, but for the boundary of trainability: about a minute.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import matplotlib
import torch
from _report import Goal, duration
from _timing import OthersLoad

import downslope as ds
from downslope.gallery import EXAMPLES

MOST, BOUNDARY = 20.0, 75.0
RUNS, KILOBYTES = 10_000, 500


def example(name: str, folder: Path) -> float:
    """Seconds of ``downslope gallery NAME``, in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "downslope", "gallery", name, "--out", str(folder / name)]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def report(folder: Path) -> tuple[float, float]:
    """Seconds and kilobytes of a report on many runs."""
    bowl = ds.Problem.from_function(lambda a, b: a**2 + 10 * b**2, start={"a": 1.0, "b": 1.0})
    runs = ds.descend(bowl, lr=ds.log_range(1e-4, 0.15, RUNS), steps=100, progress=False)
    began = time.perf_counter()
    written = runs.report(folder / "report.html")
    return time.perf_counter() - began, written.stat().st_size / 1000


def main() -> None:
    versions = f"matplotlib {matplotlib.__version__}, torch {torch.__version__}"
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}")
    with tempfile.TemporaryDirectory() as made:
        for name in EXAMPLES:
            load = OthersLoad()
            took = example(name, Path(made))
            goal = Goal(took, BOUNDARY if name == "boundary" else MOST, "s", at_most=True)
            said = "met" if goal.met else "not met"
            print(f"{name:20}{duration(took):>8}, goal {goal.wanted()} s: {said}; "
                  f"others took {load.share():.0%}")  # fmt: skip
        seconds, size = report(Path(made))
        goal = Goal(size, KILOBYTES, "kB", at_most=True)
        said = "met" if goal.met else "not met"
        print(f"report on {RUNS:,} runs: {size:.0f} kB in {duration(seconds)}, "
              f"goal {goal.wanted()} kB: {said}")  # fmt: skip


if __name__ == "__main__":
    main()
