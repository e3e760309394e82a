"""Five training loops as people write them, and the faults that can be planted in each.

`plant` is None, or the fault. `look(model, optimizer, **more)` opens what watches the loop; it may
be `unwatched`. Each returns the model and what watched it.
"""

from contextlib import contextmanager

import numpy as np
import torch
from sklearn.datasets import load_diabetes, load_digits
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset

FAULTS = (
    "gradients-not-cleared",
    "parameters-not-held",
    "parameters-without-gradient",
    "loss-without-model",
    "broadcast",
    "evaluation-mode",
    "scheduler-first",
)


@contextmanager
def unwatched(model, optimizer, **_):
    class Nothing:
        def loss(self, loss):
            return loss

    yield Nothing()


def detached(loss):
    """The classic of those who want "just the number"."""
    return torch.tensor(loss.item(), requires_grad=True)


def linear(plant, look, steps=30):
    """A linear regression on the diabetes table, everything by hand, all rows at once."""
    torch.manual_seed(0)
    X, y = (torch.from_numpy(a).float() for a in load_diabetes(return_X_y=True))
    X, y = (X - X.mean(0)) / X.std(0), ((y - y.mean()) / y.std())
    model, older = nn.Linear(10, 1), nn.Linear(10, 1)
    if plant == "parameters-without-gradient":
        model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    trained = older if plant == "parameters-not-held" else model  # as in the tutorial
    optimizer = optim.SGD(trained.parameters(), lr=0.02)
    scheduler = None
    if plant == "scheduler-first":
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    with look(model, optimizer, scheduler=scheduler) as watch:
        for _ in range(steps):
            if plant != "gradients-not-cleared":
                optimizer.zero_grad()
            prediction = model(X)
            if plant != "broadcast":
                prediction = prediction.squeeze(1)
            loss = ((prediction - y) ** 2).mean()
            if plant == "loss-without-model":
                loss = detached(loss)
            watch.loss(loss)
            loss.backward()
            if scheduler is not None:
                scheduler.step()
            optimizer.step()
    return model, watch


def classifier(plant, look, epochs=1):
    """A network with dropout on the digits, batches from a DataLoader, validation in between."""
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    X, y = torch.from_numpy(X).float()[:1000] / 16, torch.from_numpy(y)[:1000]
    loader = DataLoader(TensorDataset(X[:800], y[:800]), batch_size=32, shuffle=True)
    hidden, head = nn.Linear(64, 32), nn.Linear(32, 10)
    model = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.2), head)
    if plant == "parameters-without-gradient":
        model = nn.Sequential(hidden, nn.ReLU(), nn.Dropout(0.2), Detached(), head)
    trained = head if plant == "parameters-not-held" else model
    optimizer = optim.Adam(trained.parameters(), lr=1e-2)
    scheduler = optim.lr_scheduler.LinearLR(optimizer, 0.5, total_iters=20)
    loss_fn = nn.CrossEntropyLoss()
    if plant == "evaluation-mode":
        model.eval()
    with look(model, optimizer, scheduler=scheduler) as watch:
        for _ in range(epochs):
            if plant != "evaluation-mode":
                model.train()
            for x, target in loader:
                if plant == "scheduler-first":
                    scheduler.step()
                loss = loss_fn(model(x), target)
                if plant == "loss-without-model":
                    loss = detached(loss)
                if plant != "gradients-not-cleared":
                    optimizer.zero_grad(set_to_none=False)
                loss.backward()
                optimizer.step()
                if plant != "scheduler-first":
                    scheduler.step()
                watch.loss(loss)  # as logged, after all is done
            model.eval()
            with torch.no_grad():
                loss_fn(model(X[800:]), y[800:])
    return model, watch


class Detached(nn.Module):
    """Someone wanted no gradient for a plot, and left it in."""

    def forward(self, x):
        return x.detach()


def convolutional(plant, look, steps=24):
    """A convolutional net with batch normalisation that reads a digit as a number."""
    torch.manual_seed(0)
    X, y = load_digits(return_X_y=True)
    X = torch.from_numpy(X).float().reshape(-1, 1, 8, 8) / 16
    y = torch.from_numpy(y).float() / 9
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 1),
    )
    if plant == "parameters-without-gradient":
        model.add_module("auxiliary", nn.Identity())
        model.auxiliary.register_parameter("weight", nn.Parameter(torch.ones(3)))
    held = list(model.parameters())
    if plant == "parameters-not-held":
        held = held[2:]
    optimizer = optim.RMSprop(held, lr=1e-3)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = np.random.default_rng(0)
    with look(model, optimizer) as watch:  # its rates alone must tell of the scheduler
        for step in range(steps):
            if plant == "scheduler-first":
                scheduler.step()
            if step % 8 == 7:  # a look at how it does
                model.eval()
                with torch.no_grad():
                    model(X[:64])
                if plant != "evaluation-mode":
                    model.train()
            rows = torch.from_numpy(generator.integers(0, len(X), 32))
            prediction = model(X[rows])
            target = y[rows] if plant == "broadcast" else y[rows, None]
            loss = (prediction - target).abs().mean()
            if plant == "loss-without-model":
                loss = detached(loss)
            watch.loss(loss).backward()
            optimizer.step()
            if plant != "gradients-not-cleared":
                optimizer.zero_grad()
            if plant != "scheduler-first":
                scheduler.step()
    return model, watch


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(1, 8, batch_first=True)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(8, 1)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head(self.dropout(states[:, -1]))


