"""Pictures of a comparison, from its tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from downslope.views.data.budgets import expected_best, times
from downslope.views.data.comparisons import rates, results
from downslope.views.data.contests import profiles, wins
from downslope.views.drawing.budgets import draw_expected_best, draw_times
from downslope.views.drawing.comparisons import draw_rates, draw_results
from downslope.views.drawing.contests import draw_profiles, draw_wins

if TYPE_CHECKING:
    from downslope.comparison import Comparison


@dataclass(frozen=True, eq=False)
class ComparisonPlots:
    """Pictures of a comparison, reached as ``comparison.plot``.

    Each is a `matplotlib.figure.Figure`: a notebook shows it, ``.savefig("wins.png")`` keeps it.
    Of more than 12 problems, those that have panels are the first, and the picture says so.
    """

    comparison: Comparison

    def profiles(self, share: float | None = None) -> Figure:
        """Performance profiles: the share of problems solved within a factor of the best.

        How high a curve begins says how often its optimizer was the fastest; how high it ends,
        how often it arrived at all. Source: E. D. Dolan and J. J. Moré, Mathematical Programming
        91 (2002), 201–213.

        Args:
            share: another target than the comparison's own, by its share of the baseline's way;
                `Comparison.targets` has them.

        Raises:
            InputError: for a share that is not among them.
        """
        found = self.comparison
        main = found.target if share is None else share
        return draw_profiles(profiles(found.profiles, found.table, main))

    def results(self) -> Figure:
        """Every fresh seed's final loss, a panel a problem.

        Dots and the band behind them are the spread of the runs; the black bar is how surely the
        median is known. Runs that diverged are counted at the right.
        """
        return draw_results(results(self.comparison.table, self.comparison.results))

    def wins(self) -> Figure:
        """How often each optimizer ended lower than another, with intervals.

        Raises:
            InputError: if there is one optimizer alone.
        """
        return draw_wins(wins(self.comparison.wins))

    def expected_best(self) -> Figure:
        """What a smaller budget of trials would have found, a panel a problem."""
        found = self.comparison
        return draw_expected_best(expected_best(found.expected_best, found.results))

    def sensitivity(self) -> Figure:
        """The final loss of every trial against its rate, a panel a problem, failures included.

        Raises:
            InputError: if no trial had a learning rate of its own (a schedule set it).
        """
        found = self.comparison
        trials = rates(found.sensitivity, found.table, found.results)
        return draw_rates(trials)

    def targets(self) -> Figure:
        """Steps and gradient evaluations to the target, and to others, a row a problem."""
        return draw_times(times(self.comparison.targets))
