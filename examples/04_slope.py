"""One weight, fitted with a gradient written by hand and again by autograd; then a prediction.

Why a printed loss cannot be stale here, and which rates work. Run: python examples/04_slope.py
[OUT_DIR]
"""

# %% [markdown]
# # One weight
#
# The model is ŷ = w x: a line through the origin, with a single weight. It starts at w = 0, at a
# rate of 0.001, for 100 epochs of full batches; first with a gradient written by hand, then with
# autograd's.

# %%
import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.explain import stability

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "slope")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## Data
#
# y = 2x + 2u with u between 0 and 1. The tutorial does not print its draw; this one is tilted a
# little, so that the best weight (mean xy / mean x²) is the one its numbers lead to.

# %%
x = torch.arange(100) / 10
y = 2 * x + 2 * torch.rand(100, generator=torch.Generator().manual_seed(0))
y += x * (2.15725 - (x * y).mean() / (x * x).mean())


def gradient(x, y, w):
    """Of the mean of (w x - y)²."""
    return {"w": (2 * w * x**2 - 2 * x * y).mean()}


# %% [markdown]
# ## By hand and by autograd

# %%
problem = ds.Problem.from_function(
    lambda x, w: w * x, X=x, y=y, loss=nn.MSELoss(), start={"w": 0.0}
)
kept = ("loss", "parameters")
hand = ds.descend(problem, optim.SGD, lr=0.001, epochs=100, keep=kept, gradient=gradient)
auto = ds.descend(problem, optim.SGD, lr=0.001, epochs=100, keep=kept)
print(f"{'epoch':>5} {'w by hand':>10} {'loss':>9} {'w by autograd':>14} {'loss':>9}")
for epoch in range(1, 101, 20):
    by_hand, by_autograd = (f"{run.best.path['w'][epoch]:.3f}" for run in (hand, auto))
    losses = hand.loss[0, epoch], auto.loss[0, epoch]
    print(f"{epoch:5} {by_hand:>10} {losses[0]:9.3f} {by_autograd:>14} {losses[1]:9.3f}")
print(f"prediction at x = 7: {hand.best.predict([7.0])[0]:.3f}")
print(f"prediction at x = 5: {auto.best.predict([5.0])[0]:.3f}")

# %%
scatter = Figure(figsize=(5.6, 4), layout="constrained")
axes = scatter.subplots()
axes.scatter(x, y, s=12, color="#0072B2", label="data")
axes.plot(x, auto.best.predict(x), color="green", linewidth=2, label="ŷ = w x")
axes.set(xlabel="x", ylabel="y")
axes.grid(True, color="#E4E4E4")
axes.legend(frameon=False)
show(scatter, "fit")
show(auto.plot.path(), "path")
show(auto.plot.losses(), "losses")

# %% [markdown]
# ## The loss that stood still
#
# In the tutorial's first part the printed loss is the same on every line: it is computed once,
# before the loop, and never again. Nothing fails; the number is merely *stale*. Here a loss
# belongs to its record: it is computed at the very weight that stands beside it. That can be
# checked.

# %%
weights = hand.best.path["w"]
again = torch.stack([((w * x - y) ** 2).mean() for w in weights])
difference = (again / torch.tensor(hand.loss[0]) - 1).abs().max()
print(f"recorded losses against losses computed anew from the weights: {difference:.1e} apart")
print(f"different losses among the {len(again)} records: {len(set(hand.loss[0].tolist()))}")

# %% [markdown]
# ## Which rates work
#
# The curvature of this loss is λ = 2 · (mean of x²), everywhere. Each update multiplies the
# distance from the best weight by 1 − rate · λ. At 0.001 that is 0.93, so it takes about ten
# epochs to halve the error. At 1/λ it would take one. At 2/λ it ends.

# %%
curvature = float(auto.curvature(places=2)["largest_curvature"][0])
limit, best = float(stability.threshold(curvature)), stability.best_rate(curvature, curvature).rate
factor = float(stability.signed_factor(0.001, curvature))
print(f"curvature {curvature:.4f}: stable below {limit:.6f}, best at {best:.6f}")
print(f"at 0.001 an epoch leaves {factor:.4f} of the error: it halves in")
print(f"{stability.steps_to(0.5, factor):.1f} epochs")
rates = [0.001, 0.005, best, 0.03, 0.9999 * limit, 1.02 * limit]
tried = ds.descend(problem, optim.SGD, lr=rates, epochs=100, keep=kept, dtype=torch.float64)
print(f"{'rate':>9} {'factor':>8} {'w at the end':>13} {'loss':>10}  verdict")
for run, finding in zip(tried, tried.explain(), strict=True):
    turn = float(stability.signed_factor(run.row["lr"], curvature))
    w, loss = float(run.parameters["w"]), run.loss[-1]
    print(f"{run.row['lr']:9.6f} {turn:8.4f} {w:13.4g} {loss:10.4g}  {finding.verdict}")
show(tried.plot.losses(), "rates")
