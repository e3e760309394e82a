"""Functions without data, compiled: right beside `looped`, or refused in words."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from beside import ALL_KEPT, assert_as_looped, assert_refused, fused
from cases import DOUBLE
from torch import Tensor

from downslope import Problem

W = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)
"""A start, and numbers that a function captures."""

M = torch.arange(9, dtype=DOUBLE).reshape(3, 3) / 5 + torch.eye(3, dtype=DOUBLE)
PLACES, MASK = torch.tensor([0, 2, 1]), torch.tensor([True, False, True])
BYTES = torch.tensor([200, 0, 255], dtype=torch.uint8)


def rosenbrock(x: Tensor) -> Tensor:
    return (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2


def beale(x: Tensor, y: Tensor) -> Tensor:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


STARTS = {
    "number": (lambda x: x**2 - 4 * x + 5, 7.0),
    "two numbers": (beale, {"x": 1.0, "y": 0.5}),
    "Rosenbrock's valley": (rosenbrock, [-1.2, 1.0]),
    "matrix": (lambda A: ((A @ A.T - torch.eye(3)) ** 2).sum(), M.tolist()),
    "several": (lambda a, B: (a * B).sum() ** 2 + (B**4).sum(), {"a": 0.5, "B": M.tolist()}),
}


@pytest.mark.parametrize("name", STARTS)
def test_numbers_vectors_and_matrices(name):
    function, start = STARTS[name]
    problem = Problem.from_function(function, start=start).to(dtype=DOUBLE)
    assert_as_looped(problem, lr=[1e-4, 3e-4, 1e-3], momentum=[0, 0.9], steps=100, keep=ALL_KEPT)


SMOOTH = {
    "exp log": lambda w: (w.exp() * 0.1 + w.log() + w.log2() + w.log10() + w.log1p()).sum(),
    "exp2 expm1": lambda w: (w.exp2() * 0.1 + (0.1 * w).expm1() + w.sigmoid() + w.rsqrt()).sum(),
    "trigonometry": lambda w: (w.sin() + w.cos() + (w / 4).tan() + w.atan() + w.sinc()).sum(),
    "inverse": lambda w: ((w / 4).asin() + (w / 4).acos() + torch.atan2(w, W - 1.5)).sum(),
    "hyperbolic": lambda w: (0.1 * w.sinh() + 0.1 * w.cosh() + w.tanh()).sum(),
    "inverse hyperbolic": lambda w: (w.asinh() + (w + 1).acosh() + (w / 4).atanh()).sum(),
    "erf": lambda w: (w.erf() + w.erfc() + torch.special.ndtr(w)).sum(),
    "powers": lambda w: 0.01 * (w**3 + w**-1 + w**0.5 + 2**w + w**w + w**0 + w.square()).sum(),
    "logits": lambda w: (torch.logit(w / 10) + torch.logaddexp(w, W * 0.3) + w.frac()).sum(),
    "special": lambda w: (torch.xlogy(w, w) + torch.special.entr(w) + torch.nan_to_num(w)).sum(),
    "mixtures": lambda w: (torch.lerp(w, w**2, 0.3) + torch.addcmul(w, w, w, value=0.2)).sum(),
    "logsumexp": lambda w: w.logsumexp(0) + w.softmax(0)[1] + w.log_softmax(0)[2],
    "norms": lambda w: w.norm() + torch.linalg.vector_norm(w, 3) + w.norm(p=1),
    "statistics": lambda w: w.var() + w.std() + w.var(correction=0) + w.mean() + w.prod(),
    "running": lambda w: 0.01 * (w.cumsum(0) ** 2 + w.cumprod(0)).sum(),
}  # fmt: skip
KINKED = {
    "abs sign": lambda w: ((w - 2).abs() + w * (w - 1.5).sign() + w.relu()).sum(),
    "extremes": lambda w: torch.maximum(w, W - 0.5).sum() + torch.minimum(w, w**2).sum() + w.amax(),
    "largest": lambda w: (
        (w * W.flip(0)).max() ** 2 + w[:2].min() + (w**2).gather(0, w.argmax(0, True)).sum()
    ),
    "along": lambda w: (
        (torch.outer(w, W).max(1).values ** 2).sum() + torch.outer(w, w).min(0)[0][1]
    ),
    "of itself": lambda w: ((w * 0.3 - w * 0.3).abs() + w**2).sum() + w[:0].sum(),
    "ties": lambda w: torch.maximum(w, W).sum() + w.clamp(min=2.0).sum() + w.amin(0),
    "clamp": lambda w: (w.clamp(1.5, 2.5) + w.clamp(min=W * 0.5) + w.clip(max=2)).sum(),
    "where": lambda w: torch.where(w > 2, w**2, w).sum() + torch.where(MASK, w, 0.0).sum(),
    "steps": lambda w: (w**2 * (w.floor() + w.ceil() + w.round() + w.trunc())).sum(),
    "remainders": lambda w: (w % 0.7 * w + torch.fmod(w, 0.7) * w + torch.remainder(w, -0.7)).sum(),
    "conditions": lambda w: (w * (w > 1.5) + w**2 * ~(w > 1.5) + w * ((w < 1) | (w > 2))).sum(),
    "copysign": lambda w: torch.copysign(w, W - 2).sum() + (w * torch.signbit(w - 2)).sum(),
}
SHAPED = {
    "product": lambda A: (A @ A.T @ A).sum() + torch.trace(A @ A) + torch.outer(A[0], A[1]).sum(),
    "einsum": lambda A: torch.einsum("ij,jk,ik->", A, A, A) + torch.kron(A, A).sum(),
    "slices": lambda A: (A[1:, ::2] ** 3).sum() + A[-1, 0] ** 3 + A[..., 1].sum() ** 2,
    "joined": lambda A: (torch.cat([A, A.T]) ** 3).sum() + (torch.stack([A, A**2])[1] ** 2).sum(),
    "turned": lambda A: (A * A.flip(0).roll(1, 1)).sum() + (A.tril() * A.rot90()).sum(),
    "repeated": lambda A: (A.repeat(2, 1) ** 3).sum() + A[0].expand(4, 3).sum() + A.tile(2).sum(),
    "diagonals": lambda A: (torch.diagonal(A.T, 1) ** 3).sum() + (torch.diagonal(A[1:]) ** 3).sum(),
    "strides": lambda A: (A.T.as_strided((2, 2), (3, 1)) ** 3).sum() + (A**2).sum(),
    "strides of a part": lambda A: (A[1:].as_strided((2, 2), (3, 1)) ** 3).sum() + (A**2).sum(),
    "reshaped parts": lambda A: (A[1:].reshape(-1)[2:] ** 3).sum() + A[2].view(3, 1)[1].sum() ** 2,
    "padded": lambda A: (torch.nn.functional.pad(A, (-1, 2, 1, -1), value=0.5) ** 3).sum(),
    "extremes": lambda A: A.max(0, keepdim=True).values[0, 1] ** 3 + A.argmin(1).sum() * A.sum(),
    "windows": lambda A: (A.flip(0).unfold(0, 2, 1) ** 3).sum(),
    "indices": lambda A: A[[0, 1], [1, 2]].pow(3).sum() + A[:, PLACES[:2]].pow(3).sum(),
    "masks": lambda A: A[MASK].pow(3).sum() + A[torch.ones(3, dtype=torch.bool)].pow(3).sum(),
    "gathered": lambda A: (
        (A.gather(1, PLACES[:, None]) ** 3).sum() + A.index_select(0, PLACES)[0, 1]
    ),
    "picked by value": lambda A: A[(A[:, 0] > 0.5).long()].pow(3).sum(),
    "scattered": lambda A: (torch.zeros(2).double().scatter_add(0, PLACES % 2, A[0]) ** 2).sum(),
    "one by one": lambda A: sum(A[i, j] ** (i + j) for i in range(3) for j in range(3)),
    "iterated": lambda A: sum(row.sum() ** 2 for row in A),
}  # fmt: skip
WHOLE = {
    "remainders": lambda w: (w**2 * ((PLACES - 5) % 3) + w * torch.fmod(PLACES - 5, 3)).sum(),
    "quotients": lambda w: (w**2 * ((PLACES - 5) // 3) + w * (PLACES / 2)).sum(),
    "signs": lambda w: (w**2 * (PLACES - 1).abs() * (PLACES - 1).sign() * -PLACES).sum(),
    "compared": lambda w: (w**2 * (PLACES < 0.5) + w * (PLACES >= 0.5)).sum(),
    "bytes": lambda w: 0.01 * (w**2 * BYTES).sum() + 0.01 * (w * ~BYTES).sum(),
    "converted": lambda w: 1e-4 * (w**2 * (w * 80).to(torch.uint8)).sum() + (w * w.int()).sum(),
    "powers": lambda w: (w**2 * PLACES**2).sum() + (w * PLACES.clamp(1, 1)).sum(),
    "largest": lambda w: (w**2).sum() * PLACES.max() * (PLACES - 5).min(0).values,
    "counted": lambda w: (w**2).sum() * MASK.sum() + w.sum() * len(w),
}
IN_PLACE = {
    "of its own": lambda w: _changed(w * 1.0, lambda y: y.add_(1)),
    "through a view": lambda w: _changed(w * 1.0, lambda y: y.view(3, 1).add_(1)),
    "through a slice": lambda w: _changed(w * 1.0, lambda y: y[1:].mul_(3)),
    "an element": lambda w: _changed(w.clone(), lambda y: y.__setitem__(0, y[1] * 2)),
    "into zeros": lambda w: _changed(
        torch.zeros(3, dtype=DOUBLE), lambda y: y.__setitem__(1, w[0])
    ),
    "some of zeros": lambda w: _changed(torch.zeros(3, dtype=DOUBLE), lambda y: y[1:].add_(w[1:])),
    "by places": lambda w: _changed(w * 1.0, lambda y: y.index_put_((PLACES[:2],), W[:2])),
    "filled": lambda w: _changed(w * 1.0, lambda y: y[:1].fill_(2.0)),
}


def _changed(y: Tensor, change: object) -> Tensor:
    change(y)
    return (y**2).sum()


@pytest.mark.parametrize("kind", ["SMOOTH", "KINKED", "WHOLE", "IN_PLACE", "SHAPED"])
def test_operations(kind):
    """One after another in one test: a program each, some 60."""
    wrong = []
    for name, function in globals()[kind].items():
        problem = Problem.from_function(function, start=M if kind == "SHAPED" else W)
        try:
            assert_as_looped(problem, lr=[1e-3, 3e-3], steps=10)
        except Exception as error:
            wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_an_objective_that_is_its_own_derivative_twice_over():
    """torch.func inside of the function."""
    function = lambda w: torch.func.grad(lambda v: (v**3).sum())(w).sum()  # noqa: E731
    assert_as_looped(Problem.from_function(function, start=W), lr=[0.001] * 2, steps=10)
    function = lambda w: torch.vmap(lambda v: v.sin() * v)(w).sum()  # noqa: E731
    assert_as_looped(Problem.from_function(function, start=W), lr=[0.001] * 2, steps=10)


ASKED = "asks for the value of a tensor"
REFUSED = {
    "a branch": (lambda w: (w**2).sum() if w.sum() > 0 else w.sum(), ASKED),
    "Python's max": (lambda w: max(w[0] ** 2, w[1] ** 2), ASKED),
    "item": (lambda w: (w**2).sum() * w[0].item(), ASKED),
    "int": (lambda w: (w**2).sum() * int(w[0].detach()), ASKED),
    "tolist": (lambda w: (w**2).sum() * w.detach().tolist()[0], ASKED),
    "NumPy": (lambda w: (w**2).sum() * w.detach().numpy()[0], ASKED),
    "allclose": (lambda w: (w**2).sum() * (2 if torch.allclose(w, W) else 1), ASKED),
    "a mask by value": (lambda w: (w[w > 1.5] ** 2).sum(), "not compiled|cannot be traced"),
    "inverse": (lambda w: torch.linalg.inv(torch.diag(w)).sum(), "linalg_inv"),
    "determinant": (lambda w: torch.linalg.det(torch.outer(w, W) + torch.diag(w)), "det"),
    "eigenvalues": (lambda w: torch.linalg.eigvalsh(torch.outer(w, w)).sum(), "eigh"),
    "Fourier": (lambda w: torch.fft.fft(w).abs().sum(), "fft"),
    "sorted": (lambda w: (w.sort().values * W).sum(), "sort"),
    "Bessel": (lambda w: torch.special.i0(w).sum(), "bessel"),
    "short numbers": (lambda w: (w**2 * torch.tensor([1, 2, 3], dtype=torch.int16)).sum(), "int16"),
    "half": (lambda w: (w.half() ** 2).sum().double(), "float16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_said(name):
    function, words = REFUSED[name]
    if words == "linalg_inv":
        assert math.isfinite(float(function(W)))
    assert_refused(Problem.from_function(function, start=W), words)


def test_a_double_inside_of_single_precision():
    """The loss is float64, the parameters float32: neither memory nor numbers suffer."""
    for function in (lambda w: (W * w**2).sum(), lambda w: (w.double() ** 2).sum()):
        problem = Problem.from_function(function, start=W.float())
        runs = assert_as_looped(problem, within=1e-6, lr=[0.01] * 20, steps=50, keep=ALL_KEPT)
        assert runs.batch_loss.dtype == np.float32


def test_a_gradient_by_hand_in_torch_is_compiled_and_one_in_numpy_is_not():
    problem = Problem.from_function(lambda w: (w**2).sum(), start=W)
    runs = assert_as_looped(problem, lr=[0.1, 0.2], steps=20, gradient=lambda w: {"w": 2 * w})
    assert set(runs.table["engine"]) == {"fused"}
    by_numpy = lambda w: {"w": 2 * w.detach().numpy()}  # noqa: E731
    assert_refused(problem, "gives other numbers|asks for the value", gradient=by_numpy)


def test_a_function_that_does_not_use_all_of_its_parameters():
    problem = Problem.from_function(lambda a, b: a**2 + 0 * 3, start={"a": 2.0, "b": 5.0})
    runs = fused(problem, lr=[0.1, 0.2], momentum=0.9, steps=3, weight_decay=0.1)
    assert runs.parameters["b"].tolist() == [5.0, 5.0]
    assert_as_looped(problem.to(dtype=DOUBLE), lr=[0.1, 0.2], steps=3, weight_decay=0.1)


@pytest.mark.parametrize(
    "write",
    [lambda f: F.softplus(f), lambda f: F.hardswish(f), lambda f: F.mish(f), lambda f: f**2],
)
def test_activations_of_numbers_of_every_size(write):
    values = [-1e3, -40.0, -8.0, -3.0, -1e-9, 0.0, 1e-300, 0.5, 3.0, 6.0, 21.0, 1e3]
    problem = Problem.from_function(
        lambda w: write(w).sum(), start=torch.tensor(values, dtype=DOUBLE)
    )
    assert_as_looped(problem, lr=[1e-4, 1e-2], steps=10)
