"""SGD against Adam on a straight line, through a Dataset and a DataLoader, one sample a step.

When SGD beats Adam, and when it does not. Run: python examples/05_optimizers.py [OUT_DIR]
"""

# %% [markdown]
# # SGD against Adam
#
# The same straight line, now from a `Dataset` through a `DataLoader`, one sample a step, by two
# optimizers with the same rate, 0.01. SGD gets there sooner. Does that mean that SGD is better?

# %%
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset

import downslope as ds

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "optimizers")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## Data, loader, model
#
# A larger batch_size makes it mini-batch descent. The loader's batch size and order are taken over.


# %%
class Line(Dataset):
    """100 points on y = -5x + 1, with noise."""

    def __init__(self):
        self.x = torch.arange(-50, 50).reshape(-1, 1) / 10
        noise = torch.randn(self.x.shape, generator=torch.Generator().manual_seed(0))
        self.y = -5 * self.x + 1 + 0.4 * noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, row):
        return self.x[row], self.y[row]


loader = DataLoader(Line(), batch_size=1, shuffle=True)
model = nn.Linear(1, 1)
with torch.no_grad():
    model.weight.fill_(-10)
    model.bias.fill_(-20)
problem = ds.Problem.from_model(model, loader, loss=nn.MSELoss())

# %% [markdown]
# ## Both at 0.01

# %%
asked = {"lr": 0.01, "epochs": 20, "keep": ("loss", "batch_loss")}
runs = ds.descend(problem, [optim.SGD, optim.Adam], **asked)
sgd, adam = runs
print("The loss over all points after each epoch")
print(f"{'epoch':>5} {'SGD':>10} {'Adam':>10}")
for epoch in range(21):
    print(f"{epoch:5} {sgd.loss[epoch]:10.4f} {adam.loss[epoch]:10.4f}")
for run in runs:
    w, b = (float(value) for value in run.parameters.values())
    print(f"{run.row['optimizer']}: {run.batch_loss.size} steps, y = {w:.3f} x + {b:.3f}")
show(runs.plot.losses(axis="step", which="batch_loss"), "steps")
show(runs.plot.losses(), "epochs")

# %% [markdown]
# ## A mistake that cannot be made here
#
# The tutorial's full listing makes Adam twice, and hands the second model to an optimizer that
# still holds the first one's parameters: that model never learns, and nothing says so. Here one
# gives *classes*, and each run gets an optimizer for its own parameters. Who gives an instance is
# told at once.

# %%
other = nn.Linear(1, 1)
try:
    ds.descend(problem, optim.Adam(other.parameters(), lr=0.01), epochs=20)
except ds.InputError as error:
    print("error:", error)

# %% [markdown]
# ## Is it SGD, or is it the rate?
#
# A step of SGD is rate × gradient: far from the minimum it is long. A step of Adam is about
# as long as the rate itself, wherever it stands. From b = −20 to b = 1 it has 21 to go: at 0.01
# that takes some 2,100 steps, which is all the steps there are. So one rate for both is no
# comparison. We try 25 rates for each, three orders of the samples each.

# %%
distance = 21.0
print(f"Adam at 0.01 needs about {distance / 0.01:,.0f} steps to go {distance:g}; there are 2,000")
grid = {"lr": ds.log_range(1e-4, 1, 25), "seed": range(3), "epochs": 20, "batch_size": 1}
sweep = ds.descend(problem, [optim.SGD, optim.Adam], **grid)
show(sweep.plot.sensitivity(), "sensitivity")

# %% [markdown]
# And how soon does each get there? We count the epochs until the loss is below 0.2 (the noise
# alone leaves about 0.16), at every rate, as the median over the three orders.

# %%
TARGET = 0.2
losses = np.where(sweep.diverged[:, None], np.inf, sweep.loss)
reached = losses < TARGET
epochs = np.where(reached.any(1), reached.argmax(1), np.inf)
names, rates = (sweep.settings[column].to_numpy() for column in ("optimizer", "lr"))
print(f"{'rate':>9} {'SGD':>6} {'Adam':>6}   epochs until the loss is below {TARGET}")
medians = {}
for rate in np.unique(rates):
    for name in ("SGD", "Adam"):
        medians[name, rate] = np.median(epochs[(names == name) & (rates == rate)])
    both = (f"{medians[name, rate]:6.0f}" for name in ("SGD", "Adam"))
    print(f"{rate:9.5f}", *(one.replace("inf", "  –") for one in both))
for name in ("SGD", "Adam"):
    works = [rate for (n, rate), epoch in medians.items() if n == name and np.isfinite(epoch)]
    soonest = min(works, key=lambda rate: medians[name, rate])
    print(f"{name}: soonest at {soonest:.4g}, {medians[name, soonest]:.0f} epochs;", end=" ")
    print(f"it gets there at rates from {min(works):.4g} to {max(works):.4g}")

# %% [markdown]
# So SGD beats Adam *at small rates*, where Adam's short steps cannot cover the way; beyond the
# stability limit of one-sample descent SGD fails, and Adam, whose steps cannot explode, still
# gets there. On a bowl as simple as this one each has a rate that does the job in an epoch or
# two. Which one is "better" is a question about rates, and a fair comparison tunes both: that is
# what `ds.compare` does.
