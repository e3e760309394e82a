"""Times of works in turn, and how much of the machine others took meanwhile."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PAUSE = 0.05
"""Seconds before each measurement: pools of threads spin for a while after their work."""

LONGEST = 180.0
"""Seconds after which no further repetition is begun."""


def seconds(work: Callable[[], object]) -> float:
    """How long a call takes."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(sides: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, each repetition doing all of them one after another; at least one."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    end = time.perf_counter() + LONGEST
    for turn in range(repeats):
        if turn and time.perf_counter() > end:
            break
        for name, work in sides.items():
            times[name].append(seconds(work))
    return times


def median_ratio(times: Mapping[str, list[float]], above: str, below: str) -> float:
    """The median over the repetitions of one side's time over the other's."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


class OthersLoad:
    """What share of the machine other processes took between two moments (Linux; else NaN)."""

    def __init__(self) -> None:
        self.before = _ticks()

    def share(self) -> float:
        """Since it was made."""
        now = _ticks()
        total, idle, own = (b - a for a, b in zip(self.before, now, strict=True))
        return max(0.0, 1 - (idle + own) / total) if total > 0 else float("nan")


def _ticks() -> tuple[float, float, float]:
    """Seconds of all cores, of their idling, and of this process and its ended children."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0, 0.0, 0.0
    fields = [int(field) for field in stat.read_text().splitlines()[0].split()[1:9]]
    tick = os.sysconf("SC_CLK_TCK")
    own = os.times()
    return sum(fields) / tick, (fields[3] + fields[4]) / tick, sum(own[:4])
