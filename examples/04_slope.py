"""One weight, fitted with a gradient written by hand and again by autograd; then a prediction.

Run: python examples/04_slope.py [OUT_DIR]
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds

out = Path(sys.argv[1] if len(sys.argv) > 1 else "slope")
out.mkdir(parents=True, exist_ok=True)

# y = 2x + 2u with u between 0 and 1. The tutorial does not print its draw; this one is tilted a
# little, so that the best weight (mean xy / mean x²) is the one its numbers lead to.
x = torch.arange(100) / 10
y = 2 * x + 2 * torch.rand(100, generator=torch.Generator().manual_seed(0))
y += x * (2.15725 - (x * y).mean() / (x * x).mean())


def gradient(x, y, w):
    """Of the mean of (w x - y)²."""
    return {"w": (2 * w * x**2 - 2 * x * y).mean()}


problem = ds.Problem.from_function(
    lambda x, w: w * x, X=x, y=y, loss=nn.MSELoss(), start={"w": 0.0}
)
kept = ("loss", "parameters")
hand = ds.descend(problem, optim.SGD, lr=0.001, epochs=100, keep=kept, gradient=gradient)
auto = ds.descend(problem, optim.SGD, lr=0.001, epochs=100, keep=kept)
# The tutorial prints the same loss on every line, since its loss is computed once. These are the
# losses at the w beside them.
print(f"{'epoch':>5} {'w by hand':>10} {'loss':>9} {'w by autograd':>14} {'loss':>9}")
for epoch in range(1, 101, 20):
    by_hand, by_autograd = (f"{run.best.path['w'][epoch]:.3f}" for run in (hand, auto))
    losses = hand.loss[0, epoch], auto.loss[0, epoch]
    print(f"{epoch:5} {by_hand:>10} {losses[0]:9.3f} {by_autograd:>14} {losses[1]:9.3f}")
print(f"prediction at x = 7: {hand.best.predict([7.0])[0]:.3f}")
print(f"prediction at x = 5: {auto.best.predict([5.0])[0]:.3f}")

scatter = Figure(figsize=(5.6, 4), layout="constrained")
axes = scatter.subplots()
axes.scatter(x, y, s=12, label="data")
axes.plot(x, auto.best.predict(x), color="green", linewidth=2, label="ŷ = w x")
axes.set(xlabel="x", ylabel="y")
axes.legend()
for name, figure in {
    "fit": scatter,
    "path": auto.plot.path(),
    "losses": auto.plot.losses(),
}.items():
    figure.savefig(out / f"{name}.png", dpi=150)
    print("wrote", out / f"{name}.png")
