"""What is found out about a run: its verdict, the cause, in a sentence with evidence and advice.

A verdict is what the run did; a cause is why, and is "unknown" where nothing that was measured
supports one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = Literal[
    "converged",
    "converging",
    "creeping",
    "ringing",
    "cycling",
    "noise-floor",
    "edge-of-stability",
    "catapult",
    "plateau",
    "stuck",
    "diverged",
    "unknown",
]

VERDICTS: tuple[str, ...] = get_args(Verdict)

Confidence = Literal["certain", "likely", "unknown"]


@dataclass(frozen=True)
class Evidence:
    """A number that was measured, and where in the run.

    Attributes:
        where: "at the start", "at step 120", "steps 10 to 20" and so on.
    """

    value: float
    where: str


@dataclass(frozen=True)
class Advice:
    """A change of settings, and what it should do.

    Attributes:
        change: what to give `descend` in place of the run's own: ``{"lr": 0.019}``; or
            ``{"standardise": True}`` for the columns of X. Empty where the change is one of code
            or data, which the sentence says.
        should: what should be seen then: "stable" (it does not diverge, and ends below its
            start), "lower" (it ends lower than this run did) or "reach" (it gets as low as the
            estimate in `goal`).
        sentence: the same in words.
        goal: the loss to be reached, for "reach".
    """

    change: Mapping[str, Any]
    should: Literal["stable", "lower", "reach"]
    sentence: str
    goal: float | None = None


@dataclass(frozen=True)
class Trial:
    """What came of following an advice.

    Attributes:
        held: whether it did what it should.
        before, after: the final losses (NaN where a run diverged).
        sentence: the same in words.
        runs: the run with the change, as `downslope.Runs`; None in a loop of the user's own.
    """

    held: bool
    before: float
    after: float
    sentence: str
    runs: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Finding:
    """The explained verdict of a run.

    Attributes:
        run: its number.
        verdict: what it did, one of `VERDICTS`.
        cause: why, by its key in the catalogue of sentences; "unknown" where nothing measured
            supports one.
        sentence: all of it for people.
        evidence: named numbers, and where in the run they were measured.
        confidence: "certain" where theory is exact or the cause itself was seen; "likely"; or
            "unknown".
        advice: what to change; None where there is nothing to change, or nothing is known.
    """

    run: int
    verdict: Verdict
    cause: str
    sentence: str
    evidence: Mapping[str, Evidence]
    confidence: Confidence
    advice: Advice | None = None
    tried: Callable[[], Trial] | None = field(default=None, repr=False, compare=False)
    """Follows the advice; None where only the user can."""
    of: Any = field(default=None, repr=False, compare=False)
    """The `downslope.Run` it is about, for its picture; None where no step was seen."""

    def try_it(self) -> Trial:
        """Carry out the run with the advised change, and say whether that did what it should.

        Raises:
            DownslopeError: if there is no advice, or only the user can follow it.
        """
        from downslope.errors import DownslopeError

        if self.advice is None:
            raise DownslopeError(f"run {self.run} ({self.verdict}): there is no advice to try")
        if self.tried is None:
            raise DownslopeError(
                f"run {self.run}: only you can follow this advice: {self.advice.sentence}"
            )
        return self.tried()

    def plot(self, runs: Any = None) -> Figure:
        """A picture of what it says: the run's loss, and its rate among the rates that matter.

        The run is carried out once more, if it can be, to see its losses closely. Its first bad
        step, the places where the evidence was measured and the levels it speaks of are marked.
        Below stands a ruler of learning rates: the run's own, each threshold, the advised one.

        Args:
            runs: the `Runs` or the `Run` it is about, where the finding does not know.

        Raises:
            InputError: if the run is not known, or not among those given.
        """
        from downslope.views.finding_figures import figure_of

        return figure_of(self, runs)

    def __str__(self) -> str:
        return self.sentence
