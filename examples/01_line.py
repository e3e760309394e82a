"""Batch against stochastic gradient descent on a straight line, at one and the same step size.

One update from all 100 samples an epoch finds the line; 100 updates an epoch, from one sample
each, explode. Run: python examples/01_line.py [OUT_DIR]
"""

import sys
from pathlib import Path

import torch
from torch import nn, optim

import downslope as ds

# The tutorial does not print its samples. What descent sees of them are three means, which follow
# from its table (mean y, mean xy, mean y²), and in the stochastic case each sample: the first
# four follow from its first four updates. The other 96 are drawn, then made to fit the means.
MEAN_Y, MEAN_XY, MEAN_YY = 0.18962928, -41.61373523, 207.90862803
x = torch.arange(-50, 50, dtype=torch.float64) / 10
y = -5 * x + 0.4 * torch.randn(100, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
y[:4] = torch.tensor([25.02630922, 24.96712570, 24.26880804, 23.42900304])
line = torch.stack([torch.ones(96, dtype=x.dtype), x[4:]], dim=1)
noise = y[4:] - line @ torch.linalg.lstsq(line, y[4:, None]).solution[:, 0]
wanted = 100 * torch.tensor([MEAN_Y, MEAN_XY], dtype=x.dtype)
wanted -= torch.stack([y[:4].sum(), x[:4] @ y[:4]])
y[4:] = line @ torch.linalg.solve(line.T @ line, wanted)
y[4:] += noise * ((100 * MEAN_YY - y @ y) / (noise @ noise)).sqrt()

out = Path(sys.argv[1] if len(sys.argv) > 1 else "line")
out.mkdir(parents=True, exist_ok=True)
start = {"w": torch.tensor(-10, dtype=x.dtype), "b": torch.tensor(-20, dtype=x.dtype)}
problem = ds.Problem.from_function(
    lambda x, w, b: w * x + b, X=x, y=y, loss=nn.MSELoss(), start=start
)
kept = {"order": "cyclic", "divergence": None, "keep": ("loss", "batch_loss", "parameters")}
runs = ds.descend(problem, optim.SGD, lr=0.1, batch_size=["full", 1], epochs=20, **kept)
first = ds.descend(problem, optim.SGD, lr=0.1, batch_size=1, steps=4, every="step", **kept)[0]
batch, stochastic = runs

print("Batch descent: the loss before each update, w and b after it")
print(f"{'epoch':>5} {'loss':>10} {'w':>10} {'b':>11}")
for epoch in range(20):
    w, b = (float(batch.path[name][epoch + 1]) for name in ("w", "b"))
    print(f"{epoch:5} {batch.loss[epoch]:10.7g} {w:10.7g} {b:11.7g}")
print("\nStochastic descent: the first four updates")
print(f"{'step':>5} {'sample loss':>12} {'w':>10} {'b':>10}")
for step in range(4):
    w, b = (float(first.path[name][step + 1]) for name in ("w", "b"))
    print(f"{step + 1:5} {first.batch_loss[step]:12.7g} {w:10.4f} {b:10.4f}")
print("\nStochastic descent: the loss over all samples at each epoch's start")
print(*(f"{epoch:5} {loss:12.6g}" for epoch, loss in enumerate(stochastic.loss)), sep="\n")
# The tutorial shows this and does not say why:
print("\nAn update turns its sample's error into 1 - 0.2 (x² + 1) times itself: -4.2 at x = -5.")
print("Beyond |x| = 3 every update makes it larger. A rate below 1/26 would be safe for all x.")
for name, figure in {"data": runs.plot.fit(), "losses": runs.plot.losses()}.items():
    figure.savefig(out / f"{name}.png")
    print("wrote", out / f"{name}.png")
