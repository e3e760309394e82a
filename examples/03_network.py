"""A network of ten hidden units learns a line, then a parabola; pictures show it at some stages.

Run: python examples/03_network.py [OUT_DIR]
"""

import sys
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn, optim

import downslope as ds

out = Path(sys.argv[1] if len(sys.argv) > 1 else "network")
out.mkdir(parents=True, exist_ok=True)
torch.manual_seed(0)
x = torch.linspace(-1, 1, 200).reshape(-1, 1)
tasks = {  # name: (targets, steps, steps between two records)
    "line": (2 * x + 0.5 * torch.rand(x.shape) + 5, 100, 20),
    "parabola": (x**2 + 0.2 * torch.rand(x.shape), 5000, 100),
}


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))


def draw(axes, y, parameters, loss, step) -> None:
    """The data, and in red what the network with these parameters says."""
    model = network()
    model.load_state_dict(parameters)
    axes.plot(x, y, "o", markersize=2, color="#0072B2")
    axes.plot(x, model(x).detach(), linewidth=3, color="#E00000")
    axes.set(title=f"step {step}: Loss={loss:.4f}", xlabel="x", ylabel="y")
    axes.grid(True)


print(network())
for name, (y, steps, every) in tasks.items():
    problem = ds.Problem.from_model(network, x, y, loss=nn.MSELoss())
    kept = ("loss", "parameters")
    run = ds.descend(problem, optim.SGD, lr=0.05, steps=steps, every=every, keep=kept).best
    print(f"\n{name}\n{'step':>5} {'loss':>9}")
    for step, loss in zip(run.steps, run.loss, strict=True):
        print(f"{step:5} {loss:9.6f}")
    stages = Figure(figsize=(11, 6.4), layout="constrained")
    shown = [0, 1, 2, 3, 4, 5] if name == "line" else [0, 1, 3, 10, 25, 50]
    for axes, record in zip(stages.subplots(2, 3, sharey=True).ravel(), shown, strict=True):
        parameters = {key: values[record] for key, values in run.path.items()}
        draw(axes, y, parameters, run.loss[record], run.steps[record])
    end = Figure(figsize=(5.6, 4), layout="constrained")
    draw(end.subplots(), y, run.parameters, run.loss[-1], run.steps[-1])
    for kind, figure in {"stages": stages, "end": end}.items():
        figure.savefig(out / f"{name}_{kind}.png", dpi=150)
        print("wrote", out / f"{name}_{kind}.png")
