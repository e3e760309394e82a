"""Losses: every named one against its formula, and what may not stand side by side."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F

import downslope as ds
from downslope import losses as L
from downslope.errors import ProblemError

ROWS = 30


def inputs():
    return torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def linear(outputs=1, flat=False):
    torch.manual_seed(3)
    net = nn.Linear(2, outputs).double()
    return nn.Sequential(net, nn.Flatten(0)) if flat else net


def descended(problem, **changes):
    asked = {"lr": 0.05, "steps": 3, "engine": "looped", "progress": False, **changes}
    return ds.descend(problem, optim.SGD, **asked)


def softplus(z):
    return np.log1p(np.exp(z))


def clipped(d, edge):
    """Squared near zero, straight beyond the edge, with one slope."""
    return np.where(np.abs(d) < edge, 0.5 * d**2, edge * (np.abs(d) - 0.5 * edge))


NUMBERS = {
    "mse": lambda z, t: (z - t) ** 2,
    "l1": lambda z, t: np.abs(z - t),
    "huber": lambda z, t: clipped(z - t, 1.0),
    "smooth_l1": lambda z, t: clipped(z - t, 1.0),
    "bce": lambda z, t: softplus(z) - t * z,
    "poisson": lambda z, t: np.exp(z) - t * z,
}
"""The formulas, row by row, from torch's pages on each loss."""


def target_of(name):
    X = inputs()
    if name in ("bce", "cross_entropy"):
        return (X.sum(1, keepdim=True) > 0).double()
    return (X.sum(1, keepdim=True) * 2).round().abs()


def test_every_name_has_a_formula_here():
    assert set(NUMBERS) | {"cross_entropy"} == set(L.LOSSES)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("given", ["name", "instance", "sum", "callable"])
def test_losses_of_numbers(name, given):
    X, y, net = inputs(), target_of(name), linear()
    wanted = NUMBERS[name](net(X).detach().numpy(), y.numpy())
    wanted = wanted.sum() if given == "sum" else wanted.mean()
    kind = L.LOSSES[name]
    loss = {
        "name": name,
        "instance": kind(),
        "sum": kind(reduction="sum"),
        "callable": lambda p, t: kind()(p, t),
    }[given]
    p = ds.Problem.from_model(net, X, y, loss=loss)
    assert p.joined == {"sum": "sum", "callable": "whole"}.get(given, "mean")
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_losses_of_classes(loss):
    X, net = inputs(), linear(3)
    y = torch.arange(ROWS) % 3
    z = net(X).detach().numpy()
    logs = z - np.log(np.exp(z).sum(1, keepdims=True))
    wanted = -logs[np.arange(ROWS), y].mean()
    model = nn.Sequential(net, nn.LogSoftmax(1)) if isinstance(loss, nn.NLLLoss) else net
    for kind in (torch.int64, torch.int32, torch.uint8):
        p = ds.Problem.from_model(model, X, y.to(kind), loss=loss)
        assert p.train.y.dtype == torch.int64 and p.joined == "mean"
        np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-12)


def test_probabilities_as_targets_of_cross_entropy():
    X, net = inputs(), linear(3)
    y = torch.softmax(torch.randn(ROWS, 3, generator=torch.Generator().manual_seed(1)), 1)
    p = ds.Problem.from_model(net, X, y, loss=nn.CrossEntropyLoss())
    assert p.train.y.dtype == torch.float64
    wanted = -(y.double() * torch.log_softmax(net(X), 1)).sum(1).mean().item()
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-7)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.1])), torch.arange(ROWS) % 3),
        (nn.CrossEntropyLoss(ignore_index=2), torch.arange(ROWS) % 3),
        (nn.CrossEntropyLoss(label_smoothing=0.1), torch.arange(ROWS) % 3),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 5.0, 0.1])), torch.ones(ROWS, 3)),
        (nn.MultiMarginLoss(), torch.arange(ROWS) % 3),
        (nn.MultiLabelSoftMarginLoss(), torch.ones(ROWS, 3)),
    ],
)
def test_losses_with_weights_in_a_float64_problem(loss, target):
    X, net = inputs(), linear(3)
    p = ds.Problem.from_model(net, X, target, loss=loss)
    wanted = type(loss)(**{
        name: value.double() if torch.is_tensor(value) else value
        for name in ("weight", "pos_weight", "ignore_index", "label_smoothing")
        if (value := getattr(loss, name, None)) is not None
    })(net(X), target if not target.is_floating_point() else target.double())  # fmt: skip
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted.item(), rtol=1e-7)
    if isinstance(loss, nn.CrossEntropyLoss) and loss.weight is not None:
        assert loss.weight.dtype == torch.float32  # the user's own is left alone


