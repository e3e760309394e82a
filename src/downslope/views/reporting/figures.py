"""The report's figures: which apply, what is seen on them, and their bytes inside the page."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from downslope.errors import DownslopeError
from downslope.ranking import varying
from downslope.run import watched
from downslope.runs import Runs
from downslope.telling import instructive_failure
from downslope.views.data.histories import MOST_NUMBERS
from downslope.views.figures import Plots
from downslope.views.reporting.words import run_words
from downslope.views.terminal import number

DOTS_PER_INCH = 150
_COLOURS = 128
_MOST_RUNS = 6
"""Runs on a picture that shows each by itself; of more, the best and an instructive failure."""


@dataclass(frozen=True)
class Shown:
    """A figure in the page.

    Attributes:
        title: what it is called; caption: what is seen; alternative: the same for who cannot see.
        address: the picture itself, as a ``data:`` address; width, height: in its own dots.
    """

    title: str
    caption: str
    alternative: str
    address: str
    width: int
    height: int


@dataclass(frozen=True)
class Candidate:
    """A figure that a report may hold.

    Attributes:
        draw: makes it; applies: whether there is what it shows; caption: what is seen.
        few: whether it shows each run by itself.
    """

    draw: Callable[[Plots], Figure]
    title: str
    applies: Callable[[Runs], bool]
    caption: Callable[[Runs], str]
    few: bool = False


def figures_of(runs: Runs) -> tuple[list[Shown], list[str]]:
    """The figures that apply, and a sentence for each of them that cannot be made."""
    shown, lacking = [], []
    for candidate in CANDIDATES:
        if not candidate.applies(runs):
            continue
        some = _few(runs) if candidate.few else runs
        try:
            figure = candidate.draw(some.plot)
        except DownslopeError as error:
            lacking.append(f"{candidate.title} is not drawn: {error}.")
            continue
        shown.append(shown_figure(candidate.title, candidate.caption(some), figure))
    return shown, lacking


def shown_figure(title: str, caption: str, figure: Figure) -> Shown:
    """A figure with its words, as a picture of few colours inside the page."""
    picture = indexed_png(figure)
    width, height = Image.open(io.BytesIO(picture)).size
    address = "data:image/png;base64," + b64encode(picture).decode("ascii")
    return Shown(title, caption, f"Picture: {title}. {caption}", address, width, height)


def indexed_png(figure: Figure) -> bytes:
    """A figure as PNG with a palette: a third of the size, and no difference that is seen."""
    drawn, made = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    with Image.open(drawn) as picture:
        few = picture.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
        few.save(made, format="png", optimize=True)
    return made.getvalue()


def _few(runs: Runs) -> Runs:
    """All runs if they are few, else the best and the most instructive failure."""
    if len(runs) <= _MOST_RUNS:
        return runs
    best = [runs.best.place] if np.isfinite(runs.score).any() else []
    failure = instructive_failure(runs)
    places = best + ([] if failure is None else [failure.place])
    return runs[sorted({*places})] if places else runs[:_MOST_RUNS]


# -- which apply ---------------------------------------------------------------------------------


def _losses(runs: Runs) -> bool:
    return bool(np.isfinite(runs.loss[:, 1:]).any())


def _rates(runs: Runs) -> list[str]:
    """The columns of learning rates that take several values."""
    names = [n for n in runs.settings.columns if n == "lr" or n.startswith("lr[")]
    return [n for n in names if runs.settings[n].drop_nulls().n_unique() > 1]


def _several_rates(runs: Runs) -> bool:
    return bool(_rates(runs))


def _mapped(runs: Runs) -> tuple[Runs, str] | None:
    """The runs on the map, and the setting over which it is drawn besides the rate: of the best
    run's optimizer the number that it varies most; None if it varies no other with the rate."""
    optimizers = runs.settings["optimizer"]
    best = runs.best.place if np.isfinite(runs.score).any() else 0
    mine = runs[(optimizers == optimizers[best]).to_numpy()]
    counts = {
        name: mine.settings[name].drop_nulls().n_unique()
        for name in varying(mine)
        if name == "batch_size" or mine.settings[name].dtype.is_numeric()
    }
    others = [name for name, count in counts.items() if name != "lr" and count > 1]
    if counts.get("lr", 1) < 2 or not others:
        return None
    return mine, max(others, key=lambda name: counts[name])


def _map(plots: Plots) -> Figure:
    mapped = _mapped(plots.runs)
    assert mapped is not None
    return mapped[0].plot.map(y=mapped[1])


