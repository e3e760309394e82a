"""Batch against stochastic gradient descent on a straight line, at one and the same step size.

One update from all 100 samples an epoch finds the line; 100 updates an epoch, from one sample
each, explode. Why, and at which rate they would not. Run: python examples/01_line.py [OUT_DIR]
"""

# %% [markdown]
# # A straight line: batch against stochastic descent
#
# The model is ŷ = w x + b, the loss the mean squared error, the start w = −10, b = −20. Two
# descents have the same step size, 0.1. **Batch** descent makes one update an epoch, from all
# 100 samples; **stochastic** descent makes 100, from one sample each. The first finds the line. The
# second explodes. We shall see both, and then find out why.

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds
from downslope.explain import minibatches, stability

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "line")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## The data
#
# The tutorial does not print its samples. What batch descent sees of them are three means (of y,
# of xy and of y²), which follow from its table; what stochastic descent sees first are four
# samples, which follow from its first four updates. The other 96 are drawn, and then made to fit
# the means. (Skip this cell if you like: it makes points near the line y = −5x.)

# %%
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

# %% [markdown]
# ## Two descents
#
# A list of values is a grid: `batch_size=["full", 1]` asks for two runs. `order="cyclic"` takes the
# samples as they are stored, as the tutorial does, and `divergence=None` lets a run go on however
# large its loss grows, so that we can watch.

# %%
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
show(runs.plot.fit(), "data")
show(runs.plot.losses(), "losses")

# %% [markdown]
# ## Why batch descent is safe at 0.1
#
# Near its minimum the loss is a bowl. How steeply it bends is its **curvature** λ, which differs
# from one direction to another. An update multiplies the distance from the minimum by 1 − rate · λ
# along each direction. Between −1 and 1 that shrinks; so the rate must stay below 2 / λ for the
# largest λ.

# %%
bent = runs[:1].curvature(places=2)
least, largest = bent["least_curvature"][0], bent["largest_curvature"][0]
best = stability.best_rate(least, largest)
print(f"The loss bends by {least:.5f} in its flattest direction, {largest:.5f} in its steepest.")
print(f"Full batches are stable below a rate of 2 / {largest:.5f} = {2 / largest:.6f};")
print(
    f"the fastest is {best.rate:.6f}, which leaves {best.factor:.5f} of the error at each update."
)
factors = stability.signed_factor(0.1, [least, largest])
print(f"At 0.1 the two factors are {factors[0]:.4f} and {factors[1]:.4f}: below 0 it zig-zags.")

# %% [markdown]
# ## Why one sample a step is not
#
# One sample's loss, (w x + b − y)², is a valley, bent by 2 (x² + 1): a sample far from x = 0 bends
# it much more than the mean of all does. Its update multiplies its own error by
# 1 − 0.1 · 2 (x² + 1).

# %%
bends = 2 * (x**2 + 1)
print(f"{'x':>5} {'curvature':>10} {'factor at 0.1':>14}")
for place in (50, 60, 80, 90, 0):
    factor = float(stability.signed_factor(0.1, float(bends[place])))
    print(f"{x[place]:5.1f} {bends[place]:10.2f} {factor:14.2f}")
wild = int((bends > 2 / 0.1 + 1e-9).sum())
print(f"{wild} of the 100 samples make their own error larger at every update (|x| > 3).")

# %% [markdown]
# So three rates matter. Below 2 / (the largest of these curvatures) **no** order of samples can
# explode. Below the **mean-square threshold** the squared error shrinks on average over all
# orders. And 2 / λ of the mean is the limit of full batches, which says nothing about single
# samples.

# %%
rows = torch.stack([x, torch.ones_like(x)], dim=1)
hessians = (2 * rows[:, :, None] * rows[:, None, :]).numpy()  # a 2 × 2 matrix for each sample
safe = 2 / float(bends.max())
mean_square = minibatches.mean_square_threshold(hessians)
full = float(stability.threshold(largest))
print(f"safe in every order            below {safe:.6f}")
print(f"safe on average of squares     below {mean_square:.6f}")
print(f"safe with all samples at once  below {full:.6f}")

# %% [markdown]
# Try them all: 25 rates, one sample a step, shuffled anew in every epoch, five seeds. Where runs
# fail is where theory puts it: all is well below the first line; beyond the second the seeds part,
# and a little further run after run is lost. (A typical run holds out somewhat above that line: it
# is a limit on average, and few runs carry the mean.)

# %%
rates = np.linspace(0.01, 0.13, 25)
sweep = ds.descend(problem, optim.SGD, lr=rates, batch_size=[1, "full"], seed=range(5), epochs=20)
picture = sweep.plot.sensitivity()
words = {"every order": safe, "on average": mean_square, "full batch": full}
axes = picture.axes[0]
for name, rate in words.items():
    axes.axvline(rate, color="black", linestyle=(0, (4, 3)), linewidth=1)
    axes.text(0.97 * rate, 0.93, f"{name}: {rate:.4f}", rotation=90, ha="right", va="top",
              fontsize=8, transform=axes.get_xaxis_transform())  # fmt: skip
show(picture, "sensitivity")
singles = sweep.where(batch_size="1")
diverged = singles.settings["lr"].to_numpy()[singles.diverged]
print(f"One sample a step: {len(diverged)} of {len(singles)} runs diverged,")
print(f"the lowest rate among them {diverged.min():.3f}.")

# %% [markdown]
# ## The strange plateau of the stored order
#
# In the tutorial's own fixed order the loss jumps to 1e13 and then stays there. Going once through
# all samples multiplies an error by one and the same matrix, every epoch. That matrix *shrinks*
# errors, if barely; but on the way through the epoch they grow enormously, and each sample's noise
# is amplified alike, epoch after epoch. Nothing that looks at whole epochs only would notice.
# (The sudden end of the growth at 0.1 is the sample x = −2, whose factor is 1 − 0.1 · 10 = 0.)

# %%
print(f"{'rate':>6} {'largest gain within an epoch':>30} {'factor of an epoch':>20}")
for rate in (0.039, 0.05, 0.06, 0.08, 0.1):
    gain, epoch_factor = minibatches.transient_gain(hessians, rate)
    print(f"{rate:6g} {gain:30.4g} {epoch_factor:20.3g}")

figure = Figure(figsize=(5.6, 3.6), layout="constrained")
axes = figure.subplots()
for rate, colour in ((0.1, "#D55E00"), (0.06, "#E69F00"), (0.039, "#0072B2")):
    product, gains = np.eye(2), [1.0]
    for hessian in hessians:
        product = (np.eye(2) - rate * hessian) @ product
        gains.append(np.linalg.norm(product, 2))
    axes.semilogy(range(101), gains, color=colour, label=f"rate {rate:g}")
axes.axhline(1, color="black", linewidth=0.8)
axes.set(xlabel="Samples seen within an epoch", ylabel="Times an error can have grown")
axes.legend(frameon=False)
axes.grid(True, color="#E4E4E4")
show(figure, "gain")

# %% [markdown]
# ## What Downslope says by itself
#
# All of this is what `explain` finds; its advice can be tried out.

# %%
finding = stochastic.explain()
print(finding)
print("Trying that:", finding.try_it().sentence)