def test_blocks_of_rows_join_to_the_loss_of_all(monkeypatch):
    import downslope.problem_rows as module

    monkeypatch.setattr(module, "EVALUATED_ROWS", 7)
    X, net, y = inputs(), linear(3), torch.arange(ROWS) % 3
    weight = torch.tensor([1.0, 5.0, 0.1], dtype=torch.float64)
    for loss in (
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(reduction="sum"),
        nn.CrossEntropyLoss(weight=weight),
        nn.CrossEntropyLoss(ignore_index=1),
        nn.CrossEntropyLoss(ignore_index=1, reduction="sum"),
        lambda p, t: F.cross_entropy(p, t) ** 2,
    ):
        wanted = loss(net(X), y).item()
        for engine in ("looped", "stacked"):
            p = ds.Problem.from_model(net, X, y, loss=loss)
            made = descended(p, lr=[0.01] * 4, engine=engine).loss[:, 0]
            np.testing.assert_allclose(made, wanted, rtol=1e-12)


# -- shapes ----------------------------------------------------------------------------------

PLAIN = [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.SmoothL1Loss(), nn.BCEWithLogitsLoss(),
         nn.PoissonNLLLoss()]  # fmt: skip

BROADCASTING = {
    "difference": lambda p, t: ((p - t) ** 2).mean(),
    "power": lambda p, t: (p - t).abs().pow(1.5).mean(),
    "method": lambda p, t: p.sub(t).square().mean(),
    "product": lambda p, t: -(t * p).mean(),
    "division": lambda p, t: (p / (t.abs() + 1)).mean(),
    "where": lambda p, t: torch.where(p > t, p, t).mean(),
    "maximum": lambda p, t: torch.maximum(p, t).mean(),
    "logaddexp": lambda p, t: torch.logaddexp(p, t).mean(),
    "atan2": lambda p, t: torch.atan2(p, t).mean(),
    "lerp": lambda p, t: torch.lerp(p, t, 0.5).mean(),
    "addcmul": lambda p, t: torch.addcmul(p, p.detach(), t).mean(),
    "broadcast_tensors": lambda p, t: torch.sub(*torch.broadcast_tensors(p, t)).square().mean(),
    "soft margin": nn.SoftMarginLoss(),
    "hinge embedding": nn.HingeEmbeddingLoss(),
    "F.mse_loss": F.mse_loss,
    "F.l1_loss": F.l1_loss,
    "F.smooth_l1_loss": F.smooth_l1_loss,
    "F.huber_loss": F.huber_loss,
    "F.mse_loss wrapped": lambda p, t: 0.5 * F.mse_loss(p, t),
}


def mismatched(flat_prediction):
    """Prediction (rows, 1) and target (rows,), or the other way round."""
    X = inputs()
    y = (X.sum(1) > 0).double()
    return (linear(flat=True), X, y[:, None]) if flat_prediction else (linear(), X, y)