def _fit(runs: Runs) -> bool:
    problem = None if runs.plan is None else runs.plan.problem
    rows = None if problem is None else problem.train
    return rows is not None and rows.y is not None and bool(np.isfinite(runs.score).any())


def _path(runs: Runs) -> bool:
    return runs.path is not None and runs.plan is not None


def _numbers(runs: Runs) -> int:
    return sum(t[0, 0].numel() for t in (runs.path or {}).values())


def _parameters(runs: Runs) -> bool:
    return _numbers(runs) > 0


def _gradient_norm(runs: Runs) -> bool:
    return runs.gradient_norm is not None and bool(np.isfinite(runs.gradient_norm).any())


# -- what is seen --------------------------------------------------------------------------------


def _seeds(runs: Runs) -> str:
    seeds = runs.settings["seed"].n_unique()
    return " A line is the median over its seeds, the band their range." if seeds > 1 else ""


def _of_losses(runs: Runs) -> str:
    if watched(runs):
        return "The loss of each batch, before the update."
    words = "The loss over all training rows at every record, a line a setting."
    if runs.plan is not None and runs.plan.problem.train is None:
        words = "The value of the function at every record, a line a setting."
    words += _seeds(runs)
    if runs.validation_loss is not None:
        words += " Dashed: the validation loss."
    diverged = int(runs.diverged.sum())
    if diverged:
        words += f" {diverged:,} of {len(runs):,} runs diverged: their lines end in a mark" + (
            ", and the axis is that of the others." if diverged < len(runs) else "."
        )
    return words


def _of_sensitivity(runs: Runs) -> str:
    over = "training" if runs.validation_loss is None else "validation"
    words = f"The final {over} loss against the learning rate.{_seeds(runs)}"
    if np.isfinite(runs.score).any():
        row = runs.best.row
        judged = "final_loss" if runs.validation_loss is None else "final_validation_loss"
        words += f" The ring is the best run: {run_words(runs.best)}, {number(row[judged])}."
    return words + (" Crosses: rates at which runs diverged." if runs.diverged.any() else "")


def _of_map(runs: Runs) -> str:
    mapped = _mapped(runs)
    assert mapped is not None
    mine, other = mapped
    some = runs.settings["optimizer"].n_unique() > 1
    whose = f"runs of {mine.settings['optimizer'][0]}" if some else "runs"
    return f"How the {whose} ended, as colour, over lr and {other.replace('_', ' ')}."


def _of_fit(runs: Runs) -> str:
    problem = None if runs.plan is None else runs.plan.problem
    apart = problem is not None and (problem.validation is not None or problem.test is not None)
    rows = "training rows and of those kept apart" if apart else "training rows"
    return f"What the best run ({run_words(runs.best)}) predicts of the {rows}."


def _of_path(runs: Runs) -> str:
    return "The way of single runs over the loss, from the square to the star (a cross: diverged)."


def _of_sharpness(runs: Runs) -> str:
    return (
        "The loss's largest curvature along the way; dashed, what the run's rate (with its "
        "momentum) bears: full batches are stable below that line."
    )


def _of_parameters(runs: Runs) -> str:
    each = _numbers(runs) <= MOST_NUMBERS
    what = "Each number that was trained" if each else "The norm of each tensor that was trained"
    if not np.isfinite(runs.score).any():
        return f"{what}, over time, in the run that lasted longest: none ended well."
    return f"{what}, over time, in the best run ({run_words(runs.best)})."


def _of_gradient_norm(runs: Runs) -> str:
    return "The length of the gradient before every update."


CANDIDATES = (
    Candidate(lambda plot: plot.losses(), "Loss curves", _losses, _of_losses),
    Candidate(
        lambda plot: plot.sensitivity(), "Loss against rate", _several_rates, _of_sensitivity
    ),
    Candidate(_map, "Map of settings", lambda runs: _mapped(runs) is not None, _of_map),
    Candidate(lambda plot: plot.fit(), "Fit of the best run", _fit, _of_fit),
    Candidate(lambda plot: plot.path(), "Paths", _path, _of_path, few=True),
    Candidate(lambda plot: plot.parameters(), "Parameters", _parameters, _of_parameters, few=True),
    Candidate(
        lambda plot: plot.gradient_norm(), "Gradient", _gradient_norm, _of_gradient_norm, few=True
    ),
    Candidate(lambda plot: plot.sharpness(), "Curvature", _path, _of_sharpness, few=True),
)
