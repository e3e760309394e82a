"""Networks of every kind of layer, loss and setting, compiled, beside `looped`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from beside import ALL_KEPT, assert_as_looped
from cases import DOUBLE, seeded
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from downslope import Problem

ROWS, INPUTS = 13, 6

ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Softplus, nn.Softsign, nn.Softshrink, nn.Hardshrink, nn.Tanhshrink),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.GLU),
    *(lambda: nn.GELU("tanh"), lambda: nn.Threshold(0.1, -0.2), lambda: nn.Softmax(1)),
    *(lambda: nn.LogSoftmax(1), lambda: nn.Softmin(1), lambda: nn.LayerNorm(INPUTS)),
    *(lambda: nn.RMSNorm(INPUTS), lambda: nn.GroupNorm(2, INPUTS), nn.Identity),
)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def classes(rows: int, of: int) -> Tensor:
    return torch.randint(of, (rows,), generator=torch.Generator().manual_seed(1))


# -- layers ------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Twice(nn.Module):
    """A bilinear layer of its input with itself."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Bilinear(INPUTS, INPUTS, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, torch.tanh(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        words = x.reshape(len(x), -1, 2)
        return self.attention(words, words, words)[0].flatten(1)


class Masked(nn.Module):
    """Buffers of whole numbers and of truth values, and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((INPUTS,), 1.5), requires_grad=False)
        self.register_buffer("order", torch.tensor([2, 0, 1, 5, 4, 3]))
        self.register_buffer("kept", torch.tensor([True, False, True, True, False, True]))
        self.register_buffer("shift", torch.linspace(-1, 1, INPUTS))

    def forward(self, x: Tensor) -> Tensor:
        turned = x[:, self.order] * self.scale + (self.order % 2) * ~self.kept
        return torch.where(self.kept, turned, x * self.shift)


def _image(*layers: nn.Module) -> nn.Module:
    """Six numbers as an image of two channels, three by one, and flat again."""
    return nn.Sequential(nn.Unflatten(1, (2, 3, 1)), *layers, nn.Flatten())


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(INPUTS, INPUTS),
    "no bias": lambda: nn.Linear(INPUTS, INPUTS, bias=False),
    "bilinear": lambda: Twice(INPUTS),
    "residual": lambda: Residual(nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6))),
    "conv2d": lambda: _image(nn.Conv2d(2, 2, (3, 1), padding=(1, 0))),
    "strided": lambda: _image(nn.Conv2d(2, 6, 3, stride=2, padding=1, groups=2), nn.Flatten(2)),
    "padded": lambda: _image(nn.Conv2d(2, 2, 1, padding=(1, 0)), nn.Conv2d(2, 2, (3, 1))),
    "dilated": lambda: _image(nn.Flatten(2), nn.Conv1d(2, 3, 2, dilation=2, padding=1)),
    "circular": lambda: _image(nn.Conv2d(2, 2, (2, 1), padding=(1, 0), padding_mode="circular")),
    "reflected": lambda: _image(nn.Conv2d(2, 2, (3, 1), padding=(1, 0), padding_mode="reflect")),
    "instance": lambda: _image(nn.InstanceNorm2d(2, affine=True)),
    "attention": Attention,
    "transformer": lambda: nn.Sequential(
        nn.Unflatten(1, (3, 2)), nn.TransformerEncoderLayer(2, 2, 4, 0.0, batch_first=True),
        nn.Flatten(),
    ),
    "pooled": lambda: _image(nn.Flatten(2), nn.MaxPool1d(2, stride=1, padding=1)),
    "pooled in two": lambda: _image(nn.MaxPool2d((2, 1), stride=1)),
    "as wide": lambda: _image(nn.Flatten(2), nn.Conv1d(2, 2, 3, padding="same")),
    "masked": Masked,
    "weight norm": lambda: torch.nn.utils.parametrizations.weight_norm(nn.Linear(INPUTS, INPUTS)),
    "no dropout": lambda: nn.Dropout(0.0),
}  # fmt: skip


def width(layer: nn.Module) -> int:
    with torch.no_grad():
        return layer(torch.zeros(1, INPUTS, dtype=DOUBLE)).shape[1]


# -- losses ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Aim:
    """A loss, and targets for so many outputs."""

    loss: Any
    target: Callable[[], Tensor]
    outputs: int = 2
    last: Callable[[], nn.Module] = nn.Identity


def _numbers() -> Tensor:
    return rows(ROWS, 2, seed=3)


def _shares() -> Tensor:
    return torch.sigmoid(_numbers())


def _counts() -> Tensor:
    return _numbers().abs().round()


def _signs() -> Tensor:
    return _numbers().sign()


def _one_sign() -> Tensor:
    return _signs()[:, 0]


LOSSES: dict[str, Aim] = {
    "mse": Aim(nn.MSELoss(), _numbers),
    "mse sum": Aim(nn.MSELoss(reduction="sum"), _numbers),
    "l1": Aim(nn.L1Loss(), _numbers),
    "smooth l1": Aim(nn.SmoothL1Loss(beta=0.5), _numbers),
    "huber": Aim(nn.HuberLoss(delta=0.7), _numbers),
    "bce": Aim(nn.BCELoss(), _shares, last=nn.Sigmoid),
    "bce logits": Aim(nn.BCEWithLogitsLoss(), _shares),
    "bce weighted": Aim(nn.BCEWithLogitsLoss(pos_weight=torch.tensor([0.5, 3.0])), _shares),
    "cross entropy": Aim(nn.CrossEntropyLoss(), lambda: classes(ROWS, 3), 3),
    "smoothed": Aim(nn.CrossEntropyLoss(label_smoothing=0.1), lambda: classes(ROWS, 3), 3),
    "shares": Aim(nn.CrossEntropyLoss(), lambda: torch.softmax(rows(ROWS, 3), 1), 3),
    "weighted sum": Aim(
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 5.0]), reduction="sum"),
        lambda: classes(ROWS, 3),
        3,
    ),
    "nll": Aim(nn.NLLLoss(), lambda: classes(ROWS, 3), 3, lambda: nn.LogSoftmax(1)),
    "poisson": Aim(nn.PoissonNLLLoss(), _counts),
    "poisson full": Aim(nn.PoissonNLLLoss(log_input=False, full=True), _counts, last=nn.Softplus),
    "kl": Aim(nn.KLDivLoss(reduction="batchmean"), _shares, last=lambda: nn.LogSoftmax(1)),
    "soft margin": Aim(nn.SoftMarginLoss(), _signs),
    "hinge": Aim(nn.HingeEmbeddingLoss(), _signs),
    "multi label": Aim(nn.MultiLabelSoftMarginLoss(), lambda: (_signs() + 1) / 2),
    "pinball": Aim(lambda p, t: torch.maximum(0.3 * (t - p), -0.7 * (t - p)).mean(), _numbers),
    "logcosh": Aim(lambda p, t: torch.log(torch.cosh(p - t)).mean(), _numbers),
    "cosine": Aim(lambda p, t: (1 - F.cosine_similarity(p, t)).mean(), _numbers),
    "focal": Aim(
        lambda p, t: ((1 - p.softmax(1)) ** 2 * -p.log_softmax(1) * t).sum(1).mean(), _shares
    ),
}


def problem_of(layers: list[nn.Module], aim: Aim) -> Problem:
    body = nn.Sequential(*layers).to(DOUBLE)
    model = nn.Sequential(body, nn.Linear(width(body), aim.outputs), aim.last())
    return Problem.from_model(model.to(DOUBLE), rows(ROWS, INPUTS), aim.target(), loss=aim.loss)


MSE = LOSSES["mse"]
FAST = {"lr": [0.003, 0.01], "steps": 12}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    problem = problem_of([seeded(LAYERS[name])], MSE)
    assert_as_looped(problem, batch_size=5, keep=ALL_KEPT, **FAST)


def test_activations_and_norms():
    """All of them in a few networks; each between two linear layers."""
    for first in range(0, len(ACTIVATIONS), 6):
        layers: list[nn.Module] = []
        for number, make in enumerate(ACTIVATIONS[first : first + 6]):
            layer = make()
            outputs = 2 * INPUTS if isinstance(layer, nn.GLU) else INPUTS
            layers += [seeded(lambda n=outputs: nn.Linear(INPUTS, n), number), layer]
        assert_as_looped(problem_of(layers, MSE), batch_size=5, **FAST)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name):
    layers = [seeded(lambda: nn.Linear(INPUTS, 3)), nn.Tanh()]
    rates = {"lr": [0.001, 0.003], "steps": 10}
    assert_as_looped(problem_of(layers, LOSSES[name]), batch_size=[5, "full"], **rates)


@pytest.mark.parametrize("whole", [torch.int64, torch.int32])
def test_embeddings(whole):
    model = nn.Sequential(nn.Embedding(5, 2), nn.Flatten(), nn.Linear(6, 1))
    X = torch.randint(5, (ROWS, 3), generator=torch.Generator().manual_seed(0)).to(whole)
    problem = Problem.from_model(seeded(lambda: model), X, rows(ROWS, 1), loss=nn.MSELoss())
    assert problem.train.x.dtype == whole
    for sizes, runs in (([1, 4, "full"], 6), (["full"], 1)):
        assert_as_looped(problem, lr=[0.01] * runs, steps=12, batch_size=sizes)
    seeds = list(range(20))  # an order of its own for each run: rows are gathered, not broadcast
    assert_as_looped(problem, lr=0.01, steps=9, batch_size=4, seed=seeds)


def test_batch_norm_that_was_set_to_evaluation_is_part_of_the_network():
    model = seeded(lambda: nn.Sequential(nn.Linear(INPUTS, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)))
    model(rows(ROWS, INPUTS))  # statistics that are not those of the start
    model[1].eval()
    problem = Problem.from_model(model, rows(ROWS, INPUTS), rows(ROWS, 1), loss=nn.MSELoss())
    runs = assert_as_looped(problem, batch_size=5, **FAST)
    assert runs.buffers["1.num_batches_tracked"].dtype == torch.int64


# -- at random ---------------------------------------------------------------------------------

stacks = st.lists(st.sampled_from([*LAYERS, *range(len(ACTIVATIONS))]), min_size=1, max_size=4)


def _layer(key: str | int, seed: int) -> nn.Module:
    if isinstance(key, str):
        return seeded(LAYERS[key], seed)
    layer = ACTIVATIONS[key]()
    if not isinstance(layer, nn.GLU):
        return layer
    return nn.Sequential(seeded(lambda: nn.Linear(INPUTS, 2 * INPUTS), seed), layer)


def _descends(stack: list[str | int], aim: str, asked: dict[str, Any]) -> None:
    layers: list[nn.Module] = []
    for seed, key in enumerate(stack):
        layer = _layer(key, seed)
        if width(layer.to(DOUBLE)) != INPUTS:
            found = width(layer)
            layer = nn.Sequential(layer, seeded(lambda n=found: nn.Linear(n, INPUTS), seed))
        layers.append(layer)
    assert_as_looped(problem_of(layers, LOSSES[aim]), steps=8, **asked)


UNHURRIED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "phases": [Phase.explicit, Phase.reuse, Phase.generate],  # each example is a compilation
}
asks = st.fixed_dictionaries(
    {
        "optimizer": st.sampled_from(["SGD", "Adam", "Adagrad"]),
        "lr": st.sampled_from([[0.001], [0.001, 0.003, 0.002, 0.0015, 0.0005]]),
        "batch_size": st.sampled_from(["full", 1, 4, 5, 13]),
        "order": st.sampled_from(["shuffle", "cyclic", "replacement"]),
        "seed": st.integers(0, 5),
        "clip_norm": st.sampled_from([None, 0.5]),
        "every": st.sampled_from(["epoch", "step", 3]),
        "keep": st.sampled_from([("loss",), ALL_KEPT, ("gradient_norm",)]),
    }
)


@settings(max_examples=12, derandomize=True, **UNHURRIED)
@given(stacks, st.sampled_from(list(LOSSES)), asks)
def test_random_networks(stack, aim, asked):
    _descends(stack, aim, asked)


@pytest.mark.slow
@settings(max_examples=300, **UNHURRIED)
@given(stacks, st.sampled_from(list(LOSSES)), asks)
def test_many_random_networks(stack, aim, asked):
    _descends(stack, aim, asked)
