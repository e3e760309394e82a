"""The verdict of a loop from its records: batches' losses, norms, and curvature where measured.

Losses of batches are noisy. Whether they fall is decided between the last quarter and the one
before, by their means against the error of the difference, or by their ranks (H. B. Mann and
D. R. Whitney 1947); so is whether they fell since the start. That they stand still is claimed only
where what they may still fall is small. "certain" is said only of what was seen itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from downslope.explain.findings import Advice, Confidence, Evidence, Finding, Verdict
from downslope.explain.words import say

Floats = NDArray[np.float64]

FEWEST = 8
"""Losses below which nothing is said about where they go."""

_SURE, _SURE_RANKS = 3.5, 3.0
"""Standard errors of a difference of means, and of Mann and Whitney's count, beyond doubt."""

_BLOWN_UP = 1e8
_NEAR = (0.8, 1.25)
"""Shares of the limit between which the curvature hovers at it."""


@dataclass(frozen=True)
class Trend:
    """Where the losses go.

    Attributes:
        first, before, last: means of the first eighth, the third quarter and the last.
        fell, falling, rising: from the first to the last; from the quarter before to the last.
        level: it fell, and what it may still fall from quarter to quarter is little beside that.
        still: it is where it began.
        monotone: every loss is below the one before.
        back_and_forth: correlation of neighbours in the second half, its trend taken out; near −1
            where losses go up and down in turn.
    """

    first: float
    before: float
    last: float
    fell: bool
    falling: bool
    rising: bool
    level: bool
    still: bool
    monotone: bool
    back_and_forth: float


