"""The boundary between training and diverging, over the rates of two layers: it is a fractal.

Run: python examples/09_boundary.py [OUT_DIR [RESOLUTION]] (256 takes about a minute on two cores)
"""

# %% [markdown]
# # The boundary of trainability
#
# A network with two layers, each with a learning rate of its own. For some pairs of rates training
# converges, for others it diverges. Where is the boundary? Sohl-Dickstein (2024, arXiv 2402.06184)
# drew it, and found a fractal: however closely one looks, there is more structure.
#
# Each point of the picture is a whole training: 500 steps of full-batch descent. At a
# resolution of 256 that is 65,536 trainings and 33 million steps, in one call.

# %%
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn, optim

import downslope as ds

# %% tags=["parameters"]
RESOLUTION = int(sys.argv[2]) if len(sys.argv) > 2 else 256

# %% tags=["script"]
OUT_DIR = Path(sys.argv[1] if len(sys.argv) > 1 else "boundary")
OUT_DIR.mkdir(parents=True, exist_ok=True)


def show(figure, name):
    figure.savefig(OUT_DIR / f"{name}.png", dpi=150)
    print("wrote", OUT_DIR / f"{name}.png")


# %% [markdown]
# ## The network
#
# 16 inputs, 16 hidden units with tanh, one output, no biases. Each layer is scaled by
# 1 / √(its inputs), and its weights are drawn from N(0, 1). There are 272 samples of Gaussian
# noise: as many as there are parameters.


# %%
class Layer(nn.Module):
    """A linear map without biases, scaled by 1 / √inputs."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.scale = inputs**-0.5

    def forward(self, x):
        return self.scale * (x @ self.weight.T)


def network():
    return nn.Sequential(Layer(16, 16), nn.Tanh(), Layer(16, 1))


generator = torch.Generator().manual_seed(0)
x = torch.randn(272, 16, generator=generator)
y = torch.randn(272, 1, generator=generator)
problem = ds.Problem.from_model(network, x, y, loss=nn.MSELoss())

# %% [markdown]
# ## All trainings
#
# A dict gives rates by parameter-name pattern: one list for the first layer ("0.…"), one for
# the second ("2.…"), and their product is carried out. A batch's loss before each update is kept;
# with full batches that is the loss at every step, and it costs nothing extra.

# %%
STEPS = 500


def carry_out(first_rates, second_rates):
    """All pairs of rates."""
    rates = {"0.*": first_rates, "2.*": second_rates}
    kept = {"every": STEPS, "keep": ("batch_loss",)}
    return ds.descend(problem, optim.SGD, lr=rates, steps=STEPS, **kept)


def went_down(runs):
    """Whether the mean of each run's last 20 losses lies below its first one."""
    return runs.batch_loss[:, -20:].mean(1) < runs.batch_loss[:, 0]


began = time.perf_counter()
rates = np.geomspace(1e-3, 1e6, RESOLUTION)
runs = carry_out(rates, rates)
took = time.perf_counter() - began
updates = int(runs.steps_done.sum())
print(runs)
print(f"{took:.1f} s: {1e6 * took / (len(runs) * STEPS):.2f} µs a run and step asked for,")
print(f"{1e6 * took / updates:.2f} µs an update done (what diverges ends early)")

# %% [markdown]
# ## The colour
#
# After the article: a training has gone down if the mean of its last 20 losses lies below its
# first one. Then its colour is the **sum of its losses**, blue, and light where it came down
# fast. Else it is the **sum of their inverses**, orange, and light where it blew up fast. Losses
# are relative to the first, and cut off at a million. Each shade stands for as many points, so
# that all shades are used; the darkest ones lie at the boundary.

# %%
LABELS = {
    "xlabel": "Learning rate of the second layer",
    "ylabel": "Learning rate of the first layer",
}
figure = runs.plot.map("lr[2.*]", "lr[0.*]", of="sum")
figure.axes[0].set(**LABELS)
print(f"{went_down(runs).mean():.1%} of all pairs of rates converge")

# %% [markdown]
# ## Closer
#
# Where the second rate is about 13 and the first below 1, the boundary above looks smooth. It is
# not. In the small frame, drawn large, there are threads of divergence *inside* the region that
# converges, thinner than a pixel above. Are the threads smooth, then? Try narrower ranges.

# %%
first_rates = np.geomspace(0.08, 0.28, max(RESOLUTION // 2, 8))
second_rates = np.geomspace(10, 18, max(RESOLUTION // 2, 8))
corners = first_rates[[0, 0, -1, -1, 0]], second_rates[[0, -1, -1, 0, 0]]
figure.axes[0].plot(corners[1], corners[0], color="black", linewidth=1)
show(figure, "boundary")

# %%
closer = carry_out(first_rates, second_rates)
figure = closer.plot.map("lr[2.*]", "lr[0.*]", of="sum")
figure.axes[0].set(**LABELS)
show(figure, "closer")
print(f"of these pairs of rates, {went_down(closer).mean():.1%} converge")
