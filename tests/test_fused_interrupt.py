"""Ctrl-C in a long compiled descent: it ends at once, and what was finished is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from beside import assert_same_bits, fused
from cases import table_rows
from torch import nn

import downslope
from downslope import InterruptedWarning, Problem
from downslope.engines.fused import serve
from downslope.errors import ProblemError
from downslope.progress import Progress

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")

ALLOWED = 0.5
"""Seconds from the signal to the end of `descend`."""

SCRIPT = """
import sys, time, warnings
import torch
from torch import nn, optim
from downslope import Problem, descend

def tall(rows, inputs, *hidden):
    torch.manual_seed(0)
    sizes = [inputs, *hidden, 1]
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
    data = torch.randn(rows, inputs), torch.randn(rows, 1)
    return Problem.from_model(nn.Sequential(*layers[:-1]), *data, loss=nn.MSELoss())

torch.set_num_threads(THREADS)
problem, asked = CASE
said, told = "returned", ""
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print("ready", flush=True)
    try:
        runs = descend(problem, "SGD", engine="fused", progress=False, **asked)
        told = f"{len(runs)} runs"
    except KeyboardInterrupt:
        said = "KeyboardInterrupt"
    print("ended", time.time(), said, told, [str(w.message) for w in caught], flush=True)
"""

CASES = {
    # One chunk, which is not finished: nothing to keep.
    "a single run": "tall(1000, 3), {'lr': 1e-4, 'steps': 10**8, 'every': 10**7}",
    "many rows": "tall(10**6, 3, 8), {'lr': [1e-4] * 64, 'steps': 10**5}",
    "many rows evaluated": "tall(300_000, 16, 32, 16), {'lr': [1e-4] * 64, 'steps': 10**6, "
    "'batch_size': 8, 'every': 10}",
    "no data": "Problem.from_function(lambda w: (w**2).sum(), start=[1.0, 2.0]), "
    "{'lr': [1e-9 * k for k in range(20_000)], 'steps': 10**7, 'every': 10**6}",
    # Many chunks, some of which are finished by then.
    "many chunks": "tall(100, 3), {'lr': [1e-6 * k for k in range(2**16)], 'steps': 60_000, "
    "'batch_size': 5, 'every': 30_000}",
    "many orders": "tall(30_000, 3), {'lr': 1e-4, 'seed': range(2**14), 'batch_size': 100, "
    "'epochs': 1}",
}  # fmt: skip


def interrupted(case: str, threads: int = 1, after: float = 1.5) -> tuple[str, float, str]:
    """What a descent said that was interrupted, after how many seconds, and how many were kept."""
    code = SCRIPT.replace("CASE", case).replace("THREADS", str(threads))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(after)
        sent = time.time()
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=60)[0]
    # Python ends by the signal itself where that came through code that was run from C.
    assert process.returncode in (0, -signal.SIGINT), told
    assert told.startswith("ended "), told
    _, at, said, rest = told.split(maxsplit=3)
    return said, float(at) - sent, rest


@pytest.mark.parametrize("name", ["a single run", "many rows"])
def test_it_ends_at_once(name):
    said, seconds, _ = interrupted(CASES[name])
    assert said == "KeyboardInterrupt"
    assert seconds < ALLOWED


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.3, 3.0, 6.0])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_it_ends_at_once_wherever_it_is(name, threads, after):
    said, seconds, rest = interrupted(CASES[name], threads, after)
    assert seconds < ALLOWED
    if said == "returned":
        assert "interrupted" in rest


@pytest.mark.parametrize("after", [1, 5])
def test_finished_chunks_are_kept_and_a_study_is_resumed(after, tmp_path, monkeypatch):
    """Interrupted once it has written so many chunks of eight, and taken up again."""
    monkeypatch.setattr(serve, "_OPERATIONS", 1e6)
    X, y = table_rows(14, 3)
    problem = Problem.from_model(nn.Linear(3, 1), X, y, loss=nn.MSELoss())
    asked = {"lr": [1e-5 * k for k in range(2048)], "steps": 50, "batch_size": 5, "seed": 2}
    finished, count = Progress.finished, iter(range(1, 99))

    def interrupting(*given):
        finished(*given)
        if next(count) == after:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch, pytest.warns(InterruptedWarning, match="are kept in"):
        patch.setattr(Progress, "finished", interrupting)
        first = fused(problem, study=tmp_path, **asked)
    size = len(first) // after
    assert len(first) == size * after < 2048 and first.interrupted == 2048 - len(first)
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("*.parquet")}
    assert len(kept) == after
    resumed = fused(problem, study=tmp_path, **asked)
    for name, data in kept.items():
        assert (tmp_path / name).read_bytes() == data, "what was finished is computed again"
    whole = fused(problem, **asked)
    for runs in (resumed, downslope.load(tmp_path, problem=problem)):
        for k in range(0, 2048, 17):
            assert_same_bits(whole, k, runs, k)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("can't start new thread")])
def test_an_interruption_while_threads_are_started_waits_for_those_that_run(error, monkeypatch):
    """What they write to must be there as long as they write."""
    start, started = threading.Thread.start, []

    def interrupted(self):
        start(self)
        if self.daemon and self is not threading.current_thread():
            started.append(self)
            raise error

    X, y = table_rows(14, 3)
    problem = Problem.from_model(nn.Linear(3, 1), X, y, loss=nn.MSELoss())
    with monkeypatch.context() as patch, pytest.raises((KeyboardInterrupt, ProblemError)):
        patch.setattr(threading.Thread, "start", interrupted)
        fused(problem, lr=[1e-3] * 256, steps=10**7, every=10**6)
    (thread,) = started
    thread.join(1.0)
    assert not thread.is_alive()