def recurrent(plant, look, steps=24):
    """An LSTM that goes on with a wave, gradients clipped, a rate that goes up and down."""
    torch.manual_seed(0)
    wave = torch.sin(torch.arange(400) * 0.2) + 0.05 * torch.randn(400)
    model = Recurrent()
    if plant == "parameters-without-gradient":
        model.spare = nn.Linear(8, 8)
    held = model.parameters()
    if plant == "parameters-not-held":
        held = model.lstm.parameters()
    optimizer = optim.AdamW(held, lr=1e-2)
    scheduler = optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=steps + 1)
    loss_fn = nn.MSELoss()
    if plant == "evaluation-mode":
        model.eval()
    with look(model, optimizer, loss_fn=loss_fn, scheduler=scheduler) as watch:
        for _ in range(steps):
            starts = torch.randint(0, 380, (16,))
            x = torch.stack([wave[s : s + 12] for s in starts])[:, :, None]
            y = wave[starts + 12]
            if plant != "broadcast":
                y = y[:, None]
            if plant != "gradients-not-cleared":
                optimizer.zero_grad()
            prediction = model(x)
            if plant == "loss-without-model":
                prediction = prediction.detach().requires_grad_()  # to silence an error
            loss_fn(prediction, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            if plant == "scheduler-first":
                scheduler.step()
            optimizer.step()
            if plant != "scheduler-first":
                scheduler.step()
    return model, watch


def autoencoder(plant, look, steps=16):
    """A denoising autoencoder: two groups of parameters, gradients of three batches to a step."""
    torch.manual_seed(0)
    X = torch.from_numpy(load_digits().data).float()[:960] / 16
    encoder = nn.Sequential(nn.Dropout(0.1), nn.Linear(64, 16), nn.Tanh())
    decoder = nn.Sequential(nn.Linear(16, 64), nn.Sigmoid())
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    groups = [{"params": encoder.parameters(), "lr": 0.5}, {"params": decoder.parameters()}]
    if plant == "parameters-not-held":
        groups = groups[1:]
    optimizer = optim.SGD(groups, lr=0.1, momentum=0.9)
    scheduler = optim.lr_scheduler.StepLR(optimizer, 5, 0.7)
    if plant == "evaluation-mode":
        model.eval()
    with look(model, optimizer, scheduler=scheduler) as watch:
        if plant == "scheduler-first":
            scheduler.step()
        for step in range(steps):
            for part in range(3):
                x = X[(3 * step + part) * 20 : (3 * step + part + 1) * 20]
                code = encoder(x)
                if plant == "parameters-without-gradient":
                    code = code.data
                loss = nn.functional.mse_loss(decoder(code), x)
                if plant == "loss-without-model":
                    loss = detached(loss)
                watch.loss(loss)
                (loss / 3).backward()
            optimizer.step()
            if plant != "gradients-not-cleared":
                optimizer.zero_grad()
            if plant != "scheduler-first":
                scheduler.step()
    return model, watch


LOOPS = {f.__name__: f for f in (linear, classifier, convolutional, recurrent, autoencoder)}

IMPOSSIBLE = {
    ("linear", "evaluation-mode"): "nothing in it behaves differently in evaluation",
    ("classifier", "broadcast"): "torch refuses targets of shape (n, 1) beside class scores",
    ("autoencoder", "broadcast"): "the target is the input itself, of the output's shape",
}
"""Pairs of loop and fault that cannot be, and why."""


def bits(model):
    return {n: t.detach().numpy().tobytes() for n, t in model.state_dict().items()}


def hooks_on(thing):
    """How many hooks hang on a model's modules and parameters, or on an optimizer."""
    if isinstance(thing, optim.Optimizer):
        return len(thing._optimizer_step_pre_hooks) + len(thing._optimizer_step_post_hooks)
    hooks = sum(len(m._forward_hooks) for m in thing.modules())
    hooks += sum(len(p._backward_hooks or {}) for p in thing.parameters())
    return hooks + sum(len(p._post_accumulate_grad_hooks or {}) for p in thing.parameters())


def data(rows=32, columns=4):
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(rows, columns, generator=generator)
    return X, X.sum(1, keepdim=True).sin()


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def causes(watch):
    return [finding.cause for finding in watch.findings[1:]]


def train(watch, model, optimizer, steps=12, loss_of=nn.functional.mse_loss):
    X, y = data()
    for _ in range(steps):
        optimizer.zero_grad()
        watch.loss(loss_of(model(X), y)).backward()
        optimizer.step()