def trend(losses: Floats) -> Trend:
    """Of at least `FEWEST` finite losses, (steps,), smaller being better."""
    n = len(losses)
    early, quarter = losses[: max(n // 8, 2)], losses[: n // 4]
    third, last = losses[n // 2 : 3 * n // 4], losses[3 * n // 4 :]
    now, ever = third.mean() - last.mean(), early.mean() - last.mean()
    monotone = bool((np.diff(losses) < 0).all())
    below = monotone or _above(early, last) or _above(quarter, last)
    left = abs(now) + 2 * _error(third, last)
    return Trend(
        first=float(early.mean()),
        before=float(third.mean()),
        last=float(last.mean()),
        fell=bool(below and ever > 0.01 * abs(early.mean())),
        falling=bool((monotone or _above(third, last)) and now > 0.005 * abs(last.mean())),
        rising=bool(_above(last, third) and -now > 0.02 * abs(third.mean())),
        level=bool(left < 0.1 * ever),
        still=bool(
            n >= 30
            and abs(ever) <= 2 * _error(early, last) + 1e-6 * abs(early.mean())
            and abs(_ranks(quarter, last)) < 1.5
        ),
        monotone=monotone,
        back_and_forth=_back_and_forth(losses[n // 2 :]),
    )


def _above(some: Floats, others: Floats) -> bool:
    """Whether the ones lie above the others beyond doubt, by their means or by their ranks.

    A fast decay has a wide spread, so that its mean is unsure while the ranks are not.
    """
    difference = some.mean() - others.mean()
    return bool(difference > _SURE * _error(some, others) or _ranks(some, others) > _SURE_RANKS)


def _error(one: Floats, other: Floats) -> float:
    """Standard error of a difference of means."""
    return sqrt(one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other))


def _ranks(some: Floats, others: Floats) -> float:
    """Mann and Whitney's U in standard deviations: positive where the ones lie above the others."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, some, "left") + np.searchsorted(ordered, some, "right")
    m, n = len(some), len(others)
    return float((below.sum() / 2 - m * n / 2) / sqrt(m * n * (m + n + 1) / 12))


def _back_and_forth(losses: Floats) -> float:
    at = np.arange(len(losses))
    left = losses - np.polyval(np.polyfit(at, losses, 1), at)
    square = float((left**2).sum())
    return float((left[1:] * left[:-1]).sum()) / square if square > 0 else 0.0


def judge(table: pl.DataFrame, *, maximize: bool = False, probe_rows: int = 1) -> Finding:
    """What the run did, and why where that is supported.

    Args:
        table: the watch's: a row a step.
        probe_rows: rows of all probes together.
    """
    case = _Case(table, maximize, probe_rows)
    if not table.height:
        return case.says("unknown", "unknown", "unknown", "loop.none")
    if case.bad is not None:
        return case.not_finite()
    if not len(case.losses):
        return case.says("unknown", "unknown", "unknown", "loop.unseen", steps=table.height)
    if (above := case.blown_up()) is not None:
        case.evidence["first bad step"] = Evidence(above, f"at step {above}")
        return case.grew("certain")
    if len(case.losses) < FEWEST:
        return case.says("unknown", "unknown", "unknown", "loop.short", steps=len(case.losses))
    return case.trending()


class _Case:
    def __init__(self, table: pl.DataFrame, maximize: bool, probe_rows: int) -> None:
        self.table, self.probe_rows, self.sign = table, probe_rows, -1.0 if maximize else 1.0
        given = table.filter(pl.col("loss").is_not_null())
        values = given["loss"].to_numpy().astype(np.float64)
        self.bad, self.by_loss = _first_bad(table)
        self.losses = self.sign * values[np.isfinite(values)]
        passing = given.filter(~pl.col("loss").is_finite())["step"]
        self.passing = 0 if self.bad is not None else len(passing)
        self.steps = given["step"].to_numpy()[np.isfinite(values)]
        self.evidence: dict[str, Evidence] = {"steps": Evidence(table.height, "in all")}
        measured = table.filter(pl.col("rate_over_limit").is_not_null())
        self.shares = measured["rate_over_limit"].to_numpy()
        self.measured = measured
        if measured.height:
            last = measured.row(-1, named=True)
            where = f"after step {last['step']}"
            self.evidence["largest curvature"] = Evidence(last["sharpness"], where)
            self.evidence["rate over its limit"] = Evidence(last["rate_over_limit"], where)
        self.norms = table["gradient_norm"].drop_nulls().to_numpy()

    def says(
        self,
        verdict: Verdict,
        cause: str,
        confidence: Confidence,
        key: str,
        advice: Advice | None = None,
        more: str = "",
        **slots: Any,
    ) -> Finding:
        turned = say("loop.maximized") if self.sign < 0 and slots else ""
        gone = say("loop.passing", count=self.passing) if self.passing else ""
        parts = [say(key, **slots), turned, gone, more, advice.sentence if advice else ""]
        sentence = " ".join(part for part in parts if part)
        return Finding(0, verdict, cause, sentence, dict(self.evidence), confidence, advice)

    def blown_up(self) -> int | None:
        """The first step whose loss is beyond 1e8 × max(1, the first)."""
        above = self.losses > _BLOWN_UP * max(1.0, abs(self.losses[0]))
        return int(self.steps[above.argmax()]) if above.any() else None

    def not_finite(self) -> Finding:
        assert self.bad is not None
        self.evidence["first bad step"] = Evidence(self.bad, f"at step {self.bad}")
        if self.bad == 1 and self.by_loss:
            key = "loop.diverged.at-start"
            return self.says("diverged", "not-finite-at-start", "certain", key)
        kind = "not-finite" if self.by_loss else "gradient"
        cause, why, advice = self.rate()
        key = f"loop.diverged.{kind}"
        return self.says("diverged", cause, "certain", key, advice, why, step=self.bad)

    def grew(self, confidence: Confidence) -> Finding:
        cause, why, advice = self.rate()
        first, last = float(self.losses[0]), float(self.losses[-1])
        self.evidence |= {
            "loss at first": Evidence(first, "at step 1"),
            "loss at last": Evidence(last, "at the end"),
        }
        return self.says(
            "diverged", cause, confidence, "loop.diverged.grew", advice, why, first=first, last=last
        )

    def rate(self) -> tuple[str, str, Advice | None]:
        """Whether the rate was above what the curvature bears, from the largest share measured."""
        if not len(self.shares):
            return "unknown", say("loop.cause.rate-unknown"), None
        row = self.measured.row(int(np.argmax(self.shares)), named=True)
        where = f"after step {row['step']}"
        ratio, lr = float(row["rate_over_limit"]), float(row["lr"])
        slots: dict[str, Any] = {
            "ratio": ratio,
            "where": where,
            "sharpness": row["sharpness"],
            "lr": lr,
        }
        if ratio <= 1:
            return "unknown", say("loop.cause.rate-below", **slots), None
        self.evidence["rate over its limit, at most"] = Evidence(ratio, where)
        better = lr / ratio / 2
        advice = Advice({"lr": better}, "stable", say("loop.advice.lr", lr=better))
        return "rate-above-threshold", say("loop.cause.rate", **slots), advice

    def trending(self) -> Finding:
        """Verdicts of losses that stayed finite."""
        seen = trend(self.losses)
        first, last = seen.first, seen.last
        ends: dict[str, Any] = {"first": first, "last": last}
        self.evidence |= {
            "loss at first": Evidence(first, "the first eighth of the steps"),
            "loss at last": Evidence(last, "the last quarter of the steps"),
        }
        if seen.rising and seen.last > seen.first + 2 * abs(seen.first):
            return self.grew("likely")
        late = self.shares[len(self.shares) // 2 :]
        ratio = float(np.median(late)) if len(late) else 0.0
        if seen.fell and len(late) >= 2 and _NEAR[0] <= late.min() and late.max() <= _NEAR[1]:
            key = "loop.edge-of-stability"
            return self.says(
                "edge-of-stability", "edge-of-stability", "likely", key, ratio=ratio, **ends
            )
        if ratio > 0.5 and seen.back_and_forth < -0.4:
            key = "loop.ringing"
            return self.says("ringing", "rate-near-threshold", "likely", key, ratio=ratio)
        if seen.falling:
            sure: Confidence = "certain" if seen.monotone else "likely"
            return self.says("converging", "unknown", sure, "loop.converging", **ends)
        if seen.rising:
            key = "loop.rising"
            return self.says("unknown", "unknown", "unknown", key, last=last, before=seen.before)
        if seen.fell and seen.level:
            return self.level(ends)
        if seen.fell:
            return self.says("converging", "unknown", "likely", "loop.fell", **ends)
        if seen.still:
            return self.stuck(first)
        return self.says("unknown", "unknown", "unknown", "loop.unclear", **ends)

    def level(self, ends: dict[str, Any]) -> Finding:
        """The loss fell and stands."""
        quarter = self.losses[3 * len(self.losses) // 4 :]
        share = self.fallen()
        steady = np.ptp(quarter) <= 1e-4 * max(abs(quarter.mean()), 1e-12)
        if steady and share <= 1e-3:
            self.evidence["gradient norm's share of its largest"] = Evidence(
                share, "the last quarter of the steps"
            )
            key = "loop.converged"
            return self.says("converged", "unknown", "likely", key, last=ends["last"], share=share)
        noise = self.table["noise_scale"].drop_nulls().to_numpy()
        if len(noise) and noise[-1] > self.probe_rows:
            self.evidence["noise scale"] = Evidence(float(noise[-1]), "at the last measurement")
            advice = Advice({}, "lower", say("loop.advice.noise"))
            slots: dict[str, Any] = {**ends, "noise": float(noise[-1])}
            return self.says(
                "noise-floor", "gradient-noise", "likely", "loop.noise-floor", advice, **slots
            )
        return self.says("plateau", "unknown", "likely", "loop.plateau", **ends)

    def fallen(self) -> float:
        """The last quarter's largest gradient norm over the largest of all; 1 if unknown."""
        if len(self.norms) < 4 or not self.norms.max() > 0:
            return 1.0
        return float(self.norms[3 * len(self.norms) // 4 :].max() / self.norms.max())

    def stuck(self, first: float) -> Finding:
        most = float(self.norms.max()) if len(self.norms) else None
        if most is not None:
            self.evidence["gradient norm"] = Evidence(most, "the largest of all steps")
        dead = most is not None and most < 1e-7 * max(abs(first), 1e-12)
        cause = "zero-gradient" if dead else "unknown"
        more = say("loop.stuck.gradient", norm=most) if dead else ""
        same: Confidence = "certain" if np.ptp(self.losses) == 0 else "likely"
        return self.says("stuck", cause, same, "loop.stuck", more=more, first=first)


def _first_bad(table: pl.DataFrame) -> tuple[int | None, bool]:
    """The step from which losses or gradients are not finite, and whether the loss told first.

    A loss that is finite later shows that the parameters still are: the batch was left out, or
    the scaler left out its step.
    """
    given = table.filter(pl.col("loss").is_not_null())
    bad = given.filter(~pl.col("loss").is_finite())["step"]
    sound = given.filter(pl.col("loss").is_finite())["step"]
    last = int(sound[-1]) if len(sound) else 0
    by_loss = bad.filter(bad > last)
    norms = table.filter(pl.col("gradient_norm").is_not_null() & (pl.col("step") >= last))
    by_gradient = norms.filter(~pl.col("gradient_norm").is_finite())["step"]
    if len(by_loss) and (not len(by_gradient) or by_loss[0] <= by_gradient[0]):
        return int(by_loss[0]), True
    return (int(by_gradient[0]), False) if len(by_gradient) else (None, True)
