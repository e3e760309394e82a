"""What the engines cost beside a hand-written torch loop, on a 16-32-1 net with batches of 32.

Both sides run in one process, in turn; medians of ratios are printed, and that both computed the
same thing. ``looped`` should cost at most 1.15 times the loop; ``stacked`` with 1,024 runs should
be at least 20 times cheaper per run.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn, optim

import downslope as ds
from downslope.sampling import epoch_order

ROWS, BATCH, EPOCHS, REPEATS, RUNS = 512, 32, 30, 7, 1024
STACKED_EPOCHS = 15
LR = 0.01


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(ROWS, 16, generator=generator)
    return X, X.sum(1, keepdim=True).sin()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))


def hand_written(X: torch.Tensor, y: torch.Tensor, epochs: int) -> list[float]:
    """The usual loop: shuffled batches, the full loss after every epoch."""
    model, loss_of = net(), nn.MSELoss()
    optimizer = optim.SGD(model.parameters(), lr=LR)
    losses = []
    for epoch in range(epochs):
        order = torch.from_numpy(epoch_order("shuffle", ROWS, 0, epoch))
        for first in range(0, ROWS, BATCH):
            chosen = order[first : first + BATCH]
            optimizer.zero_grad()
            loss = loss_of(model(X[chosen]), y[chosen])
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            losses.append(float(loss_of(model(X), y)))
    return losses


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)  # a step of this size is slower on more
    X, y = data()
    problem = ds.Problem.from_model(net(), X, y, loss=nn.MSELoss())
    kwargs = {"batch_size": BATCH, "epochs": EPOCHS, "progress": False}

    def looped() -> ds.Runs:
        return ds.descend(problem, optim.SGD, lr=LR, engine="looped", **kwargs)

    by_hand = hand_written(X, y, EPOCHS)
    difference = np.abs(looped().loss[0, 1:] / np.array(by_hand) - 1).max()
    pairs = [(seconds(looped), seconds(lambda: hand_written(X, y, EPOCHS))) for _ in range(REPEATS)]
    ratio = statistics.median(a / b for a, b in pairs)
    loop = statistics.median(b for _, b in pairs)
    steps = EPOCHS * ROWS // BATCH
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
          f"Python {platform.python_version()}, torch {torch.__version__}")  # fmt: skip
    print(f"16-32-1 net, {ROWS} rows, batch {BATCH}, {EPOCHS} epochs, medians of {REPEATS}")
    print(f"hand-written loop   {loop / steps * 1e6:8.1f} µs a step (1 thread)")
    print(
        f"looped              {ratio:8.2f} × the loop (losses differ by {difference:.0e} at most)"
    )

    torch.set_num_threads(os.cpu_count() or 1)
    rates = ds.log_range(1e-4, 0.05, RUNS)
    few = {**kwargs, "epochs": STACKED_EPOCHS}

    def stacked() -> ds.Runs:
        return ds.descend(problem, optim.SGD, lr=rates, engine="stacked", **few)

    cold = seconds(stacked)
    same = ds.descend(problem, optim.SGD, lr=rates[::256], engine="looped", **few)
    stacked_losses = stacked().loss[::256]
    difference = np.abs(stacked_losses / same.loss - 1).max()
    pairs = []
    for _ in range(REPEATS):
        many = seconds(stacked)
        torch.set_num_threads(1)
        pairs.append((many, seconds(lambda: hand_written(X, y, STACKED_EPOCHS))))
        torch.set_num_threads(os.cpu_count() or 1)
    cheaper = statistics.median(b / (a / RUNS) for a, b in pairs)
    print(f"stacked, {RUNS} runs  {cheaper:8.1f} × cheaper per run than the loop "
          f"(cold {cold:.2f} s, warm {statistics.median(a for a, _ in pairs):.2f} s; "
          f"losses differ by {difference:.0e})")  # fmt: skip
    times = [seconds(_help) for _ in range(REPEATS)]
    print(f"downslope --help    {statistics.median(times):8.2f} s")


def _help() -> None:
    command = [sys.executable, "-m", "downslope", "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
