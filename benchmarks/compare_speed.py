"""How long `downslope compare` takes: SGD, momentum, Adam and RMSprop on 10 problems, 32 trials on
3 seeds, the chosen and the default setting on 10 fresh seeds. The goal is under 60 s on 2 cores.

Every run is a process of its own, imports included: cold with an empty folder of compiled programs,
warm with the one that the cold run before it filled. All must print the same.
"""

from __future__ import annotations

import hashlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from _timing import OthersLoad

import downslope as ds

REPEATS, GOAL = 3, 60.0
COMMAND = "import typer; from downslope.cli_compare import compare; typer.run(compare)"


def run(cache: str) -> tuple[float, str]:
    """Seconds of the command, and a hash of what it printed."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "--json"],
        env={**os.environ, "DOWNSLOPE_CACHE": cache},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start, hashlib.sha256(done.stdout).hexdigest()[:12]


def main() -> None:
    load = OthersLoad()
    cold, warm = [], []
    for _ in range(REPEATS):
        with tempfile.TemporaryDirectory() as cache:
            cold.append(run(cache))
            warm.append(run(cache))
    printed = {hashed for _, hashed in (*cold, *warm)}
    names = ds.problems.DEFAULT
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, torch {torch.__version__}")  # fmt: skip
    print(f"{len(names)} problems: {', '.join(names)}")
    for what, runs in (("cold", cold), ("warm", warm)):
        median = statistics.median(seconds for seconds, _ in runs)
        print(f"{what}  median of {REPEATS}: {median:6.1f} s  ({'≤' if median <= GOAL else '>'} "
              f"{GOAL:g} s)")  # fmt: skip
    same = "the same to the digit" if len(printed) == 1 else f"DIFFERENT: {sorted(printed)}"
    print(f"{2 * REPEATS} processes printed {same}")
    print(f"others took {load.share():.0%} of the machine meanwhile")


if __name__ == "__main__":
    main()
