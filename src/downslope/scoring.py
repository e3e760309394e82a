"""What a table's model is worth, in the target's own units, beside the plainest fit there is."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from downslope.data import Rows
from downslope.problem import Problem
from downslope.run import Run

Scores = dict[str, float]

REGRESSION_WORDS = {
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "r2": "R²",
}
CLASSIFICATION_WORDS = {"accuracy": "accuracy", "cross_entropy": "cross-entropy (nats)"}
"""What scores are called, in the order in which they are told."""


def in_own_units(problem: Problem | None) -> tuple[str, Callable[[float], float]]:
    """What the loss that runs are chosen by is called, and how it is told in the target's units."""
    where = "training" if problem is None or problem.validation is None else "validation"
    if problem is None or problem.table is None:
        return f"{where} loss", lambda value: value
    scale = problem.table.schema.target.scale
    loss = problem.template.loss
    if isinstance(loss, nn.MSELoss):
        return f"{where} RMSE", lambda value: math.sqrt(value) * scale
    if isinstance(loss, nn.L1Loss):
        return f"{where} MAE", lambda value: value * scale
    return f"{where} loss", lambda value: value


def on_test_rows(problem: Problem, run: Run) -> tuple[Scores, Scores]:
    """Scores on the test rows of a run's model and of a plain fit; empty without such rows."""
    if problem.table is None or problem.test is None:
        return {}, {}
    chosen = scores(problem, problem.test, _outputs(run.model, problem.test))
    return chosen, scores(problem, problem.test, plain_fit(problem, problem.test))


def score_words(chosen: Scores) -> dict[str, str]:
    """The words for scores like these."""
    return REGRESSION_WORDS if "rmse" in chosen else CLASSIFICATION_WORDS


def plain_words(chosen: Scores) -> str:
    """What the plain fit is called beside scores like these."""
    return "plain least squares" if "rmse" in chosen else "plain logistic regression"


def compared(chosen: Scores, plain: Scores) -> str:
    """How much better or worse the chosen run is than the plain fit, in a sentence."""
    key = "rmse" if "rmse" in chosen else "cross_entropy"
    ratio = chosen[key] / plain[key] - 1 if plain[key] else math.nan
    if not math.isfinite(ratio):
        return f"the plain fit's {score_words(chosen)[key]} is {plain[key]:.4g}"
    better = "worse" if ratio > 0 else "better"
    return (
        f"the chosen run's {score_words(chosen)[key]} is {abs(ratio):.1%} {better} than the plain "
        "fit's"
    )


def scores(problem: Problem, rows: Rows, outputs: NDArray[np.float64]) -> Scores:
    """How good outputs are on some rows.

    Args:
        outputs: (rows, 1) standardised predictions, or (rows, classes) scores before softmax.

    Returns:
        rmse, mae (in the target's units) and r2; or accuracy and cross_entropy (in nats).
    """
    assert problem.table is not None and rows.y is not None
    schema, y = problem.table.schema, rows.y.double().cpu().numpy()
    if schema.target.task == "regression":
        wanted, given = schema.to_own_units(y.ravel()), schema.to_own_units(outputs.ravel())
        error = given - wanted
        spread = ((wanted - wanted.mean()) ** 2).sum()
        return {
            "rmse": float(np.sqrt((error**2).mean())),
            "mae": float(np.abs(error).mean()),
            "r2": float(1 - (error**2).sum() / spread) if spread > 0 else float("nan"),
        }
    if outputs.shape[1] == 1:  # one score for the second of two classes
        outputs = np.concatenate([np.zeros_like(outputs), outputs], axis=1)
    classes = y.ravel().astype(np.int64)
    logits = torch.from_numpy(outputs)
    cross_entropy = nn.functional.cross_entropy(logits, torch.from_numpy(classes))
    return {
        "accuracy": float((outputs.argmax(1) == classes).mean()),
        "cross_entropy": float(cross_entropy),
    }


def plain_fit(problem: Problem, rows: Rows) -> NDArray[np.float64]:
    """Outputs for `rows` of ordinary least squares, or of logistic regression (scikit-learn's,
    with its default penalty), fitted to the training rows."""
    train = problem.train
    assert problem.table is not None and train is not None and train.y is not None
    X, new = train.x.double().cpu().numpy(), rows.x.double().cpu().numpy()
    y = train.y.double().cpu().numpy()
    if problem.table.schema.target.task == "regression":
        with_one = np.column_stack([X, np.ones(len(X))])
        weights = np.linalg.lstsq(with_one, y, rcond=None)[0]
        outputs: NDArray[np.float64] = np.column_stack([new, np.ones(len(new))]) @ weights
        return outputs
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(y.ravel())
    scores = np.full((len(new), len(problem.table.schema.target.classes)), -1e3)
    if len(seen) == 1:  # nothing to learn from: always that class
        scores[:, int(seen[0])] = 0.0
        return scores
    fitted = LogisticRegression(max_iter=10_000).fit(X, y.ravel())
    scores[:, fitted.classes_.astype(np.int64)] = fitted.predict_log_proba(new)
    return scores


def _outputs(model: nn.Module, rows: Rows) -> NDArray[np.float64]:
    with torch.no_grad():
        made: NDArray[np.float64] = model(rows.x).double().cpu().numpy()
    return made