@pytest.mark.parametrize("loss", PLAIN, ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("flat_prediction", [False, True])
def test_a_column_against_a_row_is_refused(loss, flat_prediction):
    net, X, y = mismatched(flat_prediction)
    shapes = (r"\(rows\)", r"\(rows, 1\)") if flat_prediction else (r"\(rows, 1\)", r"\(rows\)")
    hint = r"y\.reshape\(-1\)" if flat_prediction else r"y\.reshape\(-1, 1\)"
    said = f"prediction has shape {shapes[0]} but the target {shapes[1]}.*{hint}"
    with pytest.raises(ProblemError, match=said):
        ds.Problem.from_model(net, X, y, loss=loss)


@pytest.mark.parametrize("name", BROADCASTING)
@pytest.mark.parametrize("flat_prediction", [False, True])
def test_a_callable_that_broadcasts_is_refused(name, flat_prediction):
    net, X, y = mismatched(flat_prediction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch itself warns for some, and goes on
        with pytest.raises(ProblemError, match=r"the prediction has shape|broadcast shape"):
            ds.Problem.from_model(net, X, y, loss=BROADCASTING[name])


SQUEEZING = {
    "squeeze": lambda p, t: ((p.squeeze(-1) - t) ** 2).mean(),
    "reshape": lambda p, t: F.mse_loss(p.reshape(-1), t),
    "index": lambda p, t: F.mse_loss(p[:, 0], t),
    "unsqueeze": lambda p, t: F.mse_loss(p, t.unsqueeze(1)),
    "view_as": lambda p, t: F.mse_loss(p, t.view_as(p)),
    "flatten": lambda p, t: torch.dot(p.flatten() - t, p.flatten() - t) / len(t),
}


@pytest.mark.parametrize("name", SQUEEZING)
def test_a_callable_that_squeezes_is_right(name):
    net, X, y = mismatched(False)
    p = ds.Problem.from_model(net, X, y, loss=SQUEEZING[name])
    wanted = np.mean((net(X).detach().numpy()[:, 0] - y.numpy()) ** 2)
    np.testing.assert_allclose(descended(p).loss[0, 0], wanted, rtol=1e-12)


def test_a_loss_that_compares_every_pair_on_purpose_is_right():
    def ranking(p, t):
        return F.softplus(-(p - p.T) * torch.sign(t - t.T)).mean()

    X = inputs()
    y = X.sum(1, keepdim=True)
    p = ds.Problem.from_model(linear(), X, y, loss=ranking)
    assert p.joined == "whole"
    runs = descended(p, lr=[1.0] * 4, steps=100)
    assert runs.loss[0, -1] < runs.loss[0, 0]


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_rows_and_outputs_that_happen_to_be_as_many_are_no_match(classes):
    """Whatever few rows a check looks at, (rows, 3) minus (rows,) is a mistake."""
    X = inputs()
    with pytest.raises(ProblemError):
        ds.Problem.from_model(linear(classes), X, X.sum(1), loss=lambda p, t: ((p - t) ** 2).mean())


@pytest.mark.parametrize(
    ("outputs", "target", "said"),
    [
        (3, torch.zeros(ROWS, 1, dtype=torch.int64), r"\(rows, classes\) and \(rows,\)"),
        (3, torch.zeros(ROWS, 3, dtype=torch.int64), r"\(rows, classes\) and \(rows,\)"),
        (3, torch.zeros(ROWS), r"shape \(rows, 3\) but the target \(rows\)"),
        (1, torch.ones(ROWS, dtype=torch.int64), "holds class 1, but the model has 1 outputs"),
        (3, torch.arange(ROWS) % 4, "holds class 3, but the model has 3 outputs, .* 0 to 2"),
        (3, torch.arange(ROWS) % 3 - 1, "holds class -1, but"),
    ],
)
def test_what_a_class_cannot_be(outputs, target, said):
    with pytest.raises(ProblemError, match=said):
        ds.Problem.from_model(linear(outputs), inputs(), target, loss=nn.CrossEntropyLoss())


def test_one_class_out_of_range_in_the_last_row_is_found():
    y = torch.zeros(ROWS, dtype=torch.int64)
    y[-1] = 9
    with pytest.raises(ProblemError, match="holds class 9"):
        ds.Problem.from_model(linear(3), inputs(), y, loss=nn.CrossEntropyLoss())
    p = ds.Problem.from_model(linear(3), inputs(), y, loss=nn.CrossEntropyLoss(ignore_index=9))
    assert np.isfinite(descended(p).loss).all()


def test_a_flat_prediction_of_classes_is_refused():
    y = torch.zeros(ROWS, dtype=torch.int64)
    with pytest.raises(ProblemError, match=r"\(rows, classes\) and \(rows,\)"):
        ds.Problem.from_model(linear(flat=True), inputs(), y, loss=nn.CrossEntropyLoss())


def test_classes_of_a_sequence():
    X = torch.randn(6, 2, 5, dtype=torch.float64)
    y = torch.arange(30).reshape(6, 5) % 3
    p = ds.Problem.from_model(nn.Conv1d(2, 3, 1).double(), X, y, loss=nn.CrossEntropyLoss())
    assert np.isfinite(descended(p).loss).all()
    with pytest.raises(ProblemError, match=r"\(rows, classes\) and \(rows,\)"):
        ds.Problem.from_model(nn.Conv1d(2, 3, 1).double(), X, y[:, :4], loss=nn.CrossEntropyLoss())


def test_a_loss_by_name():
    for name, kind in L.LOSSES.items():
        assert type(L.loss_by_name(name)) is kind
    with pytest.raises(ProblemError, match=r"unknown loss 'cross-entropy' \(did you mean"):
        L.loss_by_name("cross-entropy")
