"""Pictures of runs, made by matplotlib without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from downslope.run import Run
from downslope.runs import Runs
from downslope.views.data.fits import fit
from downslope.views.data.gradients import norm_curves
from downslope.views.data.grids import outcome_map
from downslope.views.data.histories import parameter_histories
from downslope.views.data.losses import Axis, Which, loss_curves
from downslope.views.data.paths import paths
from downslope.views.data.rates import Sensitivity, sensitivity
from downslope.views.data.sharpness import sharpness
from downslope.views.data.tunings import tuning_curve
from downslope.views.drawing.fits import draw_fit
from downslope.views.drawing.grids import draw_map
from downslope.views.drawing.histories import draw_histories, draw_norms
from downslope.views.drawing.losses import draw_losses
from downslope.views.drawing.paths import draw_paths
from downslope.views.drawing.rates import draw_sensitivity, unknown_thresholds
from downslope.views.drawing.sharpness import draw_sharpness
from downslope.views.drawing.style import (
    WIDTH,
    legend_height,
    own_style,
    picture,
)

if TYPE_CHECKING:
    from downslope.tuning import Tuning


@dataclass(frozen=True, eq=False)
class Plots:
    """Pictures of some runs, reached as ``runs.plot``.

    Each is a `matplotlib.figure.Figure`: a notebook shows it, ``.savefig("loss.png")`` keeps it.
    """

    runs: Runs

    def losses(self, axis: Axis = "epoch", log: bool = True, which: Which = "loss") -> Figure:
        """Loss curves: a line a setting, the range over its seeds as a band.

        Args:
            axis: "epoch", or "step" for the number of updates.
            log: a logarithmic loss axis, where no loss is below 0.
            which: "loss" over all training rows at the records, with the validation loss
                dashed; or "batch_loss", the batch's before each update.

        Raises:
            InputError: for another axis, or a loss that was not kept.
        """
        data = loss_curves(self.runs, axis, log, which)
        names = [curve.setting.counted_label for curve in data.curves]
        with own_style():
            figure = picture(WIDTH, 3.6 + legend_height([*names, "", ""]))
            draw_losses(figure, data)
        return figure

    def sensitivity(self) -> Figure:
        """The final loss (of the validation rows, if there are any) against the learning rate.

        Rates at which runs diverged are marked at the top and never stretch the loss axis. The
        rate above which theory says that full batches of SGD leave an optimum is a dashed line:
        "threshold" where the loss is quadratic, else "threshold at the start", from the curvature
        there. Small batches have one where the loss is a quadratic of few parameters.

        Raises:
            InputError: if no run has a learning rate.
        """
        return _rates_figure(sensitivity(self.runs))

    def map(
        self,
        x: str = "lr",
        y: str | None = None,
        of: str | None = None,
        verdicts: bool = False,
    ) -> Figure:
        """An outcome over any two settings, as colour.

        A cell shows the median over the runs that share both settings; those that diverged count
        as the worst, so that a cell of which half the runs diverged is hatched. The best cell is
        ringed; maps of 12 × 12 cells or fewer have the numbers in them. Where settings were drawn
        at random, numbers are put together in bins.

        Args:
            x, y: settings that differ between the runs, by their columns of the table: "lr",
                "momentum", "batch_size", "optimizer", "seed", "lr[0.*]" of rates by parameter
                name. Without y the other one that differs, besides the seed.
            of: "final_loss", "final_validation_loss" (by default, if there is one), "best_loss",
                or "sum": of runs that went down the sum of their losses, of those that blew up
                the sum of the inverses, each as a share of the start and in colours of its own
                (the boundary of trainability, Sohl-Dickstein 2024). Colours of sums are spread so
                that each stands for as many cells.
            verdicts: write the most frequent verdict of `Runs.explain` into each cell.

        Raises:
            InputError: for a setting that does not differ, an unknown outcome, or verdicts of
                more than 400 cells.
        """
        data = outcome_map(self.runs, x, y, of, verdicts)
        with own_style():
            return draw_map(data)

    def path(self) -> Figure:
        """The way of up to six runs over the loss: of one number, of two (as contours), or on the
        plane of the ways' two main directions.

        That plane goes through the end of the best of these runs, and is one for all of them. The
        picture says what share of the ways it holds, how far each is off it, and where the drawn
        surface misses a way's loss by more than a tenth of its range.

        Raises:
            InputError: if the paths were not kept (``keep=("loss", "parameters")``), or the runs
                were loaded without their problem.
        """
        return draw_paths(paths(self.runs))

    def fit(self, feature: str | int | None = None) -> Figure:
        """The best run's predictions of the training rows; of validation and test rows too, if
        there are any, in marks of their own.

        A number predicted from one feature is drawn against it; from more, predicted against true
        values with the residuals below them. Classes told from two features are drawn as regions
        of their plane, others as counts, a square each for training, validation and test rows.

        Args:
            feature: of several, draw the target against this one (a name, or a number from 0).

        Raises:
            InputError: for a problem without data, an unknown feature, or more than one output.
        """
        return draw_fit(fit(self.runs, feature))

    def parameters(
        self, axis: Axis = "epoch", run: int | Run | Sequence[int | Run] | None = None
    ) -> Figure:
        """The parameters over time: each number where they are up to 12, else each tensor's norm.

        Args:
            axis: "epoch", or "step" for the number of updates.
            run: in place of the best run, numbers from the table's ``run`` column, or Runs: up to
                six, a panel each.

        Raises:
            InputError: if the parameters were not kept (``keep=("loss", "parameters")``), for an
                unknown run or axis, or more than six runs.
        """
        return draw_histories(parameter_histories(self.runs, axis, run))

    def gradient_norm(self, axis: Axis = "step") -> Figure:
        """The norm of the batch's gradient before each update (and before clipping): a line a
        setting, the range over its seeds as a band; where it is noisy, a smooth line over it.

        Args:
            axis: "step" for the number of updates, or "epoch".

        Raises:
            InputError: for another axis, or if the norms were not kept
                (``keep=("loss", "gradient_norm")``).
        """
        return draw_norms(norm_curves(self.runs, axis))

    def sharpness(self, places: int = 20, axis: Axis = "step") -> Figure:
        """The largest curvature of the loss along up to six runs, and the least where it is
        negative; dashed, the curvature that the run's rate bears: 2 / rate for plain SGD, theory's
        own for momentum, following a schedule.

        Args:
            places: at how many places along each run it is measured (see `Runs.curvature`). Each
                costs up to 60 gradients' gradients: give fewer where the model is large.
            axis: "step" for the number of updates, or "epoch".

        Raises:
            InputError: for another axis, if the parameters were not kept
                (``keep=("loss", "parameters")``), or the runs were loaded without their problem.
        """
        return draw_sharpness(sharpness(self.runs, places, axis))


def tuning_figure(tuning: Tuning) -> Figure:
    """What `Tuning.plot` returns."""
    return _rates_figure(tuning_curve(tuning))


def _rates_figure(data: Sensitivity) -> Figure:
    with own_style():
        lines = 0.17 * len(unknown_thresholds(data))
        figure = picture(WIDTH, 3.6 + legend_height(_rates_words(data)) + lines)
        draw_sensitivity(figure, data)
    return figure


def _rates_words(data: Sensitivity) -> list[str]:
    """Names as long and as many as those of the legend."""
    return [
        *(line.counted_label for line in data.lines),
        *(one.label for one in data.theory.found),
        *["first rate at which a run diverged: 0.1234"] * (0 if data.tuned is None else 3),
        *["rates where every run diverged"] * 2,
    ]


def fit_figure(runs: Runs) -> Figure:
    """Loss curves and sensitivity to the learning rate side by side."""
    left_data, right_data = loss_curves(runs), sensitivity(runs)
    most = max(
        legend_height([*(c.setting.counted_label for c in left_data.curves), "", ""]),
        legend_height(_rates_words(right_data)) + 0.17 * len(unknown_thresholds(right_data)),
    )
    with own_style():
        figure = picture(12.0, 4.3 + most)
        grid = figure.add_gridspec(1, 2, wspace=0.04)
        left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        draw_losses(left, left_data)
        draw_sensitivity(right, right_data)
    return figure
