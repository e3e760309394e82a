"""The spread of the losses over the seeds, along the steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from downslope.comparing.frames import Outcome


def bands_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """A row a problem, optimizer and record: the chosen setting's losses on the fresh seeds.

    ``median``, ``lower_quartile`` and ``upper_quartile`` are over all `n` runs; those of which
    nothing finite is left count as infinite, and ``diverged`` is how many that were by then.
    """
    parts = []
    for outcome in outcomes:
        for label, seen in zip(outcome.labels, outcome.reported, strict=True):
            lost = ~np.isfinite(seen.curve[0])
            ordered = np.sort(np.where(lost, np.inf, seen.curve[0]), axis=0)
            n = len(ordered)
            low, high = np.quantile(ordered, [0.25, 0.75], axis=0, method="inverted_cdf")
            parts.append(
                pl.DataFrame(
                    {
                        "problem": outcome.case.name,
                        "optimizer": label,
                        "step": seen.steps,
                        "median": ordered[(n - 1) // 2] / 2 + ordered[n // 2] / 2,
                        "lower_quartile": low,
                        "upper_quartile": high,
                        "n": n,
                        "diverged": lost.sum(0),
                    }
                )
            )
    return pl.concat(parts)
