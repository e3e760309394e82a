"""SGD against Adam on a straight line, through a Dataset and a DataLoader, one sample a step.

Run: python examples/05_optimizers.py [OUT_DIR]
"""

import sys
from pathlib import Path

import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset

import downslope as ds


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


out = Path(sys.argv[1] if len(sys.argv) > 1 else "optimizers")
out.mkdir(parents=True, exist_ok=True)

# A larger batch_size makes it mini-batch descent. The loader's batch size and order are taken over.
loader = DataLoader(Line(), batch_size=1, shuffle=True)
model = nn.Linear(1, 1)
with torch.no_grad():
    model.weight.fill_(-10)
    model.bias.fill_(-20)
problem = ds.Problem.from_model(model, loader, loss=nn.MSELoss())

# Classes, not instances: the tutorial's listing makes Adam twice, and hands the second model to an
# optimizer that still holds the first one's parameters. Here each run gets both of its own.
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
steps = runs.plot.losses(axis="step", which="batch_loss")
for name, figure in {"steps": steps, "epochs": runs.plot.losses()}.items():
    figure.savefig(out / f"{name}.png")
    print("wrote", out / f"{name}.png")
